// Who is there: heartbeats in, the list of the living out.
const seen = new Map();
export default { fetch() {
	const [client, server] = Object.values(new WebSocketPair());
	server.accept();
	server.addEventListener("message", (e) => {
		const { name } = JSON.parse(e.data);
		seen.set(name, Date.now());
		for (const [who, at] of seen) if (Date.now() - at > 10000) seen.delete(who);
		server.send(JSON.stringify([...seen.keys()]));
	});
	return new Response(null, { status: 101, webSocket: client });
} };
