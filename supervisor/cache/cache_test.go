package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/policy"
	"bulkhead/supervisor/observe"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// exchange is a shard's side that takes everything.
type exchange struct {
	ctx   context.Context
	body  io.Reader
	write func(p []byte) (int, error) // nil: keep all

	answer  *gatewayside.Answer
	out     bytes.Buffer
	refused bool
	ended   bool
	failed  string
}

func (x *exchange) Read(p []byte) (int, error) { return x.body.Read(p) }
func (x *exchange) Context() context.Context   { return x.ctx }
func (x *exchange) RefuseBody()                { x.refused = true }
func (x *exchange) End()                       { x.ended = true }
func (x *exchange) Fail(m string)              { x.failed = m }
func (x *exchange) Respond(a *gatewayside.Answer) error {
	x.answer = a
	return nil
}
func (x *exchange) Write(p []byte) (int, error) {
	if x.write != nil {
		return x.write(p)
	}
	return x.out.Write(p)
}

// word is what came of an operation.
func (x *exchange) word() string {
	if x.answer == nil {
		return "failed: " + x.failed
	}
	return x.answer.URL
}

func (x *exchange) header(name string) string {
	for n, v := range ipc.Headers(x.answer.Headers) {
		if string(n) == name {
			return string(v)
		}
	}
	return ""
}

// world is a Cache with a policy of its own.
type world struct {
	*Cache
	t     testing.TB
	pol   *policy.Policy
	known sync.Map // of what is not
}

func newWorld(t testing.TB, edit func(*policy.Policy)) *world {
	p, err := policy.Preset("standard")
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(p)
	}
	w := &world{t: t, pol: p}
	w.Cache = New(Options{Policy: func() *policy.Policy { return w.pol }, Observer: observe.New(slog.New(slog.DiscardHandler), observe.Options{}),
		Known: func(id string) bool { _, gone := w.known.Load(id); return !gone }})
	return w
}

// flat writes "name: value" lines as header fields.
func flat(lines ...string) (b []byte) {
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		b = ipc.AppendHeader(b, name, value)
	}
	return b
}

func (w *world) do(tenant string, r Request, body io.Reader) *exchange {
	x := &exchange{ctx: context.Background(), body: body}
	w.Serve(tenant, r, x)
	return x
}

// put keeps a response; request and response are lines of fields.
func (w *world) put(tenant, url, body string, request, response []string) *exchange {
	order := fmt.Sprintf("%s: n 200 %d Fine", orderField, len(request))
	return w.do(tenant, Request{Method: "PUT", URL: url, Headers: flat(append(append([]string{order}, request...), response...)...)}, strings.NewReader(body))
}

func (w *world) match(tenant, url string, request ...string) *exchange {
	return w.do(tenant, Request{Method: "GET", URL: url, Headers: flat(append([]string{orderField + ": n"}, request...)...), NoBody: true}, nil)
}

func (w *world) bytesOf(tenant string) (n, all uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t := w.tenants[tenant]; t != nil {
		n = t.bytes
	}
	return n, w.bytes
}

func want(t testing.TB, what string, x *exchange, word string) {
	t.Helper()
	if x.word() != word {
		t.Errorf("%s: %s, want %s", what, x.word(), word)
	}
}

const page = "http://a.example/x?y"

func TestKeepAndForget(t *testing.T) {
	w := newWorld(t, nil)
	defer w.Close()
	want(t, "nothing yet", w.match("one", page), Miss)
	body := strings.Repeat("0123456789", 20_000)
	want(t, "put", w.put("one", page, body, nil, []string{"x-a: b", "content-length: 200000", "age: 7"}), Stored)
	x := w.match("one", page)
	want(t, "match", x, Hit)
	if x.answer.Status != 200 || x.answer.StatusText != "Fine" || x.out.String() != body || !x.ended || x.header("x-a") != "b" || x.header("content-length") != "200000" || x.header("age") != "7" {
		t.Errorf("%d bytes, %+v %s", x.out.Len(), x.answer, x.answer.Headers)
	}
	want(t, "another tenant", w.match("two", page), Miss)
	want(t, "another URL", w.match("one", page+"z"), Miss)
	want(t, "another name", w.do("one", Request{Method: "GET", URL: page, Headers: flat("cache: m"), NoBody: true}, nil), Miss)
	del := func(tenant string) *exchange {
		return w.do(tenant, Request{Method: "DELETE", URL: page, Headers: flat("cache: n"), NoBody: true}, nil)
	}
	want(t, "another's delete", del("two"), Miss)
	want(t, "delete", del("one"), Deleted)
	want(t, "twice", del("one"), Miss)
	if own, all := w.bytesOf("one"); own != 0 || all != 0 || len(w.tenants) != 0 || len(w.most) != 0 {
		t.Errorf("left behind: %d and %d bytes, %d tenants", own, all, len(w.tenants))
	}
	want(t, "a null body", w.do("one", Request{Method: "PUT", URL: page, Headers: flat("cache: n 204 0 "), NoBody: true}, nil), Stored)
	if x := w.match("one", page); !x.answer.NoBody || x.answer.Status != 204 {
		t.Errorf("%+v", x.answer)
	}
	// A tenant that is gone, and comes again, finds nothing.
	w.known.Store("one", true)
	w.Forget("one")
	want(t, "of nobody", w.put("one", page, "x", nil, nil), Refused)
	w.known.Delete("one")
	want(t, "of a new tenant", w.match("one", page), Miss)
	if _, all := w.bytesOf("one"); all != 0 || len(w.tenants) != 0 {
		t.Errorf("%d bytes, %d tenants", all, len(w.tenants))
	}
}

func TestFreshness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.Close()
		for _, c := range []struct {
			fields string
			fresh  time.Duration // 0: not kept
		}{
			{"", unsaid},
			{"cache-control: max-age=60", time.Minute},
			{"cache-control: public, MAX-AGE=\"60\" , foo=\"a,max-age=3\"", time.Minute},
			{"cache-control: max-age=5, s-maxage=60", time.Minute},
			{"cache-control: s-maxage=60, max-age=5", time.Minute},
			{"cache-control: max-age=60|age: 50", 10 * time.Second},
			{"cache-control: max-age=60|age: 60", 0},
			{"cache-control: max-age=60|expires: 0", time.Minute},
			{"cache-control: max-age=99999999999999999999", longest},
			{"cache-control: max-age=-1", 0},
			{"cache-control: max-age=x", 0},
			{"cache-control: max-age=0", 0},
			{"cache-control: no-store", 0},
			{"cache-control: a|cache-control: private", 0},
			{"cache-control: no-cache", 0},
			{"cache-control: =,,\"", unsaid},
			{"expires: @1m", time.Minute},
			{"expires: @1m|date: @30s", 30 * time.Second},
			{"expires: @-1m", 0},
			{"expires: 0", 0},
			{"set-cookie: a=b", 0},
			{"set-cookie: a=b|cache-control: private=\"x, Set-Cookie\"", unsaid},
		} {
			var fields []string
			if c.fields != "" {
				fields = strings.Split(c.fields, "|")
			}
			for i, f := range fields { // @: from now on
				if name, after, ok := strings.Cut(f, "@"); ok {
					d, err := time.ParseDuration(after)
					if err != nil {
						t.Fatal(err)
					}
					fields[i] = name + time.Now().Add(d).UTC().Format(http.TimeFormat)
				}
			}
			x := w.put("one", page, "b", nil, fields)
			if c.fresh == 0 {
				want(t, c.fields, x, Refused)
				if !x.refused {
					t.Errorf("%s: its body is still wanted", c.fields)
				}
				continue
			}
			want(t, c.fields, x, Stored)
			if c.fresh == longest { // half a million rounds of the sweep
				if e := w.tenants["one"].recent.Front().Value.(*entry); e.stale.Sub(e.stored) != longest {
					t.Errorf("%s: until %v", c.fields, e.stale)
				}
				continue
			}
			time.Sleep(c.fresh - time.Millisecond)
			x = w.match("one", page)
			want(t, c.fields+": in time", x, Hit)
			if x.header("set-cookie") != "" {
				t.Errorf("%s: a cookie is kept", c.fields)
			}
			time.Sleep(time.Millisecond)
			want(t, c.fields+": too late", w.match("one", page), Miss)
			if _, all := w.bytesOf("one"); all != 0 {
				t.Errorf("%s: %d bytes are left", c.fields, all)
			}
		}
		// What nobody asks for goes too, within two rounds.
		want(t, "put", w.put("one", page, "b", nil, []string{"cache-control: max-age=1"}), Stored)
		time.Sleep(2*sweepEvery + time.Second)
		synctest.Wait()
		if _, all := w.bytesOf("one"); all != 0 || len(w.tenants) != 0 {
			t.Errorf("%d bytes, %d tenants after the sweep", all, len(w.tenants))
		}
	})
}

func TestVary(t *testing.T) {
	w := newWorld(t, nil)
	defer w.Close()
	vary := []string{"vary: Accept , x-b"}
	for _, v := range []string{"a", "b"} {
		want(t, v, w.put("one", page, v, []string{"accept: " + v}, vary), Stored)
	}
	for v, expect := range map[string]string{"accept: a": "a", "accept: b": "b", "accept: c": "", "other: a": ""} {
		x := w.match("one", page, "x-c: 1", v)
		if expect == "" {
			want(t, v, x, Miss)
		} else if want(t, v, x, Hit); x.out.String() != expect {
			t.Errorf("%s: %q", v, x.out.String())
		}
	}
	want(t, "of two values", w.match("one", page, "accept: a", "accept: b"), Miss)
	want(t, "with what was absent", w.match("one", page, "accept: a", "x-b: "), Hit)
	want(t, "with another", w.match("one", page, "accept: a", "x-b: 1"), Miss)
	want(t, "in the place of the first", w.put("one", page, "A", []string{"accept: a"}, vary), Stored)
	if x := w.match("one", page, "accept: a"); x.out.String() != "A" {
		t.Errorf("%q", x.out.String())
	}
	for n := range 3 * variants {
		want(t, "many", w.put("one", page, "x", []string{fmt.Sprintf("accept: %d", n)}, vary), Stored)
	}
	if n := len(w.tenants["one"].under[keyOf("n", page)]); n != variants {
		t.Errorf("%d variants", n)
	}
	want(t, "Vary: *", w.put("one", page, "x", nil, []string{"vary: a, *"}), Refused)
}

func TestBounds(t *testing.T) {
	w := newWorld(t, func(p *policy.Policy) {
		p.Tenant.CacheEntries, p.Tenant.CacheEntry, p.Tenant.CacheBytes, p.Cache = 10, 100<<10, 300<<10, 700<<10
	})
	defer w.Close()
	at := func(n int) string { return fmt.Sprintf("http://a.example/%d", n) }
	body := strings.Repeat("x", 60<<10)
	for n := range 20 {
		want(t, "small", w.put("one", at(n), "x", nil, nil), Stored)
	}
	want(t, "the eleventh before the last", w.match("one", at(9)), Miss)
	want(t, "the tenth before the last", w.match("one", at(10)), Hit) // and it is the last used
	want(t, "one more", w.put("one", at(20), "x", nil, nil), Stored)
	want(t, "the last used", w.match("one", at(10)), Hit)
	want(t, "the least", w.match("one", at(11)), Miss)

	want(t, "an entry too large", w.put("one", at(0), strings.Repeat("x", 101<<10), nil, nil), Refused)
	want(t, "announced too large", w.put("one", at(0), "x", nil, []string{"content-length: 1000000"}), Refused)
	want(t, "announced wrongly", w.put("one", at(0), "x", nil, []string{"content-length: 2"}), Refused)
	want(t, "fields too large", w.put("one", at(0), "x", nil, []string{"x: " + strings.Repeat("x", 101<<10)}), Refused)
	x := w.do("one", Request{Method: "PUT", URL: page, Headers: flat("cache: n 200 0 ")}, iotest.ErrReader(errors.New("the tap is shut")))
	if !strings.Contains(x.failed, "the tap is shut") {
		t.Errorf("a body that breaks off: %s", x.word())
	}
	for n := range 30 {
		for _, id := range []string{"one", "two", "three"} {
			want(t, "large", w.put(id, at(n), body, nil, nil), Stored)
		}
		if own, all := w.bytesOf("one"); own > 300<<10 || all > 700<<10 {
			t.Fatalf("%d bytes of one, %d of all", own, all)
		}
	}
	// Who keeps little loses nothing by what the others do.
	want(t, "little", w.put("small", page, "x", nil, nil), Stored)
	for n := range 30 {
		want(t, "much", w.put([]string{"one", "two", "three"}[n%3], at(100+n), body, nil, nil), Stored)
	}
	want(t, "little", w.match("small", page), Hit)

	// What is read is counted until it has been, gone or not.
	w = newWorld(t, func(p *policy.Policy) { p.Tenant.CacheBytes, p.Cache = 200<<10, 400<<10 })
	defer w.Close()
	want(t, "put", w.put("one", page, body, nil, nil), Stored)
	during := ""
	slow := &exchange{ctx: context.Background(), write: func(p []byte) (int, error) {
		if during == "" {
			for n := range 10 {
				w.put("one", at(n), body, nil, nil)
			}
			own, _ := w.bytesOf("one")
			during = fmt.Sprint(w.match("one", page).word(), " ", own <= 200<<10, own > 120<<10)
		}
		return len(p), nil
	}}
	w.Serve("one", Request{Method: "GET", URL: page, Headers: flat("cache: n"), NoBody: true}, slow)
	if during != "miss true true" {
		t.Errorf("while it was read: %s", during)
	}
	w.Forget("one")
	if _, all := w.bytesOf("one"); all != 0 || len(w.tenants) != 0 {
		t.Errorf("%d bytes, %d tenants left", all, len(w.tenants))
	}
}

// Every limit may be 0: nothing is kept, and nothing else happens.
func TestNothingIsKeptUnderALimitOfNone(t *testing.T) {
	for name, edit := range map[string]func(*policy.Policy){
		"cacheEntries": func(p *policy.Policy) { p.Tenant.CacheEntries = 0 },
		"cacheEntry":   func(p *policy.Policy) { p.Tenant.CacheEntry = 0 },
		"cacheBytes":   func(p *policy.Policy) { p.Tenant.CacheBytes = 0 },
		"cache":        func(p *policy.Policy) { p.Cache = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, edit)
			defer w.Close()
			want(t, "put", w.put("one", "http://a.example/", "x", nil, nil), Refused)
			want(t, "match", w.match("one", "http://a.example/"), Miss)
		})
	}
}

// Puts that never end keep what they have been given, and no more; the host's bound ends them.
func TestSlowPuts(t *testing.T) {
	w := newWorld(t, func(p *policy.Policy) { p.Tenant.CacheBytes, p.Cache = 100<<10, 150<<10 })
	defer w.Close()
	var all sync.WaitGroup
	var pipes []*io.PipeWriter
	start := func(tenant string, n int) {
		for range n {
			r, in := io.Pipe()
			pipes = append(pipes, in)
			all.Go(func() {
				w.do(tenant, Request{Method: "PUT", URL: page, Headers: flat("cache: n 200 0 ")}, r)
				r.Close()
			})
			in.Write(make([]byte, 6<<10)) // an error: it was refused
		}
	}
	start("one", 50)
	if own, _ := w.bytesOf("one"); own > 100<<10 {
		t.Errorf("%d bytes for slow puts", own)
	}
	start("two", 50)
	if _, sum := w.bytesOf("two"); sum > 150<<10 {
		t.Errorf("%d bytes of both", sum)
	}
	want(t, "who has nothing gets room", w.put("three", page, "x", nil, nil), Stored)
	w.Forget("two")
	for _, p := range pipes {
		p.CloseWithError(gatewayside.ErrReleased)
	}
	all.Wait()
	want(t, "three", w.match("three", page), Hit)
	w.Forget("three")
	if _, sum := w.bytesOf("one"); sum != 0 || len(w.tenants) != 0 || len(w.most) != 0 {
		t.Errorf("%d bytes, %d tenants left", sum, len(w.tenants))
	}
}

func TestMalformedOrders(t *testing.T) {
	w := newWorld(t, nil)
	defer w.Close()
	for _, r := range []Request{
		{Method: "GET"}, {Method: "GET", Headers: flat("x: n")}, {Method: "GET", Headers: flat("cache: %")}, {Method: "GET", Headers: flat("cache: %zz")},
		{Method: "GET", Headers: flat("cache: " + url.PathEscape(strings.Repeat("x", maxName+1)))}, {Method: "POST", Headers: flat("cache: n")},
		{Method: "PUT", Headers: flat("cache: n")}, {Method: "PUT", Headers: flat("cache: n 99 0 ")}, {Method: "PUT", Headers: flat("cache: n 600 0 ")},
		{Method: "PUT", Headers: flat("cache: n 200 -1 ")}, {Method: "PUT", Headers: flat("cache: n 200 65536 ")}, {Method: "PUT", Headers: flat("cache: n 200 0")},
	} {
		r.URL = page
		if x := w.do("one", r, strings.NewReader("x")); x.answer != nil || x.failed == "" {
			t.Errorf("%s %q: %s", r.Method, r.Headers, x.word())
		}
	}
	want(t, "more fields promised than there are", w.do("one", Request{Method: "PUT", URL: page, Headers: flat("cache: n 200 500 ", "a: b")}, strings.NewReader("x")), Stored)
	for _, status := range []int{206, 304} {
		want(t, "status", w.do("one", Request{Method: "PUT", URL: page, Headers: flat(fmt.Sprintf("cache: n %d 0 ", status))}, strings.NewReader("x")), Refused)
	}
}

// FuzzOperations: whatever a shard asks for, another tenant's entries stay as they are, the bounds hold,
// and what is given back passes the shard's own decoder.
func FuzzOperations(f *testing.F) {
	f.Add("PUT", "http://a/", flat("cache: n 200 1 OK", "a: b", "vary: a", "cache-control: max-age=5, private=\"x\""), []byte("body"))
	f.Add("GET", page, flat("cache: n", "accept: x"), []byte{})
	f.Add("DELETE", page, flat("cache: n"), []byte{})
	f.Add("PUT", page, flat("cache: %00 599 0 ", "expires: Thu, 01 Jan 2099 00:00:00 GMT", "date: x", "age: 1"), []byte("x"))
	f.Add("PUT", page, flat("cache:  404 9 ", "cache-control: =\"\\", "set-cookie: a", "content-length: 1"), []byte("x"))
	p := newWorld(f, func(p *policy.Policy) {
		p.Tenant.CacheEntries, p.Tenant.CacheEntry, p.Tenant.CacheBytes = 8, 32<<10, 64<<10
	})
	f.Cleanup(p.Close)
	f.Fuzz(func(t *testing.T, method, url string, headers, body []byte) {
		wire := &p.opt.Wire
		if (&ipc.Fetch{Method: method, URL: url, Headers: headers, Binding: ipc.CacheBinding}).Check(wire) != nil {
			return // the shard is ended
		}
		want(t, "the other's", p.put("two", page, "mine", nil, nil), Stored)
		r := Request{Method: method, URL: url, Headers: headers, NoBody: len(body) == 0 || method == "GET"}
		x := p.do("one", r, bytes.NewReader(body))
		if (x.answer == nil) == (x.failed == "") {
			t.Errorf("answer %v, failure %q", x.answer, x.failed)
		}
		if x.word() == Stored {
			o, rest, err := parseOrder(method, headers)
			if err != nil {
				t.Fatal(err)
			}
			request, _ := fields(rest, o.request)
			get := ipc.AppendHeader(nil, orderField, escapeAll(o.name))
			for _, f := range request {
				get = ipc.AppendHeader(get, f.name, f.value)
			}
			x = p.do("one", Request{Method: "GET", URL: url, Headers: get, NoBody: true}, nil)
			if want(t, "what was stored", x, Hit); x.answer != nil {
				if !bytes.Equal(x.out.Bytes(), body) || ipc.CheckHeaders(x.answer.Headers, wire) != nil && len(x.answer.Headers) < wire.HeaderBytes-64 {
					t.Errorf("%q, %q", x.out.Bytes(), x.answer.Headers)
				}
			}
		}
		if own, _ := p.bytesOf("one"); own > 64<<10 {
			t.Errorf("%d bytes", own)
		}
		if x := p.match("two", page); x.word() != Hit || x.out.String() != "mine" {
			t.Errorf("the other's: %s %q", x.word(), x.out.String())
		}
	})
}

func escapeAll(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02x", s[i])
	}
	return b.String()
}
