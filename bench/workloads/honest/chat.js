// A room: what one says all get.
const room = new Set();
export default { fetch() {
	const [client, server] = Object.values(new WebSocketPair());
	server.accept();
	room.add(server);
	server.addEventListener("message", (e) => {
		const { name, text } = JSON.parse(e.data);
		const line = JSON.stringify({ name, text: text.replace(/[<>&]/g, ""), at: Date.now() });
		for (const other of room) other.send(line);
	});
	server.addEventListener("close", () => room.delete(server));
	return new Response(null, { status: 101, webSocket: client });
} };
