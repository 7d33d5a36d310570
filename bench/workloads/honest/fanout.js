// Asks an upstream ten things at once and joins the answers.
export default { async fetch(request) {
	const up = new URL(request.url).searchParams.get("up");
	const all = await Promise.all(Array.from({ length: 10 }, async (_, i) => (await fetch(`${up}/json?i=${i}`)).json()));
	return Response.json({ total: all.reduce((n, a) => n + a.items.length, 0) });
} };
