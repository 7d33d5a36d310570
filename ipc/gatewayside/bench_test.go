package gatewayside_test

import (
	"sync"
	"testing"

	"bulkhead/ipc/gatewayside"
)

// BenchmarkRoundTrip is a request and its whole response over real sockets, without an engine:
// what the channel itself costs.
func BenchmarkRoundTrip(b *testing.B) {
	for _, n := range []struct {
		name    string
		clients int
	}{{"1", 1}, {"32", 32}, {"128", 128}} {
		b.Run(n.name, func(b *testing.B) {
			c := dial(b, hello, gatewayside.Options{})
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for i := range n.clients {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for k := i; k < b.N; k += n.clients {
						s, err := c.Open(b.Context(), get(1))
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
