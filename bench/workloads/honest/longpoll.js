// Waits for news, three seconds at most.
const waiting = new Set();
let news = 0;
export default { async fetch(request) {
	if (request.method === "POST") {
		news++;
		for (const tell of waiting) tell();
		waiting.clear();
		return new Response("told");
	}
	await new Promise((ok) => { waiting.add(ok); setTimeout(ok, 3000); });
	return Response.json({ news });
} };
