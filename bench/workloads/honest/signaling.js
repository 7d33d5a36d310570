// Brings two peers of a call together: each message goes to the other one.
let waiting;
export default { fetch() {
	const [client, server] = Object.values(new WebSocketPair());
	server.accept();
	let peer = waiting;
	if (peer) { waiting = undefined; peer.peer = server; server.peer = peer; } else waiting = server;
	server.addEventListener("message", (e) => (server.peer ?? server).send(e.data));
	return new Response(null, { status: 101, webSocket: client });
} };
