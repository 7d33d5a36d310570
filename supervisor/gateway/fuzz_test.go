package gateway

import (
	"bufio"
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"bulkhead/ipc"
	"bulkhead/policy"
	"bulkhead/policy/limits"
	"bulkhead/supervisor/launcher/orders"
)

// FuzzRequest: a head that the strict reader and net/http both take becomes an open frame that holds
// nothing a shard could mistake: its decoder takes it, and reads back what the client said.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a.localhost\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close, X-A\r\nX-A: 1\r\n\r\n",
		"GET http://a.localhost:80?q HTTP/1.1\r\nHost: a.localhost:80\r\nTE: trailers\r\nBulkhead-Outcome: ok\r\n\r\n",
		"GET /\xc3\xa4/%00?\x80 HTTP/1.1\r\nHost: [::1]:80\r\nX-B: \xff\t\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	w := limits.DefaultWire()
	f.Fuzz(func(t *testing.T, raw []byte) {
		strict := newStrictReader(&w)
		if n, m := strict.feed(raw); m != nil || n != len(raw) {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil || !plainHost(r.Host) {
			return
		}
		o := ipc.Open{Tenant: 1, Method: r.Method, URL: string(requestURL(nil, r, "http")), Headers: appendRequestHeaders(nil, r)}
		if err := ipc.CheckHeaders(o.Headers, &w); err != nil {
			// Only for their number and size: who flattens adds one, and the reader's bound is the wire's.
			if v, ok := err.(*ipc.ViolationError); !ok || v.Kind != ipc.KindSize {
				t.Fatalf("%q: %v", o.Headers, err)
			}
			return
		}
		if !strings.HasPrefix(o.URL, "http://"+r.Host+"/") || strings.ContainsAny(o.URL, "\r\n\x00 ") || !utf8.ValidString(o.URL) {
			t.Errorf("url %q of %q", o.URL, r.RequestURI)
		}
		for name := range ipc.Headers(o.Headers) {
			if n := http.CanonicalHeaderKey(string(name)); hopByHop(n) || strings.HasPrefix(n, ownPrefix) {
				t.Errorf("%s crosses the gateway", n)
			}
		}
		var b ipc.Batch
		b.Open(1, &o)
		sc := ipc.NewScanner(&w)
		if len(b.Bytes()) > len(sc.Free()) {
			return
		}
		sc.Fill(copy(sc.Free(), b.Bytes()))
		fr, ok, err := sc.Next()
		if !ok || err != nil {
			t.Fatalf("frame: %v", err)
		}
		got, err := ipc.DecodeOpen(fr, &w)
		if err != nil && len(o.URL) <= w.URLBytes {
			t.Errorf("the worker refuses it: %v", err)
		}
		if err == nil && (got.URL != o.URL || got.Method != o.Method || !bytes.Equal(got.Headers, o.Headers)) {
			t.Errorf("%+v came back as %+v", o, got)
		}
	})
}

// FuzzResponseHeaders: whatever fields a shard sends, what reaches the client is one HTTP response
// that says no more and no less than they: nothing of the connection's, nothing of bulkhead's own.
func FuzzResponseHeaders(f *testing.F) {
	f.Add([]byte("content-type\ntext/plain\nset-cookie\na=1\nset-cookie\nb=2\n"))
	f.Add([]byte("connection\nx-a, bulkhead-request-id\nx-a\n1\ntransfer-encoding\nchunked\n"))
	f.Add([]byte("content-length\n12\ncontent-length\n13\nbulkhead-outcome\nok\n"))
	f.Add([]byte("x\n\x01\x7f\ny\n\xff\n"))
	w := limits.DefaultWire()
	f.Fuzz(func(t *testing.T, flat []byte) {
		if ipc.CheckHeaders(flat, &w) != nil {
			return
		}
		h := http.Header{headerRequestID: {"id"}}
		length := setResponseHeaders(h, flat)
		if length < -1 {
			t.Errorf("length %d", length)
		}
		var out bytes.Buffer
		out.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n")
		if err := h.Write(&out); err != nil {
			t.Fatal(err)
		}
		out.WriteString("\r\n")
		if strings.Count(out.String(), "\r\n\r\n") != 1 {
			t.Fatalf("split: %q", out.String())
		}
		resp, err := http.ReadResponse(bufio.NewReader(&out), nil)
		if err != nil {
			t.Fatalf("%q: %v", flat, err)
		}
		if got := resp.Header.Values(headerRequestID); len(got) != 1 || got[0] != "id" || len(resp.Header.Values(headerOutcome)) > 0 {
			t.Errorf("bulkhead's own fields are %v", resp.Header)
		}
		fields := 0
		for name, values := range resp.Header {
			fields += len(values)
			if name != "Content-Length" && hopByHop(name) {
				t.Errorf("%s crosses the gateway", name)
			}
		}
		if most := bytes.Count(flat, []byte("\n"))/2 + 2; fields > most {
			t.Errorf("%d fields of %d", fields, most)
		}
	})
}

// FuzzAdmin: no request line, field or query of an operator's client makes the API panic, or answer
// with anything but a status and well-formed text.
func FuzzAdmin(f *testing.F) {
	farm := newFarm(f, nil)
	p, err := policy.Preset("standard")
	if err != nil {
		f.Fatal(err)
	}
	a := NewAdmin(AdminOptions{Server: farm.server, Policy: func() *policy.Policy { return p }, Boot: orders.Boot{}})
	for _, s := range []string{"/v1/status", "/v1/logs/a?after=12", "/v1/logs/..%2fb?follow=0", "/v1/evict/a", "/v1/metrics", "/v1/incidents?x=%zz", "//v1/../x"} {
		f.Add("GET", s)
		f.Add("POST", s)
	}
	f.Fuzz(func(t *testing.T, method, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Query().Get("follow") == "1" || strings.ContainsAny(method, " \r\n") || strings.Contains(target, "/v1/shards") {
			return // followers stay, and shards are asked over their sockets
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.Method, r.URL, r.RequestURI = method, u, target
		w := httptest.NewRecorder()
		a.http.Handler.ServeHTTP(w, r)
		if w.Code < 200 || w.Code > 599 {
			t.Errorf("status %d", w.Code)
		}
		if method != "HEAD" && target != "*" && w.Code >= 400 && w.Code != 405 && !strings.HasPrefix(w.Body.String(), `{"error":`) {
			t.Errorf("%d %q", w.Code, w.Body)
		}
	})
}
