package scheduler

import (
	"sync"
	"testing"
)

// BenchmarkHello is a request through the gateway's end, real sockets, the scheduler and V8,
// all in this process; clients are in flight at once, over four tenants.
func BenchmarkHello(b *testing.B) {
	for _, n := range []struct {
		name    string
		clients int
	}{{"1", 1}, {"32", 32}, {"128", 128}} {
		b.Run(n.name, func(b *testing.B) {
			h := startShard(b, Options{})
			var tenants []uint32
			for range 4 {
				tenants = append(tenants, h.load(`export default { fetch(r) { return new Response("hello") } }`))
			}
			for i := range 2000 {
				h.get(tenants[i%4], "/")
			}
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for i := range n.clients {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for k := i; k < b.N; k += n.clients {
						s, err := h.Open(b.Context(), request(tenants[k%4], "/"))
						if err != nil {
							b.Error(err)
							return
						}
						if _, err := s.Head(b.Context()); err != nil {
							b.Error(err)
							return
						}
						<-s.Done()
					}
				}()
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
		})
	}
}
