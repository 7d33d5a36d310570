package egress

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"bulkhead/ipc"
	"bulkhead/policy"
	"bulkhead/policy/limits"
	"bulkhead/supervisor/observe"

	"log/slog"
)

// upstreamLimit is what a fuzzed fetch may receive: a bomb ends there.
const upstreamLimit = 1 << 20

// fuzzFetch is a fetch whose upstream is the fuzzer's bytes.
func fuzzFetch(f *testing.F) func(x *exchange) *fetch {
	p, err := policy.Preset("standard")
	if err != nil {
		f.Fatal(err)
	}
	p.Egress.Bytes = upstreamLimit
	e := New(Options{Policy: func() *policy.Policy { return p }, Observer: observe.New(slog.New(slog.DiscardHandler), observe.Options{})})
	f.Cleanup(e.Close)
	c, err := e.client("a")
	if err != nil {
		f.Fatal(err)
	}
	return func(x *exchange) *fetch { return &fetch{c: c, x: x} }
}

// FuzzUpstream: an upstream's bytes (head, chunks, content codings) become a response within the
// tenant's limits, or a reason; never a field or a text that the shard's decoder would refuse.
func FuzzUpstream(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
		"HTTP/1.1 200 Odd\x01\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n2;e\r\nab\r\n0\r\nx: 1\r\n\r\n",
		"HTTP/1.1 999 \r\nContent-Encoding: gzip, br\r\nConnection: x-a\r\nX-A: 1\r\nBulkhead-Outcome: ok\r\n\r\n\x1f\x8b",
		"HTTP/1.0 304\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nbody",
		"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\n\r\n\x28\xb5\x2f\xfd\x04\x00\x09\x00\x00a\x00\x00\x00\x00",
		"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\n\r\n\x78\x9c\x4b\x04\x00\x00\x62\x00\x62",
	} {
		f.Add([]byte(s), false)
	}
	u, err := url.Parse("http://a.example/")
	if err != nil {
		f.Fatal(err)
	}
	one := fuzzFetch(f)
	f.Fuzz(func(t *testing.T, raw []byte, head bool) {
		method := "GET"
		if head {
			method = "HEAD"
		}
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), &http.Request{Method: method, URL: u})
		if err != nil {
			return
		}
		ctx, cancel := context.WithCancelCause(context.Background())
		defer cancel(nil)
		x := &exchange{ctx: ctx}
		fe := one(x)
		defer fe.releaseCoder()
		err = fe.answer(ctx, cancel, method, u, false, resp)
		if a := x.answer; a != nil {
			w := fe.c.e.opt.Wire
			var b ipc.Batch
			b.Head(ipc.FetchBit|1, &ipc.Head{Status: uint16(a.Status), StatusText: a.StatusText[:min(len(a.StatusText), 1<<10)], URL: a.URL, Headers: a.Headers})
			sc := ipc.NewScanner(&w)
			sc.Fill(copy(sc.Free(), b.Bytes()))
			fr, ok, serr := sc.Next()
			if !ok || serr != nil {
				t.Fatalf("frame: %v", serr)
			}
			if _, derr := ipc.DecodeAnswer(fr, &w); derr != nil {
				t.Errorf("the worker refuses it: %v", derr)
			}
			for name := range ipc.Headers(a.Headers) {
				if dropped(http.CanonicalHeaderKey(string(name))) {
					t.Errorf("%s comes through", name)
				}
			}
		} else if err == nil {
			t.Error("neither an answer nor an error")
		}
		if n := x.out.Len(); n > upstreamLimit {
			t.Errorf("%d bytes of body, limit %d", n, upstreamLimit)
		}
	})
}

// FuzzCodings: bytes under any pile of content codings are decoded within the limit or refused.
func FuzzCodings(f *testing.F) {
	f.Add("gzip", []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x4b\x04\x00\x43\xbe\xb7\xe8\x01\x00\x00\x00"))
	f.Add("br", []byte("\x0b\x00\x80a\x03"))
	f.Add("zstd", []byte("\x28\xb5\x2f\xfd\x04\x00\x09\x00\x00a\x00\x00\x00\x00"))
	f.Add("deflate, gzip", []byte("\x78\x9c\x4b\x04\x00\x00\x62\x00\x62"))
	f.Add("gzip,gzip,gzip,gzip", []byte{})
	f.Add("x-none", []byte("a"))
	one := fuzzFetch(f)
	f.Fuzz(func(t *testing.T, coding string, raw []byte) {
		fe := one(&exchange{ctx: context.Background()})
		defer fe.releaseCoder()
		d, err := fe.decoder(&http.Response{Header: http.Header{"Content-Encoding": {coding}}, Body: io.NopCloser(bytes.NewReader(raw))})
		if err != nil || d == nil {
			return
		}
		defer d.Close()
		n, _ := io.Copy(io.Discard, io.LimitReader(d, upstreamLimit+1))
		if n > upstreamLimit+1 {
			t.Errorf("%d bytes", n)
		}
	})
}

// FuzzURL: what a shard asks for and an upstream redirects to names an authority that the rules see,
// and a target that cannot end the request line.
func FuzzURL(f *testing.F) {
	f.Add("http://a.example/x?y", "//b/../z#f")
	f.Add(`https://a\@b`, "javascript:alert(1)")
	f.Add("http://[::1%25lo]:80/", "http://u:p@b/")
	f.Add("http://a:99999/", "/\x7f")
	f.Fuzz(func(t *testing.T, first, location string) {
		w := limits.DefaultWire()
		if (&ipc.Fetch{Method: "GET", URL: first}).Check(&w) != nil {
			return
		}
		u, err := parseURL(first)
		if err != nil {
			return
		}
		whole := func(u *url.URL) {
			host, port := hostPort(u)
			if host == "" || port == 0 || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
				t.Errorf("%q names %q port %d", text(u), host, port)
			}
			if target := u.RequestURI(); strings.ContainsFunc(target, func(r rune) bool { return r <= ' ' || r == 0x7f }) || target == "" {
				t.Errorf("target %q", target)
			}
			// What net/http would dial is what was judged.
			if req, err := http.NewRequest("GET", text(u), nil); err == nil && u.Opaque == "" {
				if h, p := hostPort(req.URL); h != host || p != port {
					t.Errorf("judged %s:%d, would dial %s:%d", host, port, h, p)
				}
			}
		}
		whole(u)
		if to, err := follow(u, location); err == nil {
			whole(to)
		}
	})
}
