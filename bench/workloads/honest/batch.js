// An API that scripts ask for one thing after the other.
export default { fetch(request) {
	const n = Number(new URL(request.url).searchParams.get("n"));
	const factors = [];
	for (let p = 2, left = n; left > 1; p++) while (left % p === 0) { factors.push(p); left /= p; }
	return Response.json({ n, factors });
} };
