package runtime_test

import (
	"testing"

	"bulkhead/sandboxworker/engine"
)

// The turn of a whole request, without scheduler or sockets: what each handler costs in the engine.
func BenchmarkRequest(b *testing.B) {
	for _, c := range []struct{ name, src string }{
		{"hello", `export default { fetch() { return new Response("hello"); } }`},
		{"async", `export default { async fetch(request) { return new Response("hello", { headers: { "content-type": "text/plain" } }); } }`},
		{"json", `export default { async fetch(request) { const u = new URL(request.url); return Response.json({ path: u.pathname, agent: request.headers.get("user-agent") }); } }`},
		{"stream", `export default { fetch() { return new Response(new ReadableStream({ start(c) { c.enqueue(new Uint8Array(1000)); c.close(); } })); } }`},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := load(b, c.src)
			headers := []byte("host\nt.localhost\nuser-agent\nbench/1.0\naccept\n*/*\naccept-encoding\ngzip\n")
			inv := uint32(0)
			b.ReportAllocs()
			for b.Loop() {
				inv++
				turn := w.iso.Request(epoch, engine.Request{Inv: inv, Method: "GET", URL: "http://t.localhost/path?x=1", Headers: headers})
				if turn.Status != engine.OK {
					b.Fatal(turn.Status)
				}
			}
		})
	}
}

// BenchmarkIsolate is the price of a bootstrapped isolate with a hello tenant.
func BenchmarkIsolate(b *testing.B) {
	for b.Loop() {
		iso, err := shared.New()
		if err != nil {
			b.Fatal(err)
		}
		out, _ := iso.Load(engine.Bundle{Main: "/w.js", Modules: []engine.Module{{Name: "/w.js", Code: []byte(`export default { fetch() { return new Response("hello"); } }`)}}}, nil, testLimits, epoch)
		if out.Failure != nil {
			b.Fatal(out.Failure)
		}
		iso.Dispose()
	}
}
