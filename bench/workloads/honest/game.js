// Ten ticks a second for whoever plays: positions move, everybody is told.
const players = new Map();
let ticking;
function tick() {
	const state = [];
	for (const [socket, p] of players) {
		p.x = Math.max(0, Math.min(800, p.x + p.dx));
		p.y = Math.max(0, Math.min(600, p.y + p.dy));
		state.push([p.id, p.x, p.y]);
	}
	const text = JSON.stringify(state);
	for (const socket of players.keys()) socket.send(text);
	if (players.size === 0) { clearInterval(ticking); ticking = undefined; }
}
export default { fetch() {
	const [client, server] = Object.values(new WebSocketPair());
	server.accept();
	players.set(server, { id: players.size, x: 400, y: 300, dx: 0, dy: 0 });
	ticking ??= setInterval(tick, 100);
	server.addEventListener("message", (e) => Object.assign(players.get(server), JSON.parse(e.data)));
	server.addEventListener("close", () => players.delete(server));
	return new Response(null, { status: 101, webSocket: client });
} };
