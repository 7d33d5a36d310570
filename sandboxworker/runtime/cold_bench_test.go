package runtime_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"bulkhead/sandboxworker/engine"
)

// models is a worker of about size bytes that looks like a bundle: many classes and handlers, of which a
// request uses few.
func models(size, seed int) string {
	var s strings.Builder
	s.WriteString("const handlers = {};\n")
	for i := 0; s.Len() < size; i++ {
		fmt.Fprintf(&s, `
class Model%[1]d {
  static fields = ["id", "name%[2]d", "created"];
  constructor(row) { this.id = row.id ?? %[2]d; this.name = String(row["name%[2]d"] ?? "none"); this.tags = new Set(row.tags ?? []); }
  validate() {
    const errors = [];
    if (!Number.isInteger(this.id) || this.id < %[2]d) errors.push("id is out of range");
    for (const tag of this.tags) if (!/^[a-z]{2,32}$/.test(tag)) errors.push("tag " + tag + " is malformed");
    return errors.length ? { ok: false, errors } : { ok: true };
  }
}
handlers["/api/%[2]d/%[1]d"] = async function handle%[1]d(request, env) {
  const url = new URL(request.url);
  const rows = Array.from({ length: 7 }, (_, k) => ({ id: k + %[2]d, "name%[2]d": "row " + k, tags: ["a" + k] }));
  const models = rows.map((row) => new Model%[1]d(row)).filter((m) => m.validate().ok);
  return Response.json({ url, models });
};
`, i, seed*1000+i)
	}
	s.WriteString(`export default { async fetch(request, env) {
  const handler = handlers[new URL(request.url).pathname];
  return handler ? handler(request, env) : new Response("ok\n");
} };`)
	return s.String()
}

// BenchmarkCold is what the engine has to do for a tenant that is not loaded, part by part: its isolate, which
// the pool makes ahead, its load, its first request, a second one, and the end of the isolate.
func BenchmarkCold(b *testing.B) {
	for _, c := range []struct {
		name   string
		size   int
		cached bool
	}{{"hello", 0, false}, {"4KB", 4 << 10, false}, {"4KB,cached", 4 << 10, true}, {"20KB", 20 << 10, false}, {"20KB,cached", 20 << 10, true}, {"1MB", 1 << 20, false}, {"1MB,cached", 1 << 20, true}} {
		b.Run(c.name, func(b *testing.B) {
			headers := []byte("host\nt.localhost\nuser-agent\nbench/1.0\naccept\n*/*\naccept-encoding\ngzip\n")
			var spent [5]time.Duration
			// The first isolate of a process builds what all share; a shard is never without one.
			keep, err := shared.New()
			if err != nil {
				b.Fatal(err)
			}
			defer keep.Dispose()
			var cache []byte
			src := `export default { fetch() { return new Response("hello"); } }`
			n := 0
			for b.Loop() {
				n++
				if c.size > 0 && (!c.cached || n == 1) {
					src = models(c.size, n)
				}
				at := time.Now()
				lap := func(i int) { now := time.Now(); spent[i] += now.Sub(at); at = now }
				iso, err := shared.New()
				if err != nil {
					b.Fatal(err)
				}
				lap(0)
				bundle := engine.Bundle{Main: "/w.js", Modules: []engine.Module{{Name: "/w.js", Code: []byte(src)}}}
				if c.cached {
					bundle.CodeCache = cache
				}
				out, turn := iso.Load(bundle, nil, testLimits, epoch)
				if out.Failure != nil {
					b.Fatal(out.Failure)
				}
				iso.Done(&turn)
				lap(1)
				for i := range 2 {
					turn := iso.Request(epoch, engine.Request{Inv: uint32(i + 1), Method: "GET", URL: "http://t.localhost/path?x=1", Headers: headers})
					if turn.Status != engine.OK {
						b.Fatal(turn.Status)
					}
					iso.Done(&turn)
					lap(2 + i)
				}
				if c.cached && cache == nil {
					cache = iso.CodeCache()
				}
				iso.Dispose()
				lap(4)
			}
			for i, name := range []string{"new", "load", "first", "second", "dispose"} {
				b.ReportMetric(float64(spent[i].Microseconds())/float64(n), name+"-µs")
			}
		})
	}
}
