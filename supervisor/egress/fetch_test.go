package egress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/ipc/gatewayside"
	rules "bulkhead/policy/egress"
	"bulkhead/schema/gen"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// describe answers with what came in, in one line.
func describe(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header()["Set-Cookie"] = []string{"a=1", "b=2"}
	w.Header().Set("Keep-Alive", "timeout=5")
	w.Header().Set("Connection", "keep-alive, X-Hop")
	w.Header().Set("X-Hop", "1")
	w.Header().Set("Bulkhead-Outcome", "ok")
	fmt.Fprintf(w, "%s %s host=%s len=%d te=%v", r.Method, r.RequestURI, r.Host, r.ContentLength, r.TransferEncoding)
	for _, n := range []string{"Accept", "Accept-Encoding", "User-Agent", "Authorization", "Cookie", "Content-Type", "Bulkhead-Tenant", "Connection", "Te", "Upgrade", "Expect", "Proxy-Authorization", "X-A"} {
		if v := r.Header[n]; v != nil {
			fmt.Fprintf(w, " %s=%q", n, v)
		}
	}
	fmt.Fprintf(w, " body=%q", body)
}

func TestRequestsAndResponses(t *testing.T) {
	addr := serve(t, good, describe)
	w := newWorld(t, nil, Options{})
	base := "http://" + addr
	for _, c := range []struct {
		name string
		r    Request
		body string
		want string
	}{
		{"plain", Request{URL: base + "/a?b=c"}, "",
			`GET /a?b=c host=` + addr + ` len=0 te=[] Accept=["*/*"] Accept-Encoding=["gzip, br, zstd"] User-Agent=["bulkhead"] body=""`},
		{"own headers", Request{URL: base, Headers: []byte("user-agent\nme\naccept\ntext/html\nx-a\n1\nx-a\n2\nauthorization\nBearer x\n")}, "",
			`GET / host=` + addr + ` len=0 te=[] Accept=["text/html"] Accept-Encoding=["gzip, br, zstd"] User-Agent=["me"] Authorization=["Bearer x"] X-A=["1" "2"] body=""`},
		{"forbidden headers", Request{URL: base + "/", Headers: []byte("host\nevil.example\nconnection\nclose\nte\ntrailers\nupgrade\nwebsocket\nexpect\n100-continue\n" +
			"transfer-encoding\nchunked\ncontent-length\n99\nproxy-authorization\nx\nbulkhead-tenant\nroot\nkeep-alive\n1\ntrailer\nx\n")}, "",
			`GET / host=` + addr + ` len=0 te=[] Accept=["*/*"] Accept-Encoding=["gzip, br, zstd"] User-Agent=["bulkhead"] body=""`},
		{"post", Request{Method: "POST", URL: base + "/", BodyMode: gen.BodyMode_whole, Headers: []byte("content-type\ntext/plain\ncontent-length\n5000\n")}, "hello",
			`POST / host=` + addr + ` len=5 te=[] Accept=["*/*"] Accept-Encoding=["gzip, br, zstd"] User-Agent=["bulkhead"] Content-Type=["text/plain"] body="hello"`},
		{"empty post", Request{Method: "POST", URL: base + "/"}, "",
			`POST / host=` + addr + ` len=0 te=[] Accept=["*/*"] Accept-Encoding=["gzip, br, zstd"] User-Agent=["bulkhead"] body=""`},
		{"streamed", Request{Method: "PUT", URL: base + "/", BodyMode: gen.BodyMode_streamed}, "hello",
			`PUT / host=` + addr + ` len=-1 te=[chunked] Accept=["*/*"] Accept-Encoding=["gzip, br, zstd"] User-Agent=["bulkhead"] body="hello"`},
		{"streamed, length known", Request{Method: "PUT", URL: base + "/", BodyMode: gen.BodyMode_streamed, Headers: []byte("content-length\n5\n")}, "hello",
			`PUT / host=` + addr + ` len=5 te=[] Accept=["*/*"] Accept-Encoding=["gzip, br, zstd"] User-Agent=["bulkhead"] body="hello"`},
		{"raw targets", Request{URL: base + "/a|b/^{}?q=[%]'\""}, "",
			`GET /a|b/^{}?q=[%]'" host=` + addr + ` len=0 te=[] Accept=["*/*"] Accept-Encoding=["gzip, br, zstd"] User-Agent=["bulkhead"] body=""`},
		{"two slashes", Request{URL: base + "//x//y"}, "",
			`GET //x//y host=` + addr + ` len=0 te=[] Accept=["*/*"] Accept-Encoding=["gzip, br, zstd"] User-Agent=["bulkhead"] body=""`},
		{"query without path", Request{URL: base + "?x"}, "",
			`GET /?x host=` + addr + ` len=0 te=[] Accept=["*/*"] Accept-Encoding=["gzip, br, zstd"] User-Agent=["bulkhead"] body=""`},
	} {
		x := w.do(c.r, func(x *exchange) { x.body = strings.NewReader(c.body) })
		switch {
		case x.answer == nil:
			t.Errorf("%s: %s", c.name, x.failed)
		case x.out.String() != c.want || !x.ended:
			t.Errorf("%s:\n got %s\nwant %s", c.name, x.out.String(), c.want)
		case x.answer.Status != 200 || x.answer.StatusText != "OK" || x.answer.Redirected:
			t.Errorf("%s: %+v", c.name, x.answer)
		}
		if x.answer == nil {
			continue
		}
		flat := string(x.answer.Headers)
		for _, no := range []string{"keep-alive", "connection", "x-hop", "bulkhead-", "transfer-encoding"} {
			if strings.Contains(flat, "\n"+no) || strings.HasPrefix(flat, no) {
				t.Errorf("%s: %s came through: %q", c.name, no, flat)
			}
		}
		if !strings.Contains(flat, "set-cookie\na=1\nset-cookie\nb=2\n") {
			t.Errorf("%s: cookies: %q", c.name, flat)
		}
	}
	if x := w.do(Request{Method: "HEAD", URL: base + "/"}, nil); !x.answer.NoBody || !x.ended || x.out.Len() != 0 {
		t.Errorf("HEAD: %+v", x.answer)
	}
	if x := w.do(Request{Method: "PUT", URL: base + "/", BodyMode: gen.BodyMode_streamed, Headers: []byte("content-length\n9\n")},
		func(x *exchange) { x.body = strings.NewReader("hello") }); x.answer != nil || x.failed == "" {
		t.Errorf("a body shorter than it said: %+v", x.answer)
	}
}

func TestRedirects(t *testing.T) {
	other := serve(t, good, describe)
	addr := serve(t, good, func(w http.ResponseWriter, r *http.Request) {
		var status int
		var to string
		if n, _ := fmt.Sscanf(r.URL.Path, "/%d/%s", &status, &to); n == 2 {
			if strings.HasPrefix(to, "other") {
				to = "http://" + other + "/" + to
			} else {
				to = "/" + to
			}
			w.Header().Set("Location", to)
			w.WriteHeader(status)
			io.WriteString(w, strings.Repeat("x", 10000))
			return
		}
		if r.URL.Path == "/loop" {
			http.Redirect(w, r, "/loop", http.StatusFound)
			return
		}
		if r.URL.Path == "/nowhere" {
			w.WriteHeader(http.StatusFound)
			return
		}
		describe(w, r)
	})
	w := newWorld(t, nil, Options{})
	base := "http://" + addr
	headers := []byte("content-type\ntext/plain\nauthorization\nsecret\ncookie\nc=1\n")
	for _, c := range []struct {
		method, path, body string
		want               string // prefix of what the last upstream saw
		has, hasNot        string
	}{
		{"GET", "/302/x", "", "GET /x", "secret", "zzz"},
		{"POST", "/301/x", "b", "GET /x", "secret", "text/plain"},
		{"POST", "/302/x", "b", "GET /x", "c=1", "text/plain"},
		{"PUT", "/302/x", "b", "PUT /x", `body="b"`, "zzz"},
		{"PUT", "/303/x", "b", "GET /x", "secret", "text/plain"},
		{"HEAD", "/303/x", "", "", "", "zzz"},
		{"POST", "/307/x", "b", "POST /x", `body="b"`, "zzz"},
		{"DELETE", "/308/307/x", "", "DELETE /x", "secret", "zzz"},
		{"GET", "/302/other", "", "GET /other", "host=" + other, "secret"},
		{"POST", "/307/other", "b", "POST /other", `body="b"`, "c=1"},
	} {
		mode := gen.BodyMode_none
		if c.body != "" {
			mode = gen.BodyMode_whole
		}
		x := w.do(Request{Method: c.method, URL: base + c.path, BodyMode: mode, Headers: headers}, func(x *exchange) { x.body = strings.NewReader(c.body) })
		got := x.out.String()
		if x.answer == nil || !strings.HasPrefix(got, c.want) || !strings.Contains(got, c.has) || strings.Contains(got, c.hasNot) {
			t.Errorf("%s %s: %q %s", c.method, c.path, x.failed, got)
		} else if !x.answer.Redirected || strings.Contains(x.answer.URL, "/30") {
			t.Errorf("%s %s: %+v", c.method, c.path, x.answer)
		}
	}
	fails := func(name, want string, x *exchange) {
		t.Helper()
		if x.answer != nil || !strings.Contains(x.failed, want) {
			t.Errorf("%s: %+v %q", name, x.answer, x.failed)
		}
	}
	fails("error mode", `redirect mode is "error"`, w.do(Request{URL: base + "/302/x", Redirect: gen.Fetch_Redirect_error}, nil))
	fails("a loop", "more than 20 redirects", w.get(base+"/loop"))
	fails("no more to spend", "too many subrequests", w.do(Request{URL: base + "/loop"}, func(x *exchange) { x.spend = 5 }))
	fails("a streamed body again", "cannot be sent again", w.do(Request{Method: "POST", URL: base + "/307/x", BodyMode: gen.BodyMode_streamed}, func(x *exchange) { x.body = strings.NewReader("b") }))
	if x := w.do(Request{URL: base + "/302/x", Redirect: gen.Fetch_Redirect_manual}, nil); x.answer == nil || x.answer.Status != 302 || x.header("location") != "/x" || x.answer.Redirected {
		t.Errorf("manual: %+v %q", x.answer, x.failed)
	}
	if x := w.get(base + "/nowhere"); x.answer == nil || x.answer.Status != 302 {
		t.Errorf("a redirect without a location: %+v %q", x.answer, x.failed)
	}
	if x := w.do(Request{Method: "POST", URL: base + "/303/x", BodyMode: gen.BodyMode_streamed}, func(x *exchange) { x.body = strings.NewReader("b") }); x.answer == nil || !x.refused {
		t.Errorf("a streamed body that became a GET: %+v %q", x.answer, x.failed)
	}
}

func TestContentCodings(t *testing.T) {
	plain := strings.Repeat("hello, coded world. ", 5000)
	code := map[string]func(io.Writer) io.WriteCloser{
		"gzip":    func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"x-gzip":  func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"deflate": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
		"br":      func(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) },
		"zstd":    func(w io.Writer) io.WriteCloser { e, _ := zstd.NewWriter(w); return e },
	}
	encode := func(names ...string) []byte {
		p := []byte(plain)
		for _, n := range names {
			var b bytes.Buffer
			c := code[n](&b)
			c.Write(p)
			c.Close()
			p = b.Bytes()
		}
		return p
	}
	addr := serve(t, good, func(w http.ResponseWriter, r *http.Request) {
		names := strings.Split(strings.Trim(r.URL.Path, "/"), "+")
		w.Header().Set("Content-Encoding", strings.Join(names, ", "))
		switch r.URL.RawQuery {
		case "cut":
			w.Write(encode(names...)[:100])
		case "garbage":
			io.WriteString(w, "this is not coded at all")
		case "empty":
		case "unknown":
			w.Header().Set("Content-Encoding", "sdch")
			io.WriteString(w, "raw")
		default:
			p := encode(names...)
			w.Header().Set("Content-Length", fmt.Sprint(len(p)))
			w.Write(p)
		}
	})
	w := newWorld(t, nil, Options{})
	for _, name := range []string{"gzip", "x-gzip", "deflate", "br", "zstd", "gzip+br", "zstd+gzip"} {
		x := w.get("http://" + addr + "/" + name)
		if x.answer == nil || x.out.String() != plain || x.header("content-encoding") != "" || x.header("content-length") != "" {
			t.Errorf("%s: %d bytes, %q", name, x.out.Len(), x.failed)
		}
		if x := w.get("http://" + addr + "/" + name + "?empty"); !x.ended || x.out.Len() != 0 {
			t.Errorf("%s, empty: %q", name, x.failed)
		}
		for _, bad := range []string{"cut", "garbage"} {
			if x := w.get("http://" + addr + "/" + name + "?" + bad); x.ended || x.failed == "" {
				t.Errorf("%s, %s: ended well", name, bad)
			}
		}
		if x := w.do(Request{Method: "HEAD", URL: "http://" + addr + "/" + name}, nil); x.header("content-encoding") == "" {
			t.Errorf("%s, HEAD: the coding is gone", name)
		}
	}
	if x := w.get("http://" + addr + "/gzip?unknown"); x.out.String() != "raw" || x.header("content-encoding") != "sdch" {
		t.Errorf("unknown coding: %q %q", x.out.String(), x.failed)
	}
	if x := w.get("http://" + addr + "/gzip+gzip+gzip+gzip"); x.answer != nil {
		t.Error("four codings were taken")
	}
}

// Two out of the 16 MiB windows of brotli may not become a thousand: beyond a bound gzip alone is offered.
func TestLargeDecodersAreBounded(t *testing.T) {
	release := make(chan struct{})
	var large, small atomic.Int32
	addr := serve(t, good, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") == "gzip" {
			small.Add(1)
		} else {
			large.Add(1)
		}
		<-release
	})
	w := newWorld(t, nil, Options{})
	done := make(chan *exchange)
	for range maxCoders + 10 {
		go func() {
			x := &exchange{ctx: t.Context()}
			w.Serve("a", Request{Method: "GET", URL: "http://" + addr + "/"}, x)
			done <- x
		}()
	}
	for large.Load()+small.Load() < maxCoders+10 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	for range maxCoders + 10 {
		<-done
	}
	if large.Load() != maxCoders || small.Load() != 10 {
		t.Errorf("%d and %d", large.Load(), small.Load())
	}
	if x := w.get("http://" + addr + "/"); x.answer == nil || large.Load() != maxCoders+1 {
		t.Error("the places were not given back")
	}
}

func TestTLSAndHTTP2(t *testing.T) {
	l, err := net.Listen("tcp", good+":0")
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, r.Body)
		fmt.Fprint(w, r.Proto, r.Header.Get("User-Agent"))
	}))
	srv.Listener.Close()
	srv.Listener = l
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	w := newWorld(t, nil, Options{Roots: roots})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	w.dns.set("example.com", good) // a name of httptest's certificate
	w.dns.set("wrong.test", good)
	x := w.do(Request{Method: "POST", URL: "https://example.com:" + port + "/", BodyMode: gen.BodyMode_streamed}, func(x *exchange) {
		x.body = strings.NewReader(strings.Repeat("z", 1<<20))
	})
	if x.answer == nil || x.out.Len() != 1<<20+len("HTTP/2.0bulkhead") || x.answer.StatusText != "" {
		t.Errorf("%d bytes, %q", x.out.Len(), x.failed)
	}
	if x := w.get("https://wrong.test:" + port + "/"); x.answer != nil || !strings.Contains(x.failed, "certificate is not valid") {
		t.Errorf("another name's certificate: %q", x.failed)
	}
	plain := newWorld(t, nil, Options{})
	plain.dns.set("example.com", good)
	if x := plain.get("https://example.com:" + port + "/"); x.answer != nil || !strings.Contains(x.failed, "unknown authority") {
		t.Errorf("an unknown authority: %q", x.failed)
	}
	if x := w.get("http://example.com:" + port + "/"); x.answer == nil {
		t.Logf("http to a https port: %q", x.failed)
	}
}

// What is behind the authority reaches the upstream byte for byte.
func TestRawTarget(t *testing.T) {
	l, err := net.Listen("tcp", good+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	line := make(chan string, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, _ := bufio.NewReader(c).ReadString('\n')
			line <- s
			io.WriteString(c, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
			c.Close()
		}
	}()
	w := newWorld(t, nil, Options{})
	for _, target := range []string{"/%zz/a|b/^{}?q=[%]'\"", "/a/../b", "/%2e%2e/", "//x", "/;a=b", "/?", "/%00", "/a%20b+c", "/?a?b"} {
		x := w.get("http://" + l.Addr().String() + target)
		if x.answer == nil {
			t.Errorf("%s: %q", target, x.failed)
			continue
		}
		if got := <-line; got != "GET "+target+" HTTP/1.1\r\n" {
			t.Errorf("%s: sent %q", target, got)
		}
		if x.answer.URL != "http://"+l.Addr().String()+target {
			t.Errorf("%s: URL %q", target, x.answer.URL)
		}
	}
}

// Upstreams that say nothing, too much, or nonsense.
func TestBadUpstreams(t *testing.T) {
	raw := func(say string, hang bool) string {
		l, err := net.Listen("tcp", good+":0")
		if err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		t.Cleanup(func() { close(stop); l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					c.Read(make([]byte, 4096))
					io.WriteString(c, say)
					if hang {
						<-stop
					}
				}()
			}
		}()
		return "http://" + l.Addr().String() + "/"
	}
	w := newWorld(t, nil, Options{HeadTimeout: 300 * time.Millisecond, IdleTimeout: 300 * time.Millisecond})
	long := strings.Repeat("a", 70_000)
	for name, c := range map[string]struct{ url, want string }{
		"nothing":                      {raw("", false), "EOF"},
		"silence":                      {raw("", true), "timed out"},
		"garbage":                      {raw("\x16\x03\x01 what\r\n\r\n", false), "malformed"},
		"half a head":                  {raw("HTTP/1.1 200 OK\r\nA: b\r\n", false), "EOF"},
		"half a head, silence":         {raw("HTTP/1.1 200 OK\r\nA: b\r\n", true), "timed out"},
		"a short body":                 {raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", false), "cut"},
		"a body that stops":            {raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", true), "silent"},
		"a broken chunk":               {raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", false), "cut"},
		"a chunk without its end":      {raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", false), "cut"},
		"a long header":                {raw("HTTP/1.1 200 OK\r\nA: "+long+"\r\n\r\n", false), "header"},
		"many headers":                 {raw("HTTP/1.1 200 OK\r\n"+strings.Repeat("A: b\r\n", 200)+"\r\n", false), "more than 128 header fields"},
		"a NUL in a header":            {raw("HTTP/1.1 200 OK\r\nA: b\x00c\r\n\r\n", false), ""},
		"a CR in a header":             {raw("HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", false), ""},
		"a header name with a space":   {raw("HTTP/1.1 200 OK\r\nA b: c\r\n\r\n", false), ""},
		"two lengths":                  {raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", false), ""},
		"status 42":                    {raw("HTTP/1.1 42 Odd\r\n\r\n", false), ""},
		"status 101":                   {raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", true), "status 101"},
		"a thousand 100s":              {raw(strings.Repeat("HTTP/1.1 103 Early Hints\r\nA: "+strings.Repeat("b", 200)+"\r\n\r\n", 1000), true), ""},
		"gzip that unpacks to nothing": {raw("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08", false), "cut"},
		"HTTP/0.9":                     {raw("hello", false), ""},
		"a refused connection":         {"http://" + good + ":1/", "cannot connect: connect: connection refused"},
		"no such name":                 {"http://nowhere.test/", "nowhere.test has no address: no such host"},
	} {
		x := w.get(c.url)
		if x.ended || x.failed == "" || !strings.Contains(x.failed, c.want) {
			t.Errorf("%s: ended %v, %q, want %q", name, x.ended, x.failed, c.want)
		}
		if strings.Contains(x.failed, w.dns.addr) {
			t.Errorf("%s: the message names the name server: %q", name, x.failed)
		}
	}
	// A split response: what follows the first must not be taken for the answer to the next request.
	split := raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", false)
	for range 5 {
		if x := w.get(split); x.answer != nil && x.out.String() != "ok" {
			t.Errorf("got %q", x.out.String())
		}
	}
}

func TestEffects(t *testing.T) {
	var seen atomic.Int32
	addr := serve(t, good, func(http.ResponseWriter, *http.Request) { seen.Add(1) })
	w := newWorld(t, nil, Options{})
	for method, effect := range map[string]gatewayside.Effect{"GET": 0, "HEAD": 0, "OPTIONS": 0, "POST": gatewayside.EffectSubrequest, "patch": gatewayside.EffectSubrequest, "DELETE": gatewayside.EffectSubrequest} {
		if x := w.do(Request{Method: method, URL: "http://" + addr + "/"}, nil); x.effects != effect || x.answer == nil {
			t.Errorf("%s: effects %b, %q", method, x.effects, x.failed)
		}
	}
	n := seen.Load()
	if x := w.do(Request{Method: "POST", URL: "http://" + addr + "/"}, func(x *exchange) { x.affect = gatewayside.ErrReleased }); x.answer != nil || seen.Load() != n {
		t.Error("an effect that could not be noted took place")
	}
	if x := w.do(Request{Method: "POST", URL: "http://10.0.0.1/"}, nil); x.failed == "" {
		t.Error("not refused")
	}
	w.setRules(func(r *rules.Rules) { r.Safe, r.Internal = []string{addr}, []string{addr} })
	if x := w.do(Request{Method: "POST", URL: "http://" + addr + "/"}, nil); x.effects != 0 || x.answer == nil {
		t.Errorf("a safe upstream: %b %q", x.effects, x.failed)
	}
}

func TestInternalUpstreamsKnowTheTenant(t *testing.T) {
	addr := serve(t, good, describe)
	w := newWorld(t, func(r *rules.Rules) { r.Internal = []string{"api.test"} }, Options{})
	w.dns.set("api.test", good)
	_, port, _ := net.SplitHostPort(addr)
	forged := Request{URL: "http://api.test:" + port + "/", Headers: []byte("bulkhead-tenant\nroot\n")}
	if x := w.do(forged, nil); !strings.Contains(x.out.String(), `Bulkhead-Tenant=["a"]`) {
		t.Errorf("%s %q", x.out.String(), x.failed)
	}
	forged.URL = "http://" + addr + "/"
	if x := w.do(forged, nil); strings.Contains(x.out.String(), "Bulkhead-Tenant") {
		t.Errorf("%s", x.out.String())
	}
}

func TestLimits(t *testing.T) {
	hang := make(chan struct{})
	addr := serve(t, good, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
			return
		}
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, strings.Repeat("x", 5000))
	})
	w := newWorld(t, func(r *rules.Rules) { r.Concurrent, r.Bytes = 2, 4096 }, Options{})
	if x := w.get("http://" + addr + "/"); x.ended || !strings.Contains(x.failed, "larger than this worker may receive (4096 bytes)") {
		t.Errorf("response: %q", x.failed)
	}
	if x := w.do(Request{Method: "POST", URL: "http://" + addr + "/", BodyMode: gen.BodyMode_streamed}, func(x *exchange) {
		x.body = strings.NewReader(strings.Repeat("x", 100_000))
	}); x.answer != nil || !strings.Contains(x.failed, "larger than this worker may send") {
		t.Errorf("request: %q", x.failed)
	}
	done := make(chan *exchange, 2)
	for range 2 {
		go func() { done <- w.get("http://" + addr + "/hang") }()
	}
	w.mu.Lock()
	c := w.clients["a"]
	w.mu.Unlock()
	for c.open.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	if x := w.get("http://" + addr + "/"); !strings.Contains(x.failed, "too many subrequests at once: this worker may have 2 open") {
		t.Errorf("third at once: %q", x.failed)
	}
	other := &exchange{ctx: t.Context()}
	w.Serve("b", Request{Method: "HEAD", URL: "http://" + addr + "/"}, other)
	if other.answer == nil {
		t.Errorf("another tenant: %q", other.failed)
	}
	close(hang)
	<-done
	<-done
}

// All connections of the host are in use: the next is refused with a message, one that only waits makes room.
func TestConnectionsAreBounded(t *testing.T) {
	hang := make(chan struct{})
	addr := serve(t, good, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			<-hang
		}
	})
	w := newWorld(t, nil, Options{Conns: 3})
	for _, tenant := range []string{"a", "b", "c", "d", "e", "f"} { // each leaves one that waits
		x := &exchange{ctx: t.Context()}
		w.Serve(tenant, Request{Method: "GET", URL: "http://" + addr + "/"}, x)
		if x.answer == nil {
			t.Fatalf("%s: %q", tenant, x.failed)
		}
	}
	done := make(chan *exchange, 3)
	for range 3 {
		go func() { done <- w.get("http://" + addr + "/hang") }()
	}
	for deadline := time.Now().Add(5 * time.Second); w.conns.Load() < 3 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	if x := w.get("http://" + addr + "/"); !strings.Contains(x.failed, "too many connections") {
		t.Errorf("fourth: %q", x.failed)
	}
	close(hang)
	for range 3 {
		if x := <-done; x.answer == nil {
			t.Error(x.failed)
		}
	}
}

// An invocation that ends takes its upstream call with it.
func TestCancel(t *testing.T) {
	left := make(chan struct{}, 4)
	addr := serve(t, good, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			for {
				if _, err := w.Write(make([]byte, 1000)); err != nil {
					break
				}
			}
		} else {
			<-r.Context().Done()
		}
		left <- struct{}{}
	})
	w := newWorld(t, nil, Options{})
	for _, path := range []string{"/hang", "/stream"} {
		ctx, cancel := context.WithCancel(t.Context())
		x := &exchange{ctx: ctx}
		x.write = func(p []byte) (int, error) { cancel(); <-ctx.Done(); return 0, gatewayside.ErrReleased }
		if path == "/hang" {
			time.AfterFunc(20*time.Millisecond, cancel)
		}
		w.Serve("a", Request{Method: "GET", URL: "http://" + addr + path}, x)
		select {
		case <-left:
		case <-time.After(5 * time.Second):
			t.Errorf("%s: the upstream was not left", path)
		}
		if x.ended {
			t.Errorf("%s: ended well", path)
		}
		cancel()
	}
}

func TestAfterClose(t *testing.T) {
	w := newWorld(t, nil, Options{})
	w.Close()
	if x := w.get("http://" + good + "/"); !strings.Contains(x.failed, "shutting down") {
		t.Error(x.failed)
	}
}

func TestExplainIsPlain(t *testing.T) {
	for _, err := range []error{errors.New("a\nb\x1b[31m\u202e"), fmt.Errorf("x: %w", &net.OpError{Op: "dial", Err: errors.New("y\x00")}), errors.New(strings.Repeat("z", 1000))} {
		if s := explain(err); len(s) > 320 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q", s)
		}
	}
}
