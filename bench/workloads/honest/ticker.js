// Prices of an upstream, asked for every second, sent as server-sent events for ten.
export default { fetch(request) {
	const up = new URL(request.url).searchParams.get("up");
	const { readable, writable } = new TransformStream();
	const out = writable.getWriter(), enc = new TextEncoder();
	(async () => {
		for (let i = 0; i < 10; i++) {
			const { items } = await (await fetch(up + "/json")).json();
			await out.write(enc.encode(`data: ${JSON.stringify(items[i % items.length])}\n\n`));
			await new Promise((ok) => setTimeout(ok, 1000));
		}
		await out.close();
	})().catch(() => {});
	return new Response(readable, { headers: { "content-type": "text/event-stream" } });
} };
