// A small API over a map.
const items = new Map();
export default { async fetch(request) {
	const id = new URL(request.url).pathname.slice(1);
	switch (request.method) {
	case "POST": {
		const item = await request.json();
		items.set(id, { ...item, changed: Date.now() });
		if (items.size > 1000) items.delete(items.keys().next().value);
		return Response.json({ id }, { status: 200 });
	}
	default:
		return Response.json(items.get(id) ?? { missing: id });
	}
} };
