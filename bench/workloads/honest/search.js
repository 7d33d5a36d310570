// Full-text search over some thousand documents.
const words = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu".split(" ");
const docs = Array.from({ length: 3000 }, (_, i) => ({ id: i, text: Array.from({ length: 12 }, (_, k) => words[(i * 7 + k * k * 3) % words.length]).join(" ") }));
export default { fetch(request) {
	const q = new URL(request.url).searchParams.get("q") ?? "alpha";
	const found = docs.map((d) => [d.text.split(q).length - 1, d.id]).filter(([n]) => n).sort((a, b) => b[0] - a[0]).slice(0, 10);
	return Response.json(found);
} };
