// Follows one answer to the next, five times.
export default { async fetch(request) {
	const up = new URL(request.url).searchParams.get("up");
	const seen = [];
	for (let i = 0; i < 5; i++) seen.push((await (await fetch(`${up}/json?page=${i}`)).json()).items.length);
	return Response.json(seen);
} };
