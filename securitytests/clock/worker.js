// An attacker that looks for a clock: it asks everything that might move, around busy work of various
// lengths, and writes down what it saw. Without outside I/O or randomness the transcript is a function
// of this code, however long the work really took.
const lines = [];
const say = (what, value) => lines.push(what + " " + String(value));

let sink = 0;
const busy = (n) => { for (let i = 0; i < n; i++) sink = (sink * 31 + i) | 0; };
const churn = (n) => { for (let i = 0; i < n; i++) sink ^= JSON.stringify({ a: [i, "x".repeat(i & 63)] }).length; };
const works = [["nothing", () => {}], ["a little", () => busy(2_000)], ["some", () => busy(300_000)], ["much", () => busy(1_000_000)],
	["garbage", () => churn(1_000)], ["a regular expression", () => /^(a+)+$/.test("a".repeat(14) + "b")],
	["sorting", () => Array.from({ length: 4_000 }, (_, i) => (i * 7919) % 4_001).sort((a, b) => a - b)],
	["a buffer", () => new Uint8Array(4 << 20).fill(7)]];

const clocks = {
	"Date.now": () => Date.now(),
	"new Date": () => new Date().getTime(),
	"Date()": () => Date.parse(Date()),
	"Date.prototype.toISOString": () => Date.parse(new Date().toISOString()),
	"Reflect.construct(Date)": () => +Reflect.construct(Date, []),
	"performance.now": () => performance.now(),
	"Event.timeStamp": () => new Event("x").timeStamp,
	"AbortController's event": () => { let at; const a = new AbortController(); a.signal.addEventListener("abort", (e) => { at = e.timeStamp; }); a.abort(); return at; },
	"File.lastModified": () => new File([], "x").lastModified,
	"Intl.DateTimeFormat.format": () => fine.format().split(/\D+/).reduce((n, x) => n * 1000 + +x, 0),
	"Intl.DateTimeFormat.formatToParts": () => +fine.formatToParts().find((p) => p.type === "fractionalSecond").value,
	"toLocaleTimeString": () => new Date().toLocaleTimeString("en", { fractionalSecondDigits: 3, second: "numeric" }).split(/\D+/).reduce((n, x) => n * 1000 + +x, 0),
	"Temporal": () => (typeof Temporal === "object" ? Temporal.Now.instant().epochMilliseconds : 0),
};
const fine = new Intl.DateTimeFormat("en", { hour: "numeric", minute: "numeric", second: "numeric", fractionalSecondDigits: 3, hour12: false });

let ticks = 0; // that a clock moved on its own, all told
const readAll = () => Object.values(clocks).map((read) => read());
const synchronous = () => {
	const names = Object.keys(clocks), first = readAll();
	for (const [what, work] of works) {
		const before = readAll();
		work();
		const moved = readAll().map((now, i) => now - before[i]);
		ticks += moved.filter((m) => m !== 0).length;
		say("during " + what + ":", moved);
	}
	readAll().forEach((now, i) => say(names[i] + " altogether:", now - first[i]));
	const now = Date.now();
	say("clocks that disagree:", [+new Date() - now, performance.timeOrigin + performance.now() - now, new File([], "x").lastModified - now, fine.formatToParts(now).find((p) => p.type === "fractionalSecond").value - now % 1000]);
};

const absent = () => {
	for (const name of ["SharedArrayBuffer", "Worker", "MessageChannel", "requestIdleCallback", "requestAnimationFrame", "gc", "process", "Bun", "Deno"]) say(name, typeof globalThis[name]);
	say("Atomics.waitAsync", typeof Atomics.waitAsync);
	say("Atomics.pause", typeof Atomics.pause);
	try { say("Atomics.wait", Atomics.wait(new Int32Array(new ArrayBuffer(4)), 0, 0, 5)); } catch (e) { say("Atomics.wait", e.name); }
	for (const k of Object.getOwnPropertyNames(Object.getPrototypeOf(performance)).sort()) say("performance has", k);
	for (const k of ["memory", "timing", "eventCounts", "measureUserAgentSpecificMemory", "getEntries"]) say("performance." + k, typeof performance[k]);
	if (typeof WebAssembly === "object") {
		try { new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }); say("shared Wasm memory", "made"); } catch (e) { say("shared Wasm memory", "refused"); }
		say("Wasm imports of time", Object.getOwnPropertyNames(WebAssembly).sort());
	}
	say("headers of a new response", [...new Response("x").headers].map(([k]) => k));
	say("stack", new Error("x").stack.split("\n").length);
	say("RelativeTimeFormat", new Intl.RelativeTimeFormat("en").format(-1, "second"));
	say("a cloned date", +structuredClone(new Date(7)));
};

// Timers around busy work: when they say they fire, and in which order beside everything else.
const timers = async () => {
	const origin = Date.now(), order = [];
	const at = (what) => order.push(what + "@" + (Date.now() - origin));
	const done = [];
	const timer = (ms, what, work) => done.push(new Promise((r) => setTimeout(() => { at(what); work?.(); at(what + " after work"); r(); }, ms)));
	timer(3, "three");
	timer(0, "zero", () => busy(300_000));
	timer(1, "one");
	timer(1, "one again", () => churn(1_000));
	timer(40, "late");
	timer(20, "later", () => Promise.resolve().then(() => at("a microtask in between")));
	let n = 0;
	done.push(new Promise((r) => { const id = setInterval(() => { at("interval"); busy(100_000); if (++n === 4) { clearInterval(id); r(); } }, 5); }));
	const gone = setTimeout(() => at("never"), 2);
	setTimeout(() => clearTimeout(gone), 1);
	// One that is set anew after the first was due: the clock must not jump to the second's time early.
	const moved = setTimeout(() => at("moved away"), 2);
	busy(400_000);
	clearTimeout(moved);
	timer(30, "moved");
	queueMicrotask(() => at("microtask"));
	Promise.resolve().then(() => at("promise")).then(() => at("promise of a promise"));
	AbortSignal.timeout(15).addEventListener("abort", (e) => at("AbortSignal.timeout " + (e.timeStamp + performance.timeOrigin - Date.now())));
	at("at the end of the turn");
	busy(400_000);
	await Promise.all(done);
	say("timers", order.join(", "));
	// The rest of a race between timers, at nominal times.
	say("race", await Promise.race([new Promise((r) => setTimeout(() => r("long"), 12)), (async () => { for (let i = 0; i < 11; i++) await new Promise((r) => setTimeout(() => { busy(20_000); r(); }, 1)); return "many short"; })()]));
};

// The host's work beside JavaScript's: results come in an order that tells nothing.
const operations = async () => {
	const origin = Date.now(), order = [], at = (what) => order.push(what + "@" + (Date.now() - origin));
	const all = [];
	for (const size of [16, 1 << 20, 1 << 10]) all.push(crypto.subtle.digest("SHA-256", new Uint8Array(size)).then(() => at("digest of " + size)));
	all.push(new Promise((r) => setTimeout(() => { at("timer of 1"); r(); }, 1)));
	all.push(crypto.subtle.importKey("raw", new Uint8Array(32), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]).then((k) => crypto.subtle.sign("HMAC", k, new Uint8Array(1 << 19))).then(() => at("signature")));
	let turns = 0, running = true;
	const spin = async () => { while (running && turns < 2_000) { turns++; await null; } };
	all.push(spin());
	busy(300_000);
	await Promise.all(all.slice(0, 3));
	running = false;
	await Promise.all(all);
	say("operations", order.join(", "));
	say("microtasks while they ran", turns);
	const bytes = crypto.getRandomValues(new Uint8Array(8));
	say("randomness", bytes.length + " " + crypto.randomUUID().length + " " + (Math.random() < 1));
};

const streams = async () => {
	let pulls = 0, seen = 0;
	const counter = new ReadableStream({ pull(c) { if (++pulls === 200) c.close(); else c.enqueue(new Uint8Array(100)); } });
	const through = counter.pipeThrough(new TransformStream({ transform(x, c) { busy(500); c.enqueue(x); } }));
	const [a, b] = through.tee();
	let early = 0;
	const other = new Response(b).arrayBuffer().then((x) => { early = x.byteLength; });
	for await (const x of a) seen += x.byteLength;
	await other;
	say("streams", [pulls, seen, early, Date.now() - performance.timeOrigin - performance.now()]);
	let module = "";
	try { await import("./nothing.js"); } catch (e) { module = e.name; }
	say("import of nothing", module);
};

// What collections do must not show before the next I/O.
const collections = async () => {
	let finalized = 0;
	const registry = new FinalizationRegistry(() => { finalized++; });
	(() => { for (let i = 0; i < 2_000; i++) registry.register({ i, x: new Array(20).fill(i) }, i); })();
	for (let i = 0; i < 6; i++) {
		churn(1_000);
		await null;
		await new Promise((r) => setTimeout(r, 1));
		await crypto.subtle.digest("SHA-256", new Uint8Array(8));
	}
	say("finalized between I/O", finalized);
	let refused = 0;
	for (let i = 0; i < 200; i++) try { new ArrayBuffer(1 << 20); } catch { refused++; }
	say("buffers refused", refused);
};

// Everything else that comes back later: when it does, beside timers and host operations, and what its
// events say of the time.
const wasm = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 127, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 6, 1, 4, 0, 65, 42, 11);
const others = async () => {
	const origin = Date.now(), order = [], at = (what) => order.push(what + "@" + (Date.now() - origin));
	const all = [];
	const later = (what, promise) => all.push(promise.then((v) => at(what + (v === undefined ? "" : " " + v)), (e) => at(what + " failed: " + e.name)));
	// Ping-pong between two ports: a counter that runs beside whatever else there is.
	let rounds = 0, racing = true;
	const stamps = new Set();
	const { port1, port2 } = new MessageChannel();
	later("ports", new Promise((done) => {
		port1.onmessage = (e) => { stamps.add(e.timeStamp + performance.timeOrigin - Date.now()); if (!racing || ++rounds === 500) { done(); port1.close(); } else port1.postMessage(0); };
		port2.onmessage = () => port2.postMessage(0);
		port1.postMessage(0);
	}));
	later("scheduler.wait", scheduler.wait(3));
	later("timer of 3", new Promise((r) => setTimeout(r, 3)));
	const squeezed = (size) => new Response(new Blob([new Uint8Array(size)]).stream().pipeThrough(new CompressionStream("gzip"))).arrayBuffer().then((b) => new Response(new Blob([b]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer()).then((b) => b.byteLength);
	later("a megabyte squeezed", squeezed(1 << 20));
	later("a kilobyte squeezed", squeezed(1 << 10));
	later("EC key", crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]).then((k) => k.publicKey.type));
	const password = (iterations) => crypto.subtle.importKey("raw", new Uint8Array(8), "PBKDF2", false, ["deriveBits"]).then((k) => crypto.subtle.deriveBits({ name: "PBKDF2", hash: "SHA-256", salt: new Uint8Array(8), iterations }, k, 128)).then((b) => b.byteLength);
	later("long derivation", password(20_000));
	later("short derivation", password(10));
	later("HTMLRewriter", new HTMLRewriter().on("p", { element() { busy(20_000); } }).transform(new Response("<p>a<p>b".repeat(200))).text().then((t) => t.length));
	later("a cloned response", (() => { const r = new Response("x".repeat(100_000)), c = r.clone(); return Promise.all([r.text(), c.text()]).then(([a, b]) => a.length + b.length); })());
	if (typeof WebAssembly === "object") {
		later("Wasm compiled", WebAssembly.compile(wasm).then((m) => WebAssembly.Module.exports(m).length));
		later("Wasm instantiated", WebAssembly.instantiate(wasm).then(({ instance }) => { let n = 0; for (let i = 0; i < 100_000; i++) n += instance.exports.f(); return n; }));
		if (WebAssembly.compileStreaming) later("Wasm streamed", WebAssembly.compileStreaming(new Response(wasm, { headers: { "content-type": "application/wasm" } })).then(() => 1));
	}
	busy(300_000);
	await Promise.all(all.slice(1));
	racing = false;
	await all[0];
	say("others", order.join(", "));
	say("rounds between ports", rounds);
	say("stamps of messages", [...stamps]);
	// The console times things for the log's reader; the code that asks is told nothing.
	say("console.time", [console.time("a"), busy(100_000), console.timeLog("a"), console.timeEnd("a")]);
};

export default { async fetch(request) {
	lines.length = 0, ticks = 0;
	absent();
	synchronous();
	await timers();
	await operations();
	await others();
	await streams();
	await collections();
	synchronous();
	return new Response("ticks " + ticks + "\n" + lines.join("\n") + "\n");
} };
