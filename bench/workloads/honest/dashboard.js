// Asked every second or two by each open page.
const start = Date.now();
let hits = 0;
export default { fetch() { return Response.json({ hits: ++hits, up: Date.now() - start, load: Array.from({ length: 60 }, (_, i) => (hits * i) % 100) }); } };
