package runtime_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"bulkhead/sandboxworker/engine"
	"bulkhead/sandboxworker/runtime"
)

var update = flag.Bool("update", false, "write testdata/surface.golden anew")

// hostileJS is testdata/hostile.js: hostile values and what walks functions.
func hostileJS(t testing.TB) string {
	t.Helper()
	src, err := os.ReadFile("testdata/hostile.js")
	if err != nil {
		t.Fatal(err)
	}
	return string(src)
}

// surfaceJS finds every function a tenant can reach that is not V8's, and knows for each class how to
// get an object of it and a first argument that is of some use.
const surfaceJS = `
// What V8 brings along. A name that is neither here nor found on the way is ours, and in the matrix.
const builtIn = ("Object Function Array Number parseFloat parseInt Infinity NaN undefined Boolean String Symbol Date Promise RegExp Error AggregateError EvalError RangeError ReferenceError " +
  "SyntaxError TypeError URIError globalThis JSON Math Intl ArrayBuffer Atomics Uint8Array Int8Array Uint16Array Int16Array Uint32Array Int32Array BigUint64Array BigInt64Array Float32Array Float64Array Float16Array " +
  "Uint8ClampedArray DataView Map BigInt Set Iterator WeakMap WeakSet WeakRef Proxy Reflect FinalizationRegistry decodeURI decodeURIComponent encodeURI encodeURIComponent escape unescape eval isFinite isNaN " +
  "DisposableStack AsyncDisposableStack SuppressedError WebAssembly console").split(" ");
const theScheduler = scheduler, theCrypto = crypto, thePerformance = performance, theNavigator = navigator, theCaches = caches;
const wait = scheduler.wait.bind(scheduler);
const own = (o, k) => Object.getOwnPropertyDescriptor(o, k)?.value;
const entriesOf = (request, ctx) => {
  const known = [async function () {}, async function* () {}, function* () {}, [][Symbol.iterator](), (async function* () {})()];
  const roots = { __proto__: null };
  const ours = [ArrayBuffer, ArrayBuffer.prototype.transfer];
  for (const name of Reflect.ownKeys(globalThis)) {
    if (typeof name === "symbol") continue;
    if (builtIn.includes(name) && name !== "console") { if (name !== "globalThis" && name !== "ArrayBuffer") known.push(own(globalThis, name)); }
    else { const d = Object.getOwnPropertyDescriptor(globalThis, name); for (const how of ["get", "set"]) if (d[how]) roots[how + " globalThis." + name] = d[how]; roots[name] = globalThis[name]; }
  }
  for (const k of Reflect.ownKeys(ArrayBuffer)) if (k !== "prototype") known.push(own(ArrayBuffer, k));
  for (const k of Reflect.ownKeys(ArrayBuffer.prototype)) if (k !== "transfer" && k !== "constructor") { const d = Object.getOwnPropertyDescriptor(ArrayBuffer.prototype, k); known.push(d.value, d.get); }
  known.push(Function.prototype, Object.prototype);
  roots.ArrayBuffer = ArrayBuffer;
  const samples = { request, ctx, "new Headers()": new Headers().entries(), "new URLSearchParams()": new URLSearchParams().keys(), "new FormData()": new FormData().values(), streamValues: new ReadableStream().values(), size: new ByteLengthQueuingStrategy({ highWaterMark: 1 }).size };
  Object.assign(roots, samples);
  return H.surface(roots, known.filter((v) => v !== undefined && !ours.includes(v)));
};

const controllerOf = (type) => { let c; new ReadableStream({ type, start(k) { c = k; } }); return c; };
const objects = {
  self: () => globalThis,
  Headers: () => new Headers({ a: "b" }), Request: () => new Request("http://a.example/", { method: "POST", body: "b" }), Response: () => new Response("b"), URL: () => new URL("http://a.example/?q"),
  URLSearchParams: () => new URLSearchParams("a=1"), Blob: () => new Blob(["b"]), File: () => new File(["b"], "f"), FormData: () => { const f = new FormData(); f.append("a", "b"); return f; },
  TextEncoder: () => new TextEncoder(), TextDecoder: () => new TextDecoder(), ReadableStream: () => new ReadableStream({ pull(c) { c.enqueue(new Uint8Array(3)); } }),
  ReadableStreamDefaultReader: () => new ReadableStream().getReader(), ReadableStreamBYOBReader: () => new ReadableStream({ type: "bytes" }).getReader({ mode: "byob" }),
  ReadableStreamDefaultController: () => controllerOf(undefined), ReadableByteStreamController: () => controllerOf("bytes"),
  ReadableStreamBYOBRequest: () => { let c; new ReadableStream({ type: "bytes", start(k) { c = k; } }).getReader({ mode: "byob" }).read(new Uint8Array(8)).catch(() => {}); return c.byobRequest; },
  WritableStream: () => new WritableStream(), WritableStreamDefaultWriter: () => new WritableStream().getWriter(), WritableStreamDefaultController: () => { let c; new WritableStream({ start(k) { c = k; } }); return c; },
  TransformStream: () => new TransformStream(), TransformStreamDefaultController: () => { let c; new TransformStream({ start(k) { c = k; } }); return c; },
  ByteLengthQueuingStrategy: () => new ByteLengthQueuingStrategy({ highWaterMark: 1 }), CountQueuingStrategy: () => new CountQueuingStrategy({ highWaterMark: 1 }),
  TextEncoderStream: () => new TextEncoderStream(), TextDecoderStream: () => new TextDecoderStream(), IdentityTransformStream: () => new IdentityTransformStream(), FixedLengthStream: () => new FixedLengthStream(5),
  Event: () => new Event("x"), EventTarget: () => new EventTarget(), CustomEvent: () => new CustomEvent("x"), ErrorEvent: () => new ErrorEvent("x"), MessageEvent: () => new MessageEvent("x"), CloseEvent: () => new CloseEvent("x"),
  PromiseRejectionEvent: () => new PromiseRejectionEvent("x", { promise: Promise.resolve() }), ExtendableEvent: () => new ExtendableEvent("x"), FetchEvent: () => new FetchEvent("fetch", { request: objects.Request() }),
  AbortController: () => new AbortController(), AbortSignal: () => new AbortController().signal, WorkerGlobalScope: () => globalThis, ServiceWorkerGlobalScope: () => globalThis, DOMException: () => new DOMException("m"),
  Crypto: () => theCrypto, SubtleCrypto: () => theCrypto.subtle, CryptoKey: () => theKey, Performance: () => thePerformance, Navigator: () => theNavigator, ArrayBuffer: () => new ArrayBuffer(8), console: () => console,
  URLPattern: () => new URLPattern({ pathname: "/a" }), MessageChannel: () => new MessageChannel(), MessagePort: () => new MessageChannel().port1,
  WebSocket: () => Object.values(new WebSocketPair())[0], CompressionStream: () => new CompressionStream("gzip"), DecompressionStream: () => new DecompressionStream("gzip"),
  FileReader: () => new FileReader(), ProgressEvent: () => new ProgressEvent("x"), PerformanceEntry: () => thePerformance.mark("m"), PerformanceMark: () => thePerformance.mark("m"), PerformanceMeasure: () => thePerformance.measure("m"),
  HTMLRewriter: () => new HTMLRewriter(), Cache: () => theCaches.default, CacheStorage: () => theCaches,
  scheduler: () => theScheduler, ExecutionContext: () => theContext, ctx: () => theContext, request: () => theRequest, "new Headers()": () => new Headers({ a: "b" }).entries(), "new URLSearchParams()": () => new URLSearchParams("a=1").keys(),
  "new FormData()": () => objects.FormData().values(), streamValues: () => objects.ReadableStream().values(), size: () => undefined,
};
let theKey, theContext, theRequest;
const receiverOf = (e) => (e.owner === "" ? () => undefined : objects[e.owner.split(".")[0]]);
const firstOf = (e) => () => (e.path.startsWith("crypto.subtle") || e.path.includes("SubtleCrypto") ? "HMAC" : e.path.includes("addEventListener") ? "x" : e.path === "setTimeout" || e.path === "setInterval" ? () => {} : e.path.startsWith("FileReader.") || e.path.includes("createObjectURL") ? new Blob(["b"]) : e.path.includes("Blob") || e.path.includes("File") ? ["b"] : e.path === "URL" || e.path === "fetch" ? "http://a.example/" : "a");
let entries;
`

const matrixJS = surfaceJS + `
export default { async fetch(request, env, ctx) {
  const u = new URL(request.url), at = +u.searchParams.get("row");
  theContext = ctx; theRequest = request;
  theKey ??= await theCrypto.subtle.generateKey({ name: "HMAC", hash: "SHA-1" }, true, ["sign", "verify"]);
  entries ??= entriesOf(request, ctx);
  if (u.pathname === "/list") return Response.json(entries.map((e) => e.path));
  const e = entries[at], receiver = receiverOf(e);
  if (receiver === undefined) return new Response("no object to call it on: add one to the matrix");
  const text = H.row(e, receiver, firstOf(e));
  await wait(1);
  return new Response(text());
} }`

// TestSurface calls every function that a tenant can reach and that is not V8's own with every hostile
// value, as this and in the place of each argument, and compares what came of it, word by word, with
// testdata/surface.golden. A function that is not there yet fails: look at what it does, then run
// go test ./sandboxworker/runtime -run TestSurface -args -update, and read the difference.
func TestSurface(t *testing.T) {
	if os.Getenv(profileEnv) != "" {
		return
	}
	const golden = "testdata/surface.golden"
	load := func() *worker { return load(t, hostileJS(t)+matrixJS) }
	w := load()
	get := func(path string) (string, string) {
		a := w.do(engine.Request{URL: "http://t.localhost" + path})
		if a.finished != 1 {
			t.Fatalf("%s finished %d times", path, a.finished)
		}
		return a.body.String(), a.message
	}
	var list []string
	body, message := get("/list")
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		t.Fatalf("%v: %.200q %s", err, body, message)
	}
	if len(list) < 300 {
		t.Fatalf("only %d functions", len(list))
	}
	got := map[string]string{}
	for i, name := range list {
		if testing.Verbose() {
			fmt.Fprintln(os.Stderr, "matrix:", name)
		}
		if i%20 == 19 {
			w.iso.Dispose() // what one function leaves behind is no other's affair for long
			w = load()
		}
		text, message := get(fmt.Sprintf("/?row=%d", i))
		if !strings.HasPrefix(text, "  ") {
			t.Errorf("%s: %q %s", name, text, message)
		}
		got[name] = text
	}
	if alive := load_(t, `export default { fetch: () => new Response("alive") }`).get(); alive != "alive" {
		t.Errorf("after it all: %q", alive)
	}
	var b strings.Builder
	for _, name := range list {
		b.WriteString(name + "\n" + got[name])
	}
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for name, text := range rows(string(file)) {
		want[name] = text
		if got[name] == "" {
			t.Errorf("%s: gone; run with -update", name)
		}
	}
	for _, name := range list {
		switch {
		case want[name] == "":
			t.Errorf("%s: a function the matrix does not know. It now does:\n%s", name, got[name])
		case want[name] != got[name]:
			t.Errorf("%s:\ngot\n%swant\n%s", name, got[name], want[name])
		}
	}
}

// load_ is load where a variable hides it.
func load_(t *testing.T, src string) *worker { return load(t, src) }

// rows splits a golden file: a name, then lines that begin with two blanks.
func rows(text string) map[string]string {
	out := map[string]string{}
	name := ""
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "  ") {
			out[name] += line
		} else {
			name = strings.TrimSuffix(line, "\n")
		}
	}
	return out
}

// opCases are hostile descriptions of each operation that Do performs or ParseFetch reads.
var opCases = map[string]uint32{"OpDigest": runtime.OpDigest, "OpHMACSign": runtime.OpHMACSign, "OpHMACVerify": runtime.OpHMACVerify, "OpFetch": runtime.OpFetch,
	"OpCrypto": runtime.OpCrypto, "OpDeflate": runtime.OpDeflate, "OpInflate": runtime.OpInflate, "OpHTML": runtime.OpHTML}

// TestOpsSurviveAnything gives every operation of ops.go, by its constant, hostile descriptions.
func TestOpsSurviveAnything(t *testing.T) {
	found := 0
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^\s+(Op[A-Z]\w*)\s+(?:uint32\s+)?= \d+`).FindAllSubmatch(src, -1) {
			found++
			if _, ok := opCases[string(m[1])]; !ok {
				t.Errorf("%s: %s is an operation this test does not know", name, m[1])
			}
		}
	}
	if found != len(opCases) {
		t.Errorf("%d operations in the source, %d here", found, len(opCases))
	}
	metas := []string{"", ":", "::", "SHA-1", "SHA-256:", "SHA-1:0", "SHA-1:3:20", "SHA-1:-1", "SHA-1:4294967296", "SHA-1:18446744073709551616", "SHA-1:4294967295:4294967295", "SHA-1:1:1:1", "\x00", "\xff\xfe",
		strings.Repeat("SHA-1:", 10000), strings.Repeat("9", 100000), "GET\nhttp://a/\n0\n0\n", "GET\nhttp://a/\n9\n9\n", "GET\n\n\n\n\n\n", "\n\n\n\n", "GET\nhttp://a/\n0\n2\na", "GET\nhttp://a/\n0\n2\na\nb\nc", "G\rT\nhttp://a/\n0\n0\na\r\nb\n"}
	for code := range uint32(64) {
		for _, meta := range metas {
			for _, data := range [][]byte{nil, {}, []byte("x"), make([]byte, 64), make([]byte, 1<<20)} {
				ok, resMeta, _ := (&runtime.Host{}).Do(code, meta, data)
				if !ok && resMeta == "" {
					t.Errorf("operation %d refused %.40q without a word", code, meta)
				}
				if ok && !slices.Contains([]uint32{runtime.OpDigest, runtime.OpHMACSign, runtime.OpHMACVerify, runtime.OpDeflate, runtime.OpInflate, runtime.OpHTML}, code) {
					t.Errorf("operation %d did %.40q", code, meta)
				}
			}
			_, _ = runtime.ParseFetch(meta) // what it lets through ipc.Fetch.Check looks at again
		}
	}
}
