package egress

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/policy"
	rules "bulkhead/policy/egress"
	"bulkhead/supervisor/observe"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// exchange is a shard's side that takes everything.
type exchange struct {
	ctx    context.Context
	body   io.Reader
	write  func(p []byte) (int, error) // nil: keep all
	spend  int                         // redirects it may follow; <0: any
	affect error

	mu      sync.Mutex
	answer  *gatewayside.Answer
	out     bytes.Buffer
	ended   bool
	failed  string
	refused bool
	effects gatewayside.Effect
}

func (x *exchange) Context() context.Context { return x.ctx }
func (x *exchange) Read(p []byte) (int, error) {
	if x.body == nil {
		return 0, io.EOF
	}
	return x.body.Read(p)
}
func (x *exchange) Write(p []byte) (int, error) {
	if x.ctx.Err() != nil {
		return 0, gatewayside.ErrReleased
	}
	if x.write != nil {
		return x.write(p)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.out.Write(p)
}
func (x *exchange) Affect(e gatewayside.Effect) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.affect == nil {
		x.effects |= e
	}
	return x.affect
}
func (x *exchange) Redirected() error {
	if x.spend == 0 {
		return gatewayside.ErrSubrequests
	}
	x.spend--
	return nil
}
func (x *exchange) RefuseBody() { x.mu.Lock(); x.refused = true; x.mu.Unlock() }
func (x *exchange) Respond(a *gatewayside.Answer) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.answer = a
	return nil
}
func (x *exchange) End()          { x.mu.Lock(); x.ended = true; x.mu.Unlock() }
func (x *exchange) Fail(m string) { x.mu.Lock(); x.failed = m; x.mu.Unlock() }

func (x *exchange) header(name string) string {
	for n, v := range ipc.Headers(x.answer.Headers) {
		if string(n) == name {
			return string(v)
		}
	}
	return ""
}

// world is an Egress with a name server of its own.
type world struct {
	*Egress
	t   *testing.T
	dns *dns
	pol atomic.Pointer[policy.Policy]
	log bytes.Buffer
}

// good is an address of this machine that rules of the tests allow; 127.0.0.1 is not.
const good = "127.0.0.2"

func newWorld(t *testing.T, edit func(*rules.Rules), opt Options) *world {
	t.Helper()
	w := &world{t: t, dns: newDNS(t)}
	w.setRules(edit)
	opt.Policy = w.pol.Load
	opt.Observer = observe.New(slog.New(slog.NewTextHandler(&w.log, nil)), observe.Options{})
	opt.Resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", w.dns.addr)
	}}
	w.Egress = New(opt)
	t.Cleanup(w.Close)
	return w
}

func (w *world) setRules(edit func(*rules.Rules)) {
	p, err := policy.Preset("standard")
	if err != nil {
		w.t.Fatal(err)
	}
	p.Egress.Allow = []string{good}
	if edit != nil {
		edit(&p.Egress)
	}
	w.pol.Store(p)
}

// do performs one subrequest of tenant "a".
func (w *world) do(r Request, edit func(*exchange)) *exchange {
	w.t.Helper()
	if r.Method == "" {
		r.Method = "GET"
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	x := &exchange{ctx: ctx, spend: -1}
	if edit != nil {
		edit(x)
	}
	w.Serve("a", r, x)
	return x
}

func (w *world) get(url string) *exchange { w.t.Helper(); return w.do(Request{URL: url}, nil) }

// serve runs an upstream on the good address, or on another one.
func serve(t *testing.T, addr string, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}}
	s.Start()
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// dns is a name server: A and AAAA records, of the names it was told and of "IP.ip.test".
type dns struct {
	addr string
	mu   sync.Mutex
	// answers gives a name's addresses; asked counts from 0, by name and type.
	answers map[string]func(asked int) []netip.Addr // guarded by mu
	asked   map[string]int                          // guarded by mu
}

func newDNS(t *testing.T) *dns {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &dns{addr: c.LocalAddr().String(), answers: map[string]func(int) []netip.Addr{}, asked: map[string]int{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if out := d.reply(buf[:n]); out != nil {
				c.WriteTo(out, from)
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return d
}

func (d *dns) set(name string, addrs ...string) {
	d.setFunc(name, func(int) []netip.Addr {
		var out []netip.Addr
		for _, a := range addrs {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	})
}

func (d *dns) setFunc(name string, f func(asked int) []netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answers[name] = f
}

// reply answers one question (RFC 1035 §4).
func (d *dns) reply(q []byte) []byte {
	if len(q) < 17 {
		return nil
	}
	var name []string
	at := 12
	for at < len(q) && q[at] != 0 {
		n := int(q[at])
		name = append(name, string(q[at+1:at+1+n]))
		at += 1 + n
	}
	at += 5
	kind := binary.BigEndian.Uint16(q[at-4:])
	full := strings.ToLower(strings.Join(name, "."))
	d.mu.Lock()
	f := d.answers[full]
	key := full + string(rune('0'+kind%64))
	asked := d.asked[key]
	d.asked[key]++
	d.mu.Unlock()
	out := append([]byte(nil), q[:at]...)
	binary.BigEndian.PutUint16(out[2:], 0x8180)
	binary.BigEndian.PutUint16(out[8:], 0)
	binary.BigEndian.PutUint16(out[10:], 0)
	if f == nil {
		out[3] |= 3 // no such name
		return out
	}
	count := uint16(0)
	for _, a := range f(asked) {
		raw := a.AsSlice()
		if a.Is4() != (kind == 1) || kind != 1 && kind != 28 {
			continue
		}
		out = append(out, 0xc0, 12, 0, byte(kind), 0, 1, 0, 0, 0, 0, 0, byte(len(raw)))
		out = append(out, raw...)
		count++
	}
	binary.BigEndian.PutUint16(out[6:], count)
	return out
}
