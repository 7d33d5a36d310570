// Server-sent events, twice a second, for ten seconds.
export default { fetch() {
	const { readable, writable } = new TransformStream();
	const out = writable.getWriter(), enc = new TextEncoder();
	(async () => {
		for (let i = 0; i < 20; i++) {
			await out.write(enc.encode(`id: ${i}\ndata: ${JSON.stringify({ n: i, at: Date.now() })}\n\n`));
			await new Promise((ok) => setTimeout(ok, 500));
		}
		await out.close();
	})().catch(() => {});
	return new Response(readable, { headers: { "content-type": "text/event-stream" } });
} };
