package runtime_test

import (
	"testing"
	"time"

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

// BenchmarkStream moves 64 KiB chunks through a tenant: the turn for the chunk, and the client's
// window. The CPU limit of an invocation is spent on this.
func BenchmarkStream(b *testing.B) {
	for _, c := range []struct{ name, src string }{
		{"pass", `export default { fetch(r) { return new Response(r.body); } }`},
		{"transform", `export default { fetch(r) { return new Response(r.body.pipeThrough(new TransformStream({ transform(c, k) { k.enqueue(c); } }))); } }`},
		{"count", `export default { async fetch(r) { let n = 0; for await (const c of r.body) n += c.length; return new Response(n); } }`},
		{"text", `export default { async fetch(r) { return new Response((await r.text()).length); } }`},
	} {
		b.Run(c.name, func(b *testing.B) {
			chunk := make([]byte, 64<<10)
			b.SetBytes(int64(len(chunk)))
			var w *worker
			n := 0
			var cpu time.Duration // what the tenant is charged
			for b.Loop() {
				if n%500 == 0 { // about 32 MiB a request
					if w != nil {
						w.iso.End(epoch, 1)
						w.iso.Dispose()
					}
					b.StopTimer()
					w = load(b, c.src)
					w.send(1, streamed("POST", nil))
					b.StartTimer()
				}
				n++
				in := w.iso.Chunk(epoch, 1, chunk)
				out := w.iso.Window(epoch, 1, uint32(len(chunk)))
				if in.Status != engine.OK || out.Status != engine.OK {
					b.Fatal(in.Status, out.Status)
				}
				cpu += in.CPU + out.CPU
			}
			b.ReportMetric(float64(cpu.Microseconds())/float64(n), "cpu-us/chunk")
		})
	}
}

// BenchmarkRareRequest is a request to a tenant that is asked so seldom that it is made small after each:
// what it costs to wake, to answer and to be made small again. Many of them, so that none is in the caches.
func BenchmarkRareRequest(b *testing.B) {
	var all []*worker
	for range 32 {
		all = append(all, load(b, `export default { fetch() { return new Response("hello"); } }`))
	}
	headers := []byte("host\nt.localhost\nuser-agent\nbench/1.0\naccept\n*/*\naccept-encoding\ngzip\n")
	inv := uint32(0)
	var asking, trimming time.Duration
	for b.Loop() {
		w := all[int(inv)%len(all)]
		inv++
		begin := time.Now()
		if turn := w.iso.Request(epoch, engine.Request{Inv: inv, Method: "GET", URL: "http://t.localhost/path?x=1", Headers: headers}); turn.Status != engine.OK {
			b.Fatal(turn.Status)
		}
		asked := time.Now()
		w.iso.TrimLightly()
		asking, trimming = asking+asked.Sub(begin), trimming+time.Since(asked)
	}
	b.ReportMetric(float64(asking.Microseconds())/float64(b.N), "µs-asked/op")
	b.ReportMetric(float64(trimming.Microseconds())/float64(b.N), "µs-trimmed/op")
}
