package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"bulkhead/policy/limits"
	"bulkhead/supervisor/placement"
)

// hostile is what no front may repair. Each is followed by a request of its own, which must not
// be answered: after a refusal nobody knows where the next message begins.
var hostile = []struct {
	name, send string
	status     int
}{
	{"two lengths", "POST / HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\n", 400},
	{"two equal lengths", "POST / HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd", 400},
	{"a list of lengths", "POST / HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: 4, 4\r\n\r\nabcd", 400},
	{"a signed length", "POST / HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: +4\r\n\r\nabcd", 400},
	{"a hexadecimal length", "POST / HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: 0x4\r\n\r\nabcd", 400},
	{"an empty length", "POST / HTTP/1.1\r\nHost: a.localhost\r\nContent-Length:\r\n\r\n", 400},
	{"a length beyond int64", "POST / HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: 9223372036854775808\r\n\r\n", 400},
	{"a negative length", "POST / HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: -1\r\n\r\n", 400},
	{"length and chunked", "POST / HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"chunked and length", "POST / HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400},
	{"chunked twice", "POST / HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"chunked, then identity", "POST / HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400},
	{"two codings", "POST / HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
	{"xchunked", "POST / HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501},
	{"quoted chunked", "POST / HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 501},
	{"a vertical tab before chunked", "POST / HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400},
	{"a space before the colon", "POST / HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
	{"a tab before the colon", "POST / HTTP/1.1\r\nHost: a.localhost\r\nContent-Length\t: 4\r\n\r\nabcd", 400},
	{"chunked in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"a folded field", "GET / HTTP/1.1\r\nHost: a.localhost\r\nX-A: b\r\n c\r\n\r\n", 400},
	{"a folded first field", "GET / HTTP/1.1\r\n Host: a.localhost\r\n\r\n", 400},
	{"lines ended by LF", "GET / HTTP/1.1\nHost: a.localhost\n\n", 400},
	{"one line ended by LF", "GET / HTTP/1.1\r\nHost: a.localhost\r\nX-A: b\nTransfer-Encoding: chunked\r\n\r\n", 400},
	{"the last line ended by LF", "GET / HTTP/1.1\r\nHost: a.localhost\r\n\n", 400},
	{"CR in a value", "GET / HTTP/1.1\r\nHost: a.localhost\r\nX-A: b\rX-B: c\r\n\r\n", 400},
	{"NUL in a value", "GET / HTTP/1.1\r\nHost: a.localhost\r\nX-A: b\x00c\r\n\r\n", 400},
	{"NUL in a name", "GET / HTTP/1.1\r\nHost: a.localhost\r\nX\x00A: b\r\n\r\n", 400},
	{"no colon", "GET / HTTP/1.1\r\nHost: a.localhost\r\nnonsense\r\n\r\n", 400},
	{"no name", "GET / HTTP/1.1\r\nHost: a.localhost\r\n: b\r\n\r\n", 400},
	{"no Host", "GET / HTTP/1.1\r\n\r\n", 400},
	{"two Hosts", "GET / HTTP/1.1\r\nHost: a.localhost\r\nHost: b.localhost\r\n\r\n", 400},
	{"two equal Hosts", "GET / HTTP/1.1\r\nHost: a.localhost\r\nhost: a.localhost\r\n\r\n", 400},
	{"a Host with a path", "GET / HTTP/1.1\r\nHost: a.localhost/x\r\n\r\n", 400},
	{"a Host with user information", "GET / HTTP/1.1\r\nHost: x@a.localhost\r\n\r\n", 400},
	{"a Host with a bad port", "GET / HTTP/1.1\r\nHost: a.localhost:80x\r\n\r\n", 400},
	{"an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400},
	{"absolute form against Host", "GET http://b.localhost/ HTTP/1.1\r\nHost: a.localhost\r\n\r\n", 400},
	{"absolute form with user information", "GET http://x@a.localhost/ HTTP/1.1\r\nHost: a.localhost\r\n\r\n", 400},
	{"another scheme", "GET ftp://a.localhost/ HTTP/1.1\r\nHost: a.localhost\r\n\r\n", 400},
	{"a fragment", "GET /#x HTTP/1.1\r\nHost: a.localhost\r\n\r\n", 400},
	{"a target of words", "GET /a b HTTP/1.1\r\nHost: a.localhost\r\n\r\n", 400},
	{"a relative target", "GET a HTTP/1.1\r\nHost: a.localhost\r\n\r\n", 400},
	{"a bad escape", "GET /%zz HTTP/1.1\r\nHost: a.localhost\r\n\r\n", 400},
	{"DEL in the target", "GET /\x7f HTTP/1.1\r\nHost: a.localhost\r\n\r\n", 400},
	{"a method that is no token", "GE(T / HTTP/1.1\r\nHost: a.localhost\r\n\r\n", 400},
	{"no version", "GET /\r\nHost: a.localhost\r\n\r\n", 400},
	{"version 2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
	{"version 1.2", "GET / HTTP/1.2\r\nHost: a.localhost\r\n\r\n", 505},
	{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
	{"CONNECT", "CONNECT a.localhost:443 HTTP/1.1\r\nHost: a.localhost:443\r\n\r\n", 501},
	{"TRACE", "TRACE / HTTP/1.1\r\nHost: a.localhost\r\n\r\n", 501},
	{"an unknown expectation", "GET / HTTP/1.1\r\nHost: a.localhost\r\nExpect: the-unexpected\r\n\r\n", 417},
	{"a long target", "GET /" + strings.Repeat("a", 16<<10) + " HTTP/1.1\r\nHost: a.localhost\r\n\r\n", 414},
	{"a target without end", "GET /" + strings.Repeat("a", 100<<10), 414},
	{"a long field", "GET / HTTP/1.1\r\nHost: a.localhost\r\nX-A: " + strings.Repeat("a", 64<<10) + "\r\n\r\n", 431},
	{"a field without end", "GET / HTTP/1.1\r\nHost: a.localhost\r\nX-A: " + strings.Repeat("a", 100<<10), 431},
	{"many fields", "GET / HTTP/1.1\r\nHost: a.localhost\r\n" + strings.Repeat("X-A: b\r\n", 129) + "\r\n", 431},
	{"a chunk size of words", "POST /upload HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n", 400},
	{"a signed chunk size", "POST /upload HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n", 400},
	{"a chunk size with 0x", "POST /upload HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", 400},
	{"a chunk size beyond uint64", "POST /upload HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n", 400},
	{"a chunk longer than its size", "POST /upload HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n", 400},
	{"a chunk size ended by LF", "POST /upload HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", 400},
	{"a space before a chunk size", "POST /upload HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n", 400},
	{"LF in a chunk extension", "POST /upload HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n", 400},
	{"endless chunk extensions", "POST /upload HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1;"+strings.Repeat("e", 100)+"\r\nx\r\n", 100) + "0\r\n\r\n", 400},
	{"a folded trailer", "POST /upload HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n z\r\n\r\n", 400},
}

const smuggled = "GET /info?smuggled HTTP/1.1\r\nHost: a.localhost\r\n\r\n"

func TestHostileHeadsAreRefused(t *testing.T) {
	f := newFarm(t, nil)
	f.request("GET", "/info", nil)
	for _, c := range hostile {
		t.Run(c.name, func(t *testing.T) {
			// Whole, and in pieces that split lines and line ends.
			for _, step := range []int{1 << 20, 7, 1} {
				if step == 1 && len(c.send) > 4<<10 {
					continue
				}
				status, id, outcome, rest := f.raw(t, c.send+smuggled, step)
				if status != c.status {
					t.Fatalf("in steps of %d: answered %d, want %d", step, status, c.status)
				}
				if len(id) != 24 || outcome == "" {
					t.Errorf("request id %q, outcome %q", id, outcome)
				}
				if strings.Contains(rest, "smuggled") || strings.Contains(rest, "HTTP/1.1 2") {
					t.Errorf("the request behind it was answered: %q", rest)
				}
			}
		})
	}
	if resp, _ := f.request("GET", "/info", nil); resp.StatusCode != 200 {
		t.Errorf("after all that: %d", resp.StatusCode)
	}
}

// raw sends bytes in steps and returns the first answer and what follows it.
func (f *farm) raw(t *testing.T, send string, step int) (status int, id, outcome, rest string) {
	t.Helper()
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	go func() {
		for s := send; len(s) > 0; {
			n := min(step, len(s))
			if _, err := io.WriteString(c, s[:n]); err != nil {
				return
			}
			s = s[n:]
		}
	}()
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	io.Copy(io.Discard, resp.Body)
	tail, _ := io.ReadAll(br)
	return resp.StatusCode, resp.Header.Get(headerRequestID), resp.Header.Get(headerOutcome), string(tail)
}

func TestLawfulOdditiesPass(t *testing.T) {
	f := newFarm(t, nil)
	for name, c := range map[string]struct{ send, want string }{
		"absolute form":              {"GET http://A.localhost/info?x HTTP/1.1\r\nHost: a.localhost\r\nConnection: close\r\n\r\n", "GET http://A.localhost/info?x\n"},
		"absolute form without path": {"OPTIONS http://a.localhost?q HTTP/1.1\r\nHost: a.localhost\r\nConnection: close\r\n\r\n", ""},
		"raw UTF-8":                  {"GET /info?é HTTP/1.1\r\nHost: a.localhost\r\nConnection: close\r\n\r\n", "GET http://a.localhost/info?%C3%A9\n"},
		"OPTIONS *":                  {"OPTIONS * HTTP/1.1\r\nHost: a.localhost\r\nConnection: close\r\n\r\n", ""},
		"an empty line before":       {"POST /upload HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: 2\r\n\r\nxy\r\nGET /info HTTP/1.1\r\nHost: a.localhost\r\nConnection: close\r\n\r\n", "GET http://a.localhost/info\n"},
		"HTTP/1.0 with Host":         {"GET /info HTTP/1.0\r\nHost: a.localhost\r\n\r\n", "GET http://a.localhost/info\n"},
		"chunks and a trailer":       {"POST /upload HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: Chunked\r\nConnection: close\r\n\r\n5;ext=\"v\"\r\nhello\r\n1\r\n!\r\n000\r\nX-T: u\r\n\r\n", "6"},
		"spaces round a value":       {"GET /info HTTP/1.1\r\nHost: \t a.localhost \t\r\nConnection: close\r\n\r\n", "GET http://a.localhost/info\n"},
		"pipelining":                 {"POST /upload HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: 3\r\n\r\nabcPOST /upload HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\nGET /info?last HTTP/1.1\r\nHost: a.localhost\r\nConnection: close\r\n\r\n", "GET http://a.localhost/info?last\n"},
	} {
		for _, step := range []int{1 << 20, 1} {
			cn := f.dial()
			go func() {
				for s := c.send; len(s) > 0; {
					n := min(step, len(s))
					io.WriteString(cn, s[:n])
					s = s[n:]
				}
			}()
			b, _ := io.ReadAll(cn)
			if !bytes.HasPrefix(b, []byte("HTTP/1.")) || !strings.Contains(string(b), " 200 OK\r\n") || !strings.Contains(string(b), c.want) {
				t.Errorf("%s, in steps of %d: %q", name, step, b)
			}
		}
	}
}

// An answer that comes before the whole body reaches the client, and the rest of the body is not
// read as a request.
func TestEarlyAnswerToAnUpload(t *testing.T) {
	f := newFarm(t, nil)
	body := strings.Repeat(smuggled, 100_000) // 5 MB of requests
	c := f.dial()
	go fmt.Fprintf(c, "POST /early HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 413 || string(b) != "too much" {
		t.Errorf("%d %q", resp.StatusCode, b)
	}
	if rest, _ := io.ReadAll(br); len(rest) > 0 {
		t.Errorf("more answers: %.200q", rest)
	}
	// A small one is read to its end and the connection lives.
	c = f.dial()
	fmt.Fprintf(c, "POST /early HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	br = bufio.NewReader(c)
	for i := range 2 {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		io.Copy(io.Discard, resp.Body)
		fmt.Fprint(c, "GET /info HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
	}
}

func TestSlowHeadIsCutOff(t *testing.T) {
	f := newFarm(t, func(o *Options, _ *placement.Options) { o.HeadTime = 200 * time.Millisecond })
	c := f.dial()
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a.loc")
	if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) { // of dial
		t.Error("it was kept")
	}
}

// Clients dial ahead. A connection that nothing was sent on yet is as good as one between two requests:
// closed early, it would take the request with it that was just being sent.
func TestUnusedConnectionsAreKept(t *testing.T) {
	f := newFarm(t, func(o *Options, _ *placement.Options) { o.HeadTime = 50 * time.Millisecond })
	c := f.dial()
	time.Sleep(500 * time.Millisecond)
	for range 2 {
		fmt.Fprint(c, "GET /info HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v %v", resp, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
	// What has begun has the time that a head has.
	c = f.dial()
	time.Sleep(200 * time.Millisecond)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a.loc")
	if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) { // of dial
		t.Error("it was kept")
	}
}

func TestTooManyConnections(t *testing.T) {
	f := newFarm(t, func(o *Options, _ *placement.Options) { o.MaxConns = 2 })
	for range 2 { // with a request each: idle ones would give way
		fmt.Fprint(f.dial(), "GET /hang HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
	}
	f.running(2)
	resp, err := http.ReadResponse(bufio.NewReader(f.dial()), nil)
	if err != nil || resp.StatusCode != 429 || resp.Header.Get(headerRequestID) == "" {
		t.Errorf("%v %v", resp, err)
	}
}

// The strict reader must never be fooled about where a message ends: whatever it lets through,
// net/http's own parser must read the same number of messages with the same bodies.
func FuzzStrictReaderAgreesWithNetHTTP(f *testing.F) {
	for _, c := range hostile {
		if len(c.send) < 4<<10 {
			f.Add([]byte(c.send+smuggled), 3)
		}
	}
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"+smuggled), 1)
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"+smuggled), 1000)
	f.Fuzz(func(t *testing.T, in []byte, step int) {
		w := limits.DefaultWire()
		step = max(1, min(step, len(in)+1))
		one, many := newStrictReader(&w), newStrictReader(&w)
		n, m := one.feed(in)
		if n > len(in) || (m == nil) != (n == len(in)) {
			t.Fatalf("took %d of %d, %v", n, len(in), m)
		}
		// In pieces it comes to the same verdict.
		var m2 *malformed
		for rest := in; len(rest) > 0 && m2 == nil; {
			p := rest[:min(step, len(rest))]
			rest = rest[len(p):]
			_, m2 = many.feed(p)
		}
		if (m == nil) != (m2 == nil) || m != nil && m.status != m2.status {
			t.Fatalf("whole: %v, in steps of %d: %v", m, step, m2)
		}
		if m != nil {
			return
		}
		// Count the heads the strict reader saw by feeding net/http the same bytes.
		br := bufio.NewReader(bytes.NewReader(in))
		heads := 0
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				break
			}
			heads++
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				break
			}
		}
		if seen := countHeads(in, &w); heads > seen {
			t.Fatalf("net/http read %d requests where the strict reader saw %d", heads, seen)
		}
	})
}

// countHeads counts the message heads by the strict reader's own state, byte by byte.
func countHeads(in []byte, w *limits.Wire) (n int) {
	s := newStrictReader(w)
	for i := range in {
		before := s.state
		s.feed(in[i : i+1])
		if before == readFields && s.state != readFields {
			n++
		}
	}
	return n
}
