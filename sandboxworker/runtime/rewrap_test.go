package runtime_test

import (
	"strings"
	"testing"

	"bulkhead/sandboxworker/engine"
	"bulkhead/schema/gen"
)

// A response made of another's body goes whole, as if nobody had made a stream of it; one that somebody has
// read from does not begin anew.
func TestRewrappedResponse(t *testing.T) {
	w := load(t, `
let first, again;
const long = "é".repeat(40_000);
export default { async fetch(request) {
  const path = new URL(request.url).pathname;
  first = new Response(path === "/long" ? long : path === "/bytes" ? new Uint8Array([104, 105]) : "hi", { status: 201, headers: [["b", "2"], ["a", "1"]] });
  const body = first.body;
  if (path === "/after") return Response.json([again.locked, again.constructor.name, await again.cancel().then(() => "ok", (e) => e.name)]);
  again = body;
  if (path === "/read") {
    const reader = body.getReader({ mode: "byob" });
    await reader.read(new Uint8Array(1));
    reader.releaseLock();
    try { new Response(body); return new Response("taken"); } catch (e) { return new Response(e.name); }
  }
  if (path === "/peeked") body.getReader().releaseLock();
  if (path === "/clone") { const copy = first.clone(); return new Response(await copy.text() + await first.text()); }
  if (path === "/text") return new Response(await new Response(body).text());
  const r = new Response(body, first);
  r.headers.set("c", "3");
  return r;
} }`)
	ask := func(path string) *answer { return w.do(engine.Request{URL: "http://t.localhost" + path}) }
	for path, want := range map[string]string{"/": "hi", "/bytes": "hi", "/peeked": "hi", "/clone": "hihi", "/text": "hi", "/read": "TypeError"} {
		a := ask(path)
		if a.outcome != gen.Outcome_ok || a.body.String() != want || a.mode != gen.BodyMode_whole {
			t.Errorf("%s: %v %q, mode %v, want %q whole: %s", path, a.outcome, a.body.String(), a.mode, want, a.message)
		}
		if path == "/" && (a.status != 201 || a.header("a") != "1" || a.header("b") != "2" || a.header("c") != "3" || !strings.HasPrefix(a.header("content-type"), "text/plain")) {
			t.Errorf("status %d, headers %q", a.status, a.headers)
		}
	}
	ask("/")
	if got := ask("/after").body.String(); got != `[true,"ReadableStream","TypeError"]` {
		t.Errorf("the stream that was sent: %s", got)
	}
	if a := ask("/long"); a.header("content-length") != "80000" || a.body.String() != strings.Repeat("é", 40_000) {
		t.Errorf("a long one: %q, %d bytes", a.headers, a.body.Len())
	}
}

// Parsed keys are kept: more of them than are, used in turn, and each still knows its own signatures.
func TestKeptKeys(t *testing.T) {
	w := script(t, `
const algorithm = { name: "ECDSA", hash: "SHA-256" }, data = new Uint8Array([1, 2, 3]);
const pairs = [], signatures = [];
for (let i = 0; i < 6; i++) pairs.push(await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, false, ["sign", "verify"]));
for (let round = 0; round < 2; round++) {
  for (let i = 0; i < 6; i++) signatures[i] = await crypto.subtle.sign(algorithm, pairs[i].privateKey, data);
  for (let i = 0; i < 6; i++) for (let j = 0; j < 6; j++) {
    eq(await crypto.subtle.verify(algorithm, pairs[i].publicKey, signatures[j], data), i === j, i + " of " + j);
  }
}`)
	w.host.Rest()
	if got := w.get(); got != "" {
		t.Error(got)
	}
}
