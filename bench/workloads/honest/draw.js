// A shared drawing: strokes go to everybody, and are kept for who comes later.
const room = new Set(), strokes = [];
export default { fetch() {
	const [client, server] = Object.values(new WebSocketPair());
	server.accept();
	for (const s of strokes.slice(-200)) server.send(s);
	room.add(server);
	server.addEventListener("message", (e) => {
		strokes.push(e.data);
		if (strokes.length > 1000) strokes.splice(0, 500);
		for (const other of room) if (other !== server) other.send(e.data);
		server.send("ok");
	});
	server.addEventListener("close", () => room.delete(server));
	return new Response(null, { status: 101, webSocket: client });
} };
