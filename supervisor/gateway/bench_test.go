package gateway

import (
	"bufio"
	"io"
	"net"
	"testing"
)

// BenchmarkHello measures the gateway's share of a request: real TCP, net/http, placement and
// frames; a script in place of the engine; a client that does next to nothing.
func BenchmarkHello(b *testing.B) {
	f := newFarm(b, nil)
	f.request("GET", "/info", nil)
	const request = "GET /status?code=200&body=Hello&h=content-type%7Ctext/plain%7C HTTP/1.1\r\nHost: a.localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		c, err := net.Dial("tcp", f.addr)
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		br := bufio.NewReader(c)
		for pb.Next() {
			if _, err := io.WriteString(c, request); err != nil {
				b.Error(err)
				return
			}
			if err := skipAnswer(br); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// skipAnswer reads an answer whose body is "Hello".
func skipAnswer(br *bufio.Reader) error {
	for {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) == 2 {
			_, err := br.Discard(len("Hello"))
			return err
		}
	}
}
