// More of spy.js, written after the thresholds were frozen.
const memory = new Uint8Array(1 << 20);
function probe(n) {
	let x = 1;
	for (let i = 0; i < n * 1000; i++) { x = (x * 16807) % 2147483647; memory[x & 0xfffff] ^= i; }
	return x;
}

// Touches each of so many bytes of its memory once.
const code = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 1, 127, 0, 3, 2, 1, 0, 5, 3, 1, 0, 16, 7, 9, 2, 1, 109, 2, 0, 1, 102, 0, 0,
	10, 35, 1, 33, 1, 1, 127, 3, 64, 32, 1, 32, 1, 45, 0, 0, 65, 255, 1, 115, 58, 0, 0, 32, 1, 65, 1, 106, 34, 1, 32, 0, 73, 13, 0, 11, 11]);
let wasm, messages = 0;

function socket(serve) {
	const [client, server] = Object.values(new WebSocketPair());
	server.accept();
	server.addEventListener("message", (e) => serve(server, e.data));
	return new Response(null, { status: 101, webSocket: client });
}

export default { async fetch(request, env) {
	const url = new URL(request.url), n = Number(url.searchParams.get("n") ?? 60);
	switch (url.pathname) {
	case "/socket":
		return socket((s) => { probe(n); s.send("tock"); });
	case "/timer": // what measures runs in a timer, and the message that it answers is long over
		return socket((s) => setTimeout(() => { probe(n); s.send("tock"); }, 1));
	case "/wasm":
		wasm ??= new WebAssembly.Instance(new WebAssembly.Module(code)).exports;
		return socket((s) => { wasm.f(1 << 20); wasm.f(1 << 20); s.send("tock"); });
	case "/victim": // starts its victim, and keeps it busy, by calling it
		return socket(async (s) => {
			probe(n);
			if (messages++ % 5 === 0) await (await env.VICTIM.fetch("http://victim/x")).text();
			s.send("tock");
		});
	case "/relay": // is the clock of another worker, which measures
		return socket(async (s) => s.send(await (await env.BACK.fetch("http://back/short")).text()));
	case "/padded": // buys credit with bytes
		return socket((s, data) => { probe(n); s.send(data); });
	case "/short":
		return new Response(String(probe(n)));
	}
	return new Response("a harmless page");
} };
