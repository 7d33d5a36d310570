// The published pattern: cache-touching work between two events that somebody outside can time. What it would
// leak is left out; the measuring is real.
const memory = new Uint8Array(1 << 20);
function probe(n) {
	let x = 1;
	for (let i = 0; i < n * 1000; i++) { x = (x * 16807) % 2147483647; memory[x & 0xfffff] ^= i; }
	return x;
}

function socket(serve) {
	const [client, server] = Object.values(new WebSocketPair());
	server.accept();
	server.addEventListener("message", (e) => serve(server, e.data));
	return new Response(null, { status: 101, webSocket: client });
}

export default { async fetch(request, env) {
	const url = new URL(request.url), n = Number(url.searchParams.get("n") ?? 60), up = url.searchParams.get("up");
	switch (url.pathname) {
	case "/socket":
		return socket((s) => { probe(n); s.send("tock"); });
	case "/mix": // hidden behind dealings that measure nothing
		return socket(async (s, data) => {
			if (data === "noise") {
				const { items } = await (await fetch(up + "/json")).json();
				await crypto.subtle.digest("SHA-256", new Uint8Array(4096));
				s.send(JSON.stringify(items));
				return;
			}
			probe(n);
			s.send("tock");
		});
	case "/stream": { // a request's body and its answer's
		const { readable, writable } = new TransformStream(), out = writable.getWriter();
		(async () => {
			for await (const _ of request.body) { probe(n); await out.write(new TextEncoder().encode("tock")); }
			await out.close();
		})().catch(() => {});
		return new Response(readable);
	}
	case "/subrequests": // an upstream of its own tells the time
		for (let i = 0; i < 12; i++) { await (await fetch(up + "/json?i=" + i)).text(); probe(n); }
		return new Response("done");
	case "/short":
		return new Response(String(probe(n)));
	}
	return new Response("a harmless page");
} };
