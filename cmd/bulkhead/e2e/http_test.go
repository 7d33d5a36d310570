package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"bulkhead/securitytests/hosttest"
)

// raw sends bytes as they are and returns all that comes back until the server closes or is silent.
func raw(t *testing.T, h *hosttest.Host, send string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", h.Addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := io.WriteString(conn, send); err != nil {
		return "" // closed while we sent: the check below says whether that is fine
	}
	b, _ := io.ReadAll(conn)
	return string(b)
}

func TestHostileHTTP(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{Tenants: map[string]hosttest.Files{
		"a": hosttest.Worker(`export default { async fetch(r) { return new Response("reached " + r.method + " " + new URL(r.url).pathname + " " + (await r.text()).length); } };`),
	}})
	h.Get("a", "/")
	const host = "Host: a.localhost\r\n"
	// Whatever the server does with the first message, the second must not be answered as a
	// request of its own: that is what smuggling is (RFC 9112 §11.2).
	smuggled := "GET /smuggled HTTP/1.1\r\n" + host + "\r\n"
	for name, c := range map[string]struct {
		send string
		want []string // one of these statuses, or "" for a connection closed without an answer
	}{
		"garbage":                        {"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", []string{"400", ""}},
		"two different Content-Lengths":  {"POST / HTTP/1.1\r\n" + host + "Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + smuggled, []string{"400"}},
		"a list of Content-Lengths":      {"POST / HTTP/1.1\r\n" + host + "Content-Length: 0, 44\r\n\r\n" + smuggled, []string{"400"}},
		"a signed Content-Length":        {"POST / HTTP/1.1\r\n" + host + "Content-Length: +0\r\n\r\n" + smuggled, []string{"400"}},
		"Content-Length and chunked":     {"POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, []string{"400", "200"}},
		"an unknown Transfer-Encoding":   {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n" + smuggled, []string{"400", "501"}},
		"chunked twice":                  {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + smuggled, []string{"400", "501"}},
		"a space before the colon":       {"POST / HTTP/1.1\r\n" + host + "Content-Length : 44\r\n\r\n" + smuggled, []string{"400"}},
		"a folded header":                {"GET / HTTP/1.1\r\n" + host + "X-A: b\r\n c\r\nX-D: e\r\n\r\n", []string{"400", "200"}},
		"a chunk size of words":          {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n" + smuggled, []string{"400", "500", "200", ""}},
		"NUL in a header":                {"GET / HTTP/1.1\r\n" + host + "X-A: b\x00c\r\n\r\n", []string{"400"}},
		"no Host":                        {"GET / HTTP/1.1\r\n\r\n", []string{"400"}},
		"two Hosts":                      {"GET / HTTP/1.1\r\n" + host + "Host: b.localhost\r\n\r\n", []string{"400"}},
		"a bad Host":                     {"GET / HTTP/1.1\r\nHost: a.localhost/x\r\n\r\n", []string{"400", "404"}},
		"a header of 1 MB":               {"GET / HTTP/1.1\r\n" + host + "X-A: " + strings.Repeat("a", 1<<20) + "\r\n\r\n", []string{"431", ""}},
		"ten thousand headers":           {"GET / HTTP/1.1\r\n" + host + strings.Repeat("X-A: b\r\n", 10_000) + "\r\n", []string{"431"}},
		"a target of 100 KB":             {"GET /" + strings.Repeat("a", 100_000) + " HTTP/1.1\r\n" + host + "\r\n", []string{"414", "431"}},
		"a method that is no token":      {"GE(T / HTTP/1.1\r\n" + host + "\r\n", []string{"400"}},
		"HTTP/0.9":                       {"GET /\r\n\r\n", []string{"400", ""}},
		"HTTP/3.7":                       {"GET / HTTP/3.7\r\n" + host + "\r\n", []string{"400", "505"}},
		"CONNECT":                        {"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", []string{"400", "404", "405", "501"}},
		"a bare LF inside a header":      {"GET / HTTP/1.1\r\n" + host + "X-A: b\nTransfer-Encoding: chunked\r\n\r\n", []string{"400", "200", ""}},
		"the operator's own header name": {"GET / HTTP/1.1\r\n" + host + "bulkhead-outcome: ok\r\n\r\n", []string{"200"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := raw(t, h, c.send)
			status := ""
			if strings.HasPrefix(got, "HTTP/1.") && len(got) > 12 {
				status = got[9:12]
			}
			ok := false
			for _, w := range c.want {
				ok = ok || w == status
			}
			if !ok {
				t.Errorf("answered %q, want one of %q:\n%.400s", status, c.want, got)
			}
			if strings.Contains(c.send, "/smuggled") && strings.Contains(got, "/smuggled") {
				t.Errorf("the second request was smuggled through:\n%.600s", got)
			}
		})
	}
	if a := h.Get("a", "/still"); !strings.HasPrefix(a.Body, "reached GET /still") {
		t.Errorf("after all that the host answers %d %s", a.Status, a.Body)
	}
}

// A tenant's answer cannot set what belongs to the host or to the hop.
func TestResponseHygiene(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{Tenants: map[string]hosttest.Files{"a": hosttest.Worker(`export default { fetch(r) {
		const { pathname } = new URL(r.url);
		if (pathname === "/split") { try { return new Response("x", { headers: { "x-a": "b\r\nset-cookie: evil=1" } }); } catch (e) { return new Response(e.name); } }
		if (pathname === "/204") return new Response(null, { status: 204 });
		if (pathname === "/cookies") { const h = new Headers(); h.append("set-cookie", "a=1"); h.append("set-cookie", "b=2"); return new Response("c", { headers: h }); }
		return new Response("y", { headers: { "connection": "upgrade", "transfer-encoding": "identity", "bulkhead-outcome": "crashed", "bulkhead-request-id": "mine", "x-mine": "kept", "content-length": "1" } });
	} };`)}})
	a := h.Get("a", "/")
	if a.Status != 200 || a.Body != "y" || a.Header.Get("X-Mine") != "kept" || a.Outcome != "" || a.Header.Get("bulkhead-request-id") == "mine" || a.Header.Get("Connection") == "upgrade" {
		t.Errorf("%d %q %v", a.Status, a.Body, a.Header)
	}
	if a := h.Get("a", "/split"); a.Body != "TypeError" || a.Header.Get("Set-Cookie") != "" {
		t.Errorf("a header with CRLF: %q %v", a.Body, a.Header)
	}
	if a := h.Get("a", "/204"); a.Status != 204 || a.Body != "" {
		t.Errorf("204: %d %q", a.Status, a.Body)
	}
	if a := h.Get("a", "/cookies"); len(a.Header.Values("Set-Cookie")) != 2 {
		t.Errorf("two cookies came as %v", a.Header)
	}
	if a, err := h.Do("HEAD", "a", "/", nil); err != nil || a.Status != 200 || a.Body != "" {
		t.Errorf("HEAD: %v %d %q", err, a.Status, a.Body)
	}
}

// One client that reads nothing must not hold up the others, nor make anybody buffer.
func TestSlowReaderHoldsUpNobody(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{Tenants: map[string]hosttest.Files{"b": hosttest.Worker(bodies)}})
	h.Get("b", "/down?n=10")
	var stalled []net.Conn
	for range 20 {
		conn, err := net.Dial("tcp", h.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "GET /down?n=104857600 HTTP/1.1\r\nHost: b.localhost\r\n\r\n")
		stalled = append(stalled, conn)
	}
	time.Sleep(500 * time.Millisecond)
	before := hosttest.RSS(h.Gateway()) + workersRSS(h)
	for range 200 {
		if a := h.Get("b", "/down?n=100000"); len(a.Body) != 100000 {
			t.Fatalf("%d, %d bytes", a.Status, len(a.Body))
		}
	}
	if after := hosttest.RSS(h.Gateway()) + workersRSS(h); after > before+(64<<20) {
		t.Errorf("memory went from %d to %d MB behind 20 clients that read nothing", before>>20, after>>20)
	}
	// A stalled one still gets its bytes when it reads at last.
	resp, err := http.ReadResponse(bufio.NewReader(stalled[0]), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != 100<<20 {
		t.Errorf("the stalled client got %d bytes at last: %v", n, err)
	}
}
