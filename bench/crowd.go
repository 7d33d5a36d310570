package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http/httputil"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// crowd is a set of workers of one target that a load is spread over. wrk knows one address; here each
// worker has its own, so that a peer which has no host names needs no router in front.
type crowd struct {
	*target
	places []place
}

type place struct {
	addr    string
	request []byte // as it is sent, head and body
}

// crowdOf are tenants of a host of ours, by name.
func crowdOf(t *target, names ...string) *crowd {
	c := &crowd{target: t}
	for _, name := range names {
		c.places = append(c.places, place{t.addr, plainGet(name+".localhost", "/")})
	}
	return c
}

// crowd is workerd's workers, each at its own port.
func (m *workerdMany) crowd() *crowd {
	c := &crowd{target: m.target}
	for _, w := range m.clients {
		c.places = append(c.places, place{w.addr, plainGet("hello.localhost", "/")})
	}
	return c
}

func plainGet(host, path string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, host)
}

// keptConn is one kept connection. Reading is by hand: the generator shares two cores with what it measures.
type keptConn struct {
	net.Conn
	br *bufio.Reader
}

var errNoLength = errors.New("an answer without Content-Length")

// ask sends one request and reads its answer, which must be 200 and say its length or come in chunks.
func (l *keptConn) ask(request []byte) error {
	l.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := l.Write(request); err != nil {
		return err
	}
	head, err := l.br.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200")) {
		return fmt.Errorf("%.60q", head)
	}
	length, chunked := -1, false
	for {
		head, err := l.br.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(head) <= 2 {
			break
		}
		switch name, value, _ := bytes.Cut(head, []byte(":")); {
		case bytes.EqualFold(name, []byte("content-length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			chunked = true
		}
	}
	if chunked {
		if _, err := io.Copy(io.Discard, httputil.NewChunkedReader(l.br)); err != nil {
			return err
		}
		_, err := l.br.Discard(2) // the empty line after the last chunk
		return err
	}
	if length < 0 {
		return errNoLength
	}
	_, err = io.CopyN(io.Discard, l.br, int64(length))
	return err
}

// keptConns are the idle connections to each address.
type keptConns struct {
	mu   sync.Mutex
	idle map[string][]*keptConn // guarded by mu
}

func (p *keptConns) take(addr string) (*keptConn, error) {
	p.mu.Lock()
	if n := len(p.idle[addr]); n > 0 {
		l := p.idle[addr][n-1]
		p.idle[addr] = p.idle[addr][:n-1]
		p.mu.Unlock()
		return l, nil
	}
	p.mu.Unlock()
	c, err := net.DialTimeout("tcp", addr, 20*time.Second)
	if err != nil {
		return nil, err
	}
	return &keptConn{c, bufio.NewReaderSize(c, 4096)}, nil
}

func (p *keptConns) give(addr string, l *keptConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle[addr] = append(p.idle[addr], l)
}

func (p *keptConns) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, idle := range p.idle {
		for _, l := range idle {
			l.Close()
		}
	}
}

// crowdLoad is what one load of a crowd saw.
type crowdLoad struct {
	measurement
	why string    // of the first failure
	cpu cpuShares // µs, all of it
}

// load keeps n requests under way for d; pick says whom the next one asks.
func (c *crowd) load(ctx context.Context, n int, d time.Duration, pick func(rng *rand.Rand, turn int) int) crowdLoad {
	return c.send(ctx, n, d, pick, func(start time.Time, _ int) time.Time { return start })
}

// paced sends perSecond requests a second whatever becomes of the ones before (an open loop): latency is
// counted from when a request was due, so that one which had to wait for a free connection is not flattered.
func (c *crowd) paced(ctx context.Context, n int, d time.Duration, perSecond float64, pick func(rng *rand.Rand, turn int) int) crowdLoad {
	var next atomic.Int64
	begin := time.Now()
	return c.send(ctx, n, d, pick, func(time.Time, int) time.Time {
		return begin.Add(time.Duration(float64(next.Add(1)-1) / perSecond * 1e9))
	})
}

func (c *crowd) send(ctx context.Context, n int, d time.Duration, pick func(*rand.Rand, int) int, due func(now time.Time, turn int) time.Time) (m crowdLoad) {
	pool := &keptConns{idle: map[string][]*keptConn{}}
	defer pool.close()
	before := c.cpu()
	begin := time.Now()
	end := begin.Add(d)
	var mu sync.Mutex
	var all histogram
	var wg sync.WaitGroup
	for who := range n {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(who), 7))
			var h histogram
			failed, why := 0, ""
			for turn := who; ctx.Err() == nil; turn += n {
				at := due(time.Now(), turn)
				if at.After(end) {
					break
				}
				time.Sleep(time.Until(at))
				p := &c.places[pick(rng, turn)]
				l, err := pool.take(p.addr)
				if err == nil {
					if err = l.ask(p.request); err == nil {
						pool.give(p.addr, l)
					} else {
						l.Close()
					}
				}
				if h.add(time.Since(at)); err != nil {
					failed, why = failed+1, err.Error()
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all.merge(&h)
			if m.failed += failed; m.why == "" {
				m.why = why
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	l := all.latency()
	m.requests, m.perSecond, m.p50, m.p99 = all.n, float64(all.n)/took.Seconds(), l.P50Micros, l.P99Micros
	m.cpu = c.cpu().since(before)
	return m
}

// visit asks each worker of the crowd once, so that all are loaded.
func (c *crowd) visit(ctx context.Context, say func(string, ...any)) error {
	pool := &keptConns{idle: map[string][]*keptConn{}}
	defer pool.close()
	var next atomic.Int64
	var first atomic.Pointer[error]
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil && first.Load() == nil {
				i := int(next.Add(1) - 1)
				if i >= len(c.places) {
					return
				}
				if i%500 == 499 {
					say("%s: %d of %d workers asked once", c.name, i+1, len(c.places))
				}
				l, err := pool.take(c.places[i].addr)
				if err == nil {
					if err = l.ask(c.places[i].request); err == nil {
						pool.give(c.places[i].addr, l)
					}
				}
				if err != nil {
					err = fmt.Errorf("worker %d of %s: %w", i, c.name, err)
					first.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if e := first.Load(); e != nil {
		return *e
	}
	return ctx.Err()
}

// inTurn asks one worker after the other.
func (c *crowd) inTurn(_ *rand.Rand, turn int) int { return turn % len(c.places) }

// byChance asks any, all alike.
func (c *crowd) byChance(rng *rand.Rand, _ int) int { return rng.IntN(len(c.places)) }

// byFame asks the k-th worker as often as 1/k says (Zipf's law, exponent 1), as visitors of many sites do.
func (c *crowd) byFame() func(*rand.Rand, int) int {
	sum := 0.0
	cumulative := make([]float64, len(c.places))
	for k := range cumulative {
		sum += 1 / float64(k+1)
		cumulative[k] = sum
	}
	return func(rng *rand.Rand, _ int) int {
		x := rng.Float64() * sum
		lo, hi := 0, len(cumulative)-1
		for lo < hi {
			if mid := (lo + hi) / 2; cumulative[mid] < x {
				lo = mid + 1
			} else {
				hi = mid
			}
		}
		return lo
	}
}
