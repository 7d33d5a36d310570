// Nested resolvers, each asynchronous, as GraphQL servers have them.
const author = async (id) => ({ id, name: "author " + id, books: async () => Promise.all([1, 2, 3].map((n) => book(id * 10 + n))) });
const book = async (id) => ({ id, title: "book " + id, pages: 100 + id % 300 });
async function resolve(v, query) {
	const x = typeof v === "function" ? await v() : await v;
	if (Array.isArray(x)) return Promise.all(x.map((y) => resolve(y, query)));
	const out = {};
	for (const [field, sub] of Object.entries(query)) out[field] = sub === true ? x[field] : await resolve(x[field], sub);
	return out;
}
export default { async fetch() {
	const all = Array.from({ length: 20 }, (_, i) => author(i));
	return Response.json(await resolve(all, { id: true, name: true, books: { title: true, pages: true } }));
} };
