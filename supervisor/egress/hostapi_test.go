package egress

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/policy"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/observe"
)

// onSocket runs a service on a unix socket in a directory of its own.
func onSocket(t *testing.T, h http.Handler) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "api") // t.TempDir's path may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}}
	s.Start()
	t.Cleanup(s.Close)
	return path
}

// permit has tenant "a" use the API "inv" at the address, and "b" none.
func (w *world) permit(address string) {
	w.t.Helper()
	p, err := policy.Parse("p.yaml", []byte("hostApis: {inv: {address: '"+address+"', concurrent: 2, timeout: 2s}}\ntenants: {a: {hostApis: [inv]}, c: {hostApis: [inv]}}\n"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.pol.Store(p)
}

func (w *world) ask(tenant string, r Request, edit func(*exchange)) *exchange {
	w.t.Helper()
	if r.Method == "" {
		r.Method = "GET"
	}
	x := &exchange{ctx: w.t.Context()}
	if edit != nil {
		edit(x)
	}
	w.ServeHostAPI(tenant, "inv", r, x)
	return x
}

// heard is what the service of the tests saw.
type heard struct {
	Method, URI, Host, Body string
	Header                  http.Header
	Remote                  string
}

func echoHeard(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Bulkhead-Tenant", "forged by the service")
	w.Header().Set("X-Own", "yes")
	json.NewEncoder(w).Encode(heard{r.Method, r.RequestURI, r.Host, string(body), r.Header, r.RemoteAddr})
}

func (x *exchange) heard(t *testing.T) (h heard) {
	t.Helper()
	if err := json.Unmarshal(x.out.Bytes(), &h); err != nil {
		t.Fatalf("%v: %q %q", err, x.out.String(), x.failed)
	}
	return h
}

// Whatever a worker writes into its request, the service hears from whom it is by the gateway's word alone.
func TestHostAPIHeadersCannotBeForged(t *testing.T) {
	w := newWorld(t, nil, Options{})
	w.permit("unix:" + onSocket(t, http.HandlerFunc(echoHeard)))
	for _, name := range []string{
		"bulkhead-tenant", "Bulkhead-Tenant", "BULKHEAD-TENANT", "bulkhead_tenant", "bulkhead-request-id", "bulkhead_request_id", "bulkhead-limits",
		"bulkhead.tenant", "bulkhead~tenant", "bulkhead!limits", "bulkhead-", "bulkhead_", "bulkhead-tenant-", "bulkhead-anything",
	} {
		x := w.ask("a", Request{URL: "http://x/", ID: "req-1", Headers: []byte(name + "\nroot\n" + name + "\nother\nx-mine\nkept\n")}, nil)
		h := x.heard(t)
		var ours []string
		for n, v := range h.Header {
			if strings.HasPrefix(strings.ToLower(n), "bulkhead") {
				ours = append(ours, n)
				if len(v) != 1 || strings.Contains(v[0], "root") || strings.Contains(v[0], "other") {
					t.Errorf("%s: %s = %q", name, n, v)
				}
			}
		}
		if len(ours) != 3 || h.Header.Get("Bulkhead-Tenant") != "a" || h.Header.Get("Bulkhead-Request-Id") != "req-1" ||
			!strings.HasPrefix(h.Header.Get("Bulkhead-Limits"), "cpu-ms=50, wall-ms=") || h.Header.Get("X-Mine") != "kept" {
			t.Errorf("%s: %v", name, h.Header)
		}
		if x.header("bulkhead-tenant") != "" || x.header("x-own") != "yes" {
			t.Errorf("the answer's fields: %s", x.answer.Headers)
		}
	}
	// Fields that make an intermediary drop or re-read others.
	x := w.ask("a", Request{Method: "POST", URL: "http://x/", ID: "r", BodyMode: gen.BodyMode_whole, Headers: []byte(
		"connection\nbulkhead-tenant, close\nupgrade\nh2c\ntransfer-encoding\nchunked\ncontent-length\n0\nhost\nevil\nte\ntrailers\ntrailer\nbulkhead-tenant\nexpect\n100-continue\nhttp2-settings\nx\n")},
		func(x *exchange) { x.body = strings.NewReader("GET /admin HTTP/1.1\r\nbulkhead-tenant: root\r\n\r\n") })
	h := x.heard(t)
	for _, name := range []string{"Connection", "Upgrade", "Transfer-Encoding", "Te", "Trailer", "Expect", "Http2-Settings"} {
		if h.Header[name] != nil {
			t.Errorf("%s: %q", name, h.Header[name])
		}
	}
	if h.Host != "inv" || h.Header.Get("Bulkhead-Tenant") != "a" || !strings.HasPrefix(h.Body, "GET /admin") {
		t.Errorf("%+v", h)
	}
	// And not on the way to ordinary upstreams either.
	addr := serve(t, good, echoHeard)
	w.setRules(nil)
	y := w.do(Request{URL: "http://" + addr + "/", Headers: []byte("bulkhead_tenant\nroot\nbulkhead-limits\nx\nbulkheads\nfine\n")}, nil)
	if h := y.heard(t); h.Header["Bulkhead_tenant"] != nil || h.Header["Bulkhead-Limits"] != nil || h.Header.Get("Bulkheads") != "fine" {
		t.Errorf("%v", h.Header)
	}
}

// Nothing of a request changes where it goes: what is behind the authority is the path, and all of it.
func TestHostAPIIsDialledWhereThePolicySays(t *testing.T) {
	var elsewhere atomic.Int32
	other := serve(t, "127.0.0.1", func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) })
	service := func(w http.ResponseWriter, r *http.Request) {
		switch r.RequestURI {
		case "/away":
			http.Redirect(w, r, "http://"+other+"/", http.StatusFound)
		case "/switch":
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
			c.Close()
		default:
			echoHeard(w, r)
		}
	}
	w := newWorld(t, nil, Options{})
	w.permit("unix:" + onSocket(t, http.HandlerFunc(service)))
	for url, uri := range map[string]string{
		"http://" + other + "/p?q=1":       "/p?q=1",
		"https://" + other + "/p":          "/p",
		"http://169.254.169.254/latest/":   "/latest/",
		"http://inv":                       "/",
		"http://inv/a%2f..%2fb":            "/a%2f..%2fb",
		"http://inv/x|y":                   "/x|y",
		"http://inv/http://" + other + "/": "/http://" + other + "/",
		"http://inv?x=http://" + other:     "/?x=http://" + other,
		"http://[::1]:1/v6":                "/v6",
	} {
		x := w.ask("a", Request{URL: url}, nil)
		if h := x.heard(t); h.URI != uri || h.Host != "inv" {
			t.Errorf("%s: %+v", url, h)
		}
	}
	for _, mode := range []gen.Fetch_Redirect{gen.Fetch_Redirect_follow, gen.Fetch_Redirect_manual} {
		if x := w.ask("a", Request{URL: "http://inv/away", Redirect: mode}, nil); x.answer == nil || x.answer.Status != 302 || x.answer.Redirected || x.header("location") == "" {
			t.Errorf("%v: %+v %q", mode, x.answer, x.failed)
		}
	}
	for what, r := range map[string]Request{
		"a redirect where none may be": {URL: "http://inv/away", Redirect: gen.Fetch_Redirect_error},
		"a switch of protocols":        {URL: "http://inv/switch"},
		"a WebSocket":                  {URL: "http://inv/", Upgrade: true},
		"two slashes":                  {URL: "http://inv//" + other + "/|"},
	} {
		if x := w.ask("a", r, nil); x.answer != nil || x.failed == "" || x.ended {
			t.Errorf("%s: %+v", what, x.answer)
		}
	}
	if n := elsewhere.Load(); n > 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
}

func TestHostAPIPermission(t *testing.T) {
	var seen atomic.Int32
	path := onSocket(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { seen.Add(1); echoHeard(w, r) }))
	w := newWorld(t, nil, Options{})
	w.permit("unix:" + path)
	if x := w.ask("b", Request{URL: "http://inv/"}, nil); x.answer != nil || !strings.Contains(x.failed, "host API inv: there is none of this name that b may use") || seen.Load() != 0 {
		t.Errorf("%q", x.failed)
	}
	first := w.ask("a", Request{URL: "http://inv/"}, nil).heard(t)
	if first.Header.Get("Bulkhead-Tenant") != "a" {
		t.Errorf("%+v", first)
	}
	if h := w.ask("c", Request{URL: "http://inv/"}, nil).heard(t); h.Header.Get("Bulkhead-Tenant") != "c" {
		t.Errorf("%+v", h)
	}
	w.setRules(nil) // the operator takes it back
	if x := w.ask("a", Request{URL: "http://inv/"}, nil); x.answer != nil || seen.Load() != 2 {
		t.Errorf("%q", x.failed)
	}
	w.permit("unix:" + path + "-gone")
	x := w.ask("a", Request{URL: "http://inv/"}, nil)
	if x.answer != nil || strings.Contains(x.failed, path) || !strings.Contains(w.log.String(), path) || !strings.Contains(w.log.String(), "is the service running?") {
		t.Errorf("%q\n%s", x.failed, w.log.String())
	}
}

func TestHostAPILimitsAndMeter(t *testing.T) {
	hold := make(chan struct{})
	addr := serve(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			<-hold
		}
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "12345")
	})
	w := newWorld(t, nil, Options{})
	w.permit("http://" + addr)
	done := make(chan *exchange, 2)
	for range 2 {
		go func() { done <- w.ask("a", Request{URL: "http://inv/hold"}, nil) }()
	}
	for w.opt.Observer.Metrics.HostAPIs("a") == nil {
		time.Sleep(time.Millisecond)
	}
	c, err := w.client("a")
	if err != nil {
		t.Fatal(err)
	}
	a, err := c.hostAPI("inv")
	if err != nil {
		t.Fatal(err)
	}
	for a.open.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	if x := w.ask("a", Request{URL: "http://inv/"}, nil); x.failed != "host API inv: too many requests at once: this worker may have 2 open" {
		t.Errorf("%q", x.failed)
	}
	close(hold)
	<-done
	<-done
	for method, effect := range map[string]gatewayside.Effect{"GET": 0, "POST": gatewayside.EffectSubrequest} {
		r := Request{Method: method, URL: "http://inv/"}
		if method == "POST" {
			r.BodyMode = gen.BodyMode_streamed
		}
		if x := w.ask("a", r, func(x *exchange) { x.body = strings.NewReader("abc") }); x.effects != effect || x.out.String() != "12345" || !x.ended {
			t.Errorf("%s: effects %b, %q %q", method, x.effects, x.out.String(), x.failed)
		}
	}
	u := w.opt.Observer.Metrics.HostAPIs("a")
	if len(u) != 1 || u[0].API != "inv" || u[0].Requests != 5 || u[0].Results[observe.FetchDone] != 4 || u[0].Results[observe.FetchShed] != 1 || u[0].SentBytes != 3 || u[0].ReceivedBytes != 20 {
		t.Errorf("%+v", u)
	}
	rec := httptest.NewRecorder()
	w.opt.Observer.Metrics.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
	if !strings.Contains(rec.Body.String(), `bulkhead_host_api_requests_total{api="inv",result="done",tenant="a"} 4`) {
		t.Error("not among the metrics")
	}
}

// Two tenants never share a connection: the second would read what the first smuggled into it.
func TestHostAPIConnectionsAreATenantsOwn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan [2]string, 16)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := bufio.NewReader(c)
				for {
					r, err := http.ReadRequest(b)
					if err != nil {
						return
					}
					seen <- [2]string{c.RemoteAddr().String(), r.Header.Get("Bulkhead-Tenant")}
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
			}()
		}
	}()
	w := newWorld(t, nil, Options{})
	t.Cleanup(func() { l.Close() })
	w.permit("http://" + l.Addr().String())
	by := map[string]string{}
	for range 3 {
		for _, tenant := range []string{"a", "c"} {
			if x := w.ask(tenant, Request{URL: "http://inv/"}, nil); !bytes.Equal(x.out.Bytes(), []byte("ok")) {
				t.Fatalf("%q", x.failed)
			}
			s := <-seen
			if s[1] != tenant || by[s[0]] != "" && by[s[0]] != tenant {
				t.Errorf("connection %s of %q carries a request of %q", s[0], by[s[0]], tenant)
			}
			by[s[0]] = tenant
		}
	}
	if len(by) != 2 {
		t.Errorf("%d connections for two tenants", len(by))
	}
}
