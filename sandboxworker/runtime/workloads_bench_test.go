package runtime_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/evanw/esbuild/pkg/api"
	"golang.org/x/sys/unix"

	"bulkhead/sandboxworker/engine"
	"bulkhead/schema/gen"
)

// BenchmarkWorkloads serves the small requests of `bench -only workloads` without a gateway, sockets and
// scheduler: what their JavaScript costs, and the runtime below it. cpu-us/req is of the thread, all told; on a
// shared machine it is what to compare, over a fixed count (-benchtime 5000x).
func BenchmarkWorkloads(b *testing.B) {
	if _, err := os.Stat("../../bench/peers/node_modules/hono"); err != nil {
		b.Fatalf("the workers' packages are missing: run npm ci in bench/peers: %v", err)
	}
	json := []byte(`{"id":"o-1","customer":"somebody","items":[` + strings.Repeat(`{"sku":"s-000001","count":2,"price":7.5,"note":"as \"ordered\""},`, 14) + `{"sku":"s","count":1,"price":1}]}`)
	for _, c := range []struct {
		worker, path string
		body         []byte
	}{
		{"hello", "/", nil}, {"json", "/", json}, {"hono", "/teams/42?page=7", nil}, {"ssr", "/?page=3", nil},
		{"hmac", "/hook?id=1", nil}, {"ecdsa", "/", nil},
	} {
		b.Run(c.worker, func(b *testing.B) {
			w := load(b, bundled(b, c.worker))
			r := engine.Request{Method: "GET", URL: "http://" + c.worker + ".localhost" + c.path, Headers: []byte("host\n" + c.worker + ".localhost:8080\n"), RequestID: "0123456789abcdef"}
			if c.body != nil {
				r.Method, r.Body, r.BodyMode = "POST", c.body, gen.BodyMode_whole
				r.Headers = fmt.Appendf(r.Headers, "content-type\napplication/json\ncontent-length\n%d\n", len(c.body))
			}
			for range 2000 { // what is hot is optimised by then
				w.serve(b, &r)
			}
			began := threadCPU(b)
			turns := w.turns
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				w.serve(b, &r)
			}
			b.StopTimer()
			b.ReportMetric(float64((threadCPU(b)-began).Nanoseconds())/1e3/float64(b.N), "cpu-us/req")
			b.ReportMetric(float64(w.turns-turns)/float64(b.N), "turns/req")
		})
	}
}

// bundled is a worker of bench/workloads with its packages, as one module.
func bundled(b *testing.B, name string) string {
	r := api.Build(api.BuildOptions{
		EntryPoints: []string{"../../bench/workloads/" + name + "/worker.js"}, Bundle: true, Format: api.FormatESModule, Platform: api.PlatformNeutral,
		MainFields: []string{"module", "main"}, Target: api.ES2022, Conditions: []string{"worker", "import"},
		NodePaths: []string{"../../bench/peers/node_modules"},
	})
	if len(r.Errors) > 0 {
		b.Fatal(r.Errors[0].Text)
	}
	return string(r.OutputFiles[0].Contents)
}

// serve does one request to its end: its turn, and those of the operations it asks for.
func (w *worker) serve(b *testing.B, r *engine.Request) {
	w.inv++
	r.Inv = w.inv
	w.turns++
	turn := w.iso.Request(epoch, *r)
	for {
		var o op
		for r := range turn.Records() {
			switch r.Kind {
			case engine.RecordOp:
				o = op{r.ID, r.Code, string(r.Text), bytes.Clone(r.Data)}
			case engine.RecordFinished:
				if r.Outcome != gen.Outcome_ok {
					b.Fatalf("%v: %s", r.Outcome, r.Text)
				}
				return
			}
		}
		if turn.Status != engine.OK || o.code == 0 {
			b.Fatalf("%v: it neither ends nor waits for anything", turn.Status)
		}
		ok, meta, data := w.host.Do(o.code, o.meta, o.data)
		w.turns++
		turn = w.iso.OpResult(epoch, o.id, ok, meta, data)
	}
}

func threadCPU(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}
