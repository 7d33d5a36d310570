package e2e

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bulkhead/securitytests/hosttest"

	"github.com/coder/websocket"
)

// wsConn is a client that writes the frames it is told to, right or wrong (RFC 6455 §5.2).
type wsConn struct {
	t    testing.TB
	conn net.Conn
	br   *bufio.Reader
	resp *http.Response
}

type wsFrame struct {
	fin  bool
	op   byte
	data []byte
}

// dialWS asks a tenant for a WebSocket.
func dialWS(t testing.TB, h *hosttest.Host, tenant string, header ...string) *wsConn {
	t.Helper()
	c, err := net.Dial("tcp", h.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(60 * time.Second))
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: %s.localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n%s\r\n", tenant, key, strings.Join(header, ""))
	w := &wsConn{t: t, conn: c, br: bufio.NewReader(c)}
	if w.resp, err = http.ReadResponse(w.br, nil); err != nil {
		t.Fatal(err)
	}
	if w.resp.StatusCode == 101 {
		sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		if got := w.resp.Header.Get("Sec-WebSocket-Accept"); got != base64.StdEncoding.EncodeToString(sum[:]) {
			t.Fatalf("Sec-WebSocket-Accept %q", got)
		}
	}
	return w
}

// frame writes one; first is FIN, RSV and opcode as they go on the wire.
func (w *wsConn) frame(first byte, data []byte) {
	head := []byte{first}
	switch n := len(data); {
	case n < 126:
		head = append(head, 0x80|byte(n))
	case n < 1<<16:
		head = binary.BigEndian.AppendUint16(append(head, 0x80|126), uint16(n))
	default:
		head = binary.BigEndian.AppendUint64(append(head, 0x80|127), uint64(n))
	}
	var mask [4]byte
	rand.Read(mask[:])
	head = append(head, mask[:]...)
	out := make([]byte, len(data))
	for i, b := range data {
		out[i] = b ^ mask[i%4]
	}
	w.conn.Write(append(head, out...))
}

func (w *wsConn) next() (wsFrame, error) {
	var h [2]byte
	if _, err := io.ReadFull(w.br, h[:]); err != nil {
		return wsFrame{}, err
	}
	n := uint64(h[1])
	if n&0x80 != 0 {
		return wsFrame{}, fmt.Errorf("a masked frame from a server")
	}
	var ext [8]byte
	switch n {
	case 126:
		io.ReadFull(w.br, ext[:2])
		n = uint64(binary.BigEndian.Uint16(ext[:2]))
	case 127:
		io.ReadFull(w.br, ext[:8])
		n = binary.BigEndian.Uint64(ext[:])
	}
	data := make([]byte, n)
	_, err := io.ReadFull(w.br, data)
	return wsFrame{fin: h[0]&0x80 != 0, op: h[0] & 15, data: data}, err
}

// message reads a whole message; a close gives op 8.
func (w *wsConn) message() (op byte, data []byte, err error) {
	for {
		f, err := w.next()
		if err != nil {
			return 0, nil, err
		}
		if f.op >= 8 {
			return f.op, f.data, nil
		}
		if f.op != 0 {
			op = f.op
		}
		data = append(data, f.data...)
		if f.fin {
			return op, data, nil
		}
	}
}

// closeCode reads until the close and returns its code; 0: the connection ended without one.
func (w *wsConn) closeCode() int {
	for {
		op, data, err := w.message()
		switch {
		case err != nil:
			return 0
		case op == 8 && len(data) >= 2:
			return int(binary.BigEndian.Uint16(data))
		case op == 8:
			return 1005
		}
	}
}

const echo = `export default { fetch(request) {
	if (request.headers.get("upgrade") !== "websocket") return new Response("plain");
	const [client, server] = Object.values(new WebSocketPair());
	server.accept();
	server.addEventListener("message", (e) => {
		if (e.data === "burn") for (;;);
		if (e.data === "crash") { "x".repeat(2 ** 28).split(""); return; }
		if (e.data === "quit") { server.close(4001, "as asked"); return; }
		if (e.data === "never") { server.send("x".repeat(1 << 20)); return; }
		server.send(e.data);
	});
	return new Response(null, { status: 101, webSocket: client, headers: request.headers.get("sec-websocket-protocol") ? { "sec-websocket-protocol": "chat" } : {} });
} };`

// The cases of the Autobahn suite by content: each row is what a client sends and what must come back.
// Their sections: 1 framing, 2 pings, 3 reserved bits, 4 opcodes, 5 fragmentation, 6 UTF-8, 7 closing,
// 9 large messages.
func TestWebSocketFraming(t *testing.T) {
	for _, rootless := range []bool{false, true} {
		t.Run(fmt.Sprintf("rootless=%v", rootless), func(t *testing.T) { webSocketFraming(t, rootless) })
	}
}

func webSocketFraming(t *testing.T, rootless bool) {
	h := hosttest.Start(t, hosttest.Options{Quiet: true, Rootless: rootless, Tenants: map[string]hosttest.Files{"echo": hosttest.Worker(echo)}})
	type frame struct {
		first byte
		data  string
	}
	type want struct {
		op   byte
		data string
		code int // of the close; 0: none is awaited
	}
	long := strings.Repeat("*", 65535)
	for _, c := range []struct {
		name string
		send []frame
		want []want
	}{
		{"1.1.1 empty text", []frame{{0x81, ""}}, []want{{op: 1}}},
		{"1.1.2 text of 125", []frame{{0x81, long[:125]}}, []want{{op: 1, data: long[:125]}}},
		{"1.1.3 text of 126", []frame{{0x81, long[:126]}}, []want{{op: 1, data: long[:126]}}},
		{"1.1.6 text of 65535", []frame{{0x81, long}}, []want{{op: 1, data: long}}},
		{"1.1.7 text of 65536", []frame{{0x81, long + "*"}}, []want{{op: 1, data: long + "*"}}},
		{"1.2.1 empty binary", []frame{{0x82, ""}}, []want{{op: 2}}},
		{"1.2.6 binary of 65535", []frame{{0x82, long}}, []want{{op: 2, data: long}}},
		{"2.1 empty ping", []frame{{0x89, ""}}, []want{{op: 10}}},
		{"2.2 ping with text", []frame{{0x89, "Hello, world!"}}, []want{{op: 10, data: "Hello, world!"}}},
		{"2.4 ping of 125", []frame{{0x89, long[:125]}}, []want{{op: 10, data: long[:125]}}},
		{"2.5 ping of 126", []frame{{0x89, long[:126]}}, []want{{code: 1002}}},
		{"2.7 unsolicited pong", []frame{{0x8a, "x"}, {0x81, "after"}}, []want{{op: 1, data: "after"}}},
		{"2.10 ten pings", []frame{{0x89, "0"}, {0x89, "1"}, {0x89, "2"}}, []want{{op: 10, data: "0"}, {op: 10, data: "1"}, {op: 10, data: "2"}}},
		{"3.1 RSV3", []frame{{0x91, "x"}}, []want{{code: 1002}}},
		{"3.2 RSV2", []frame{{0xa1, "x"}}, []want{{code: 1002}}},
		{"3.3 RSV1", []frame{{0xc1, "x"}}, []want{{code: 1002}}},
		{"3.6 RSV of a ping", []frame{{0xf9, ""}}, []want{{code: 1002}}},
		{"4.1.1 opcode 3", []frame{{0x83, ""}}, []want{{code: 1002}}},
		{"4.1.5 opcode 7", []frame{{0x87, "x"}}, []want{{code: 1002}}},
		{"4.2.1 opcode 11", []frame{{0x8b, ""}}, []want{{code: 1002}}},
		{"4.2.5 opcode 15", []frame{{0x8f, "x"}}, []want{{code: 1002}}},
		{"5.1 fragmented ping", []frame{{0x09, "a"}, {0x80, "b"}}, []want{{code: 1002}}},
		{"5.3 two fragments", []frame{{0x01, "frag"}, {0x80, "ment"}}, []want{{op: 1, data: "fragment"}}},
		{"5.6 a ping between fragments", []frame{{0x01, "frag"}, {0x89, "ping"}, {0x80, "ment"}}, []want{{op: 10, data: "ping"}, {op: 1, data: "fragment"}}},
		{"5.9 continuation of nothing", []frame{{0x80, "x"}}, []want{{code: 1002}}},
		{"5.12 continuation of nothing, not final", []frame{{0x00, "x"}}, []want{{code: 1002}}},
		{"5.15 text within a text", []frame{{0x01, "a"}, {0x81, "b"}}, []want{{code: 1002}}},
		{"5.19 five fragments and pings", []frame{{0x01, "1"}, {0x00, "2"}, {0x89, "p"}, {0x00, "3"}, {0x00, "4"}, {0x89, "q"}, {0x80, "5"}},
			[]want{{op: 10, data: "p"}, {op: 10, data: "q"}, {op: 1, data: "12345"}}},
		{"5.x empty fragments", []frame{{0x02, ""}, {0x00, ""}, {0x80, ""}}, []want{{op: 2}}},
		{"6.1.2 text of empty fragments", []frame{{0x01, ""}, {0x00, ""}, {0x80, ""}}, []want{{op: 1}}},
		{"6.2.1 UTF-8", []frame{{0x81, "Hello-µ@ßöäüàá-UTF-8!!"}}, []want{{op: 1, data: "Hello-µ@ßöäüàá-UTF-8!!"}}},
		{"6.2.3 UTF-8 cut between bytes", []frame{{0x01, "\xce"}, {0x00, "\xba\xe1"}, {0x00, "\xbd"}, {0x80, "\xb9"}}, []want{{op: 1, data: "\u03ba\u1f79"}}},
		{"6.3.1 invalid UTF-8", []frame{{0x81, "\xce\xba\xed\xa0\x80edited"}}, []want{{code: 1007}}},
		{"6.4.1 invalid UTF-8 over fragments", []frame{{0x01, "\xce\xba\xe1\xbd\xb9"}, {0x00, "\xf4\x90\x80\x80"}, {0x80, "edited"}}, []want{{code: 1007}}},
		{"6.6.1 a character cut off", []frame{{0x81, "\xce"}}, []want{{code: 1007}}},
		{"6.6.9 cut off over fragments", []frame{{0x01, "\xe1"}, {0x80, "\xbd"}}, []want{{code: 1007}}},
		{"6.10.3 overlong", []frame{{0x81, "\xc0\xaf"}}, []want{{code: 1007}}},
		{"6.21.1 surrogates", []frame{{0x81, "\xed\xa0\x80"}}, []want{{code: 1007}}},
		{"6.x a BOM stays", []frame{{0x81, "\ufeffx"}}, []want{{op: 1, data: "\ufeffx"}}},
		{"7.1.1 a message and a close", []frame{{0x81, "x"}, {0x88, "\x03\xe8"}}, []want{{op: 1, data: "x"}, {code: 1000}}},
		{"7.1.x a message larger than the window and a close", []frame{{0x82, long + long + long + long + long + long + long + long}, {0x88, "\x03\xe8"}},
			[]want{{op: 2, data: long + long + long + long + long + long + long + long}, {code: 1000}}},
		{"7.1.2 two closes", []frame{{0x88, "\x03\xe8"}, {0x88, "\x03\xe8"}}, []want{{code: 1000}}},
		{"7.1.3 ping after close", []frame{{0x88, "\x03\xe8"}, {0x89, "x"}}, []want{{code: 1000}}},
		{"7.3.1 empty close", []frame{{0x88, ""}}, []want{{code: 1005}}},
		{"7.3.2 close of one byte", []frame{{0x88, "x"}}, []want{{code: 1002}}},
		{"7.3.4 close with a reason", []frame{{0x88, "\x03\xe8Hello"}}, []want{{code: 1000}}},
		{"7.5.1 a reason that is not UTF-8", []frame{{0x88, "\x03\xe8\xce\xba\xed\xa0\x80"}}, []want{{code: 1007}}},
		{"7.3.6 reason of 124", []frame{{0x88, "\x03\xe8" + long[:124]}}, []want{{code: 1002}}},
		{"7.7.1 code 1001", []frame{{0x88, "\x03\xe9"}}, []want{{code: 1001}}},
		{"7.7.13 code 4999", []frame{{0x88, "\x13\x87"}}, []want{{code: 4999}}},
		{"7.9.1 code 0", []frame{{0x88, "\x00\x00"}}, []want{{code: 1002}}},
		{"7.9.3 code 1004", []frame{{0x88, "\x03\xec"}}, []want{{code: 1002}}},
		{"7.9.4 code 1005", []frame{{0x88, "\x03\xed"}}, []want{{code: 1002}}},
		{"7.9.5 code 1006", []frame{{0x88, "\x03\xee"}}, []want{{code: 1002}}},
		{"7.9.9 code 2999", []frame{{0x88, "\x0b\xb7"}}, []want{{code: 1002}}},
		{"9.1.3 a mebibyte of text", []frame{{0x81, strings.Repeat("*", 1<<20)}}, []want{{op: 1, data: strings.Repeat("*", 1<<20)}}},
		{"9.2 a mebibyte in fragments", []frame{{0x02, strings.Repeat("a", 1<<19)}, {0x80, strings.Repeat("b", 1<<19)}}, []want{{op: 2, data: strings.Repeat("a", 1<<19) + strings.Repeat("b", 1<<19)}}},
		{"a byte more than the limit", []frame{{0x82, strings.Repeat("*", 1<<20+1)}}, []want{{code: 1009}}},
		{"the worker closes", []frame{{0x81, "quit"}}, []want{{code: 4001}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := dialWS(t, h, "echo")
			if w.resp.StatusCode != 101 {
				t.Fatalf("status %d", w.resp.StatusCode)
			}
			for _, f := range c.send {
				w.frame(f.first, []byte(f.data))
			}
			for _, want := range c.want {
				if want.code != 0 {
					if got := w.closeCode(); got != want.code {
						t.Errorf("closed with %d, want %d", got, want.code)
					}
					continue
				}
				op, data, err := w.message()
				if err != nil || op != want.op || string(data) != want.data {
					t.Fatalf("got opcode %d, %d bytes %.40q, %v; want opcode %d, %d bytes %.40q", op, len(data), data, err, want.op, len(want.data), want.data)
				}
			}
		})
	}
	t.Run("a frame without a mask", func(t *testing.T) {
		w := dialWS(t, h, "echo")
		w.conn.Write([]byte{0x81, 1, 'x'})
		if got := w.closeCode(); got != 1002 {
			t.Errorf("closed with %d", got)
		}
	})
	t.Run("bytes one by one", func(t *testing.T) {
		w := dialWS(t, h, "echo")
		for _, b := range []byte{0x81, 0x83, 0, 0, 0, 0, 'a', 'b', 'c'} {
			w.conn.Write([]byte{b})
			time.Sleep(time.Millisecond)
		}
		if op, data, err := w.message(); op != 1 || string(data) != "abc" || err != nil {
			t.Errorf("%d %q %v", op, data, err)
		}
	})
	t.Run("a protocol", func(t *testing.T) {
		if got := dialWS(t, h, "echo", "Sec-WebSocket-Protocol: other, chat\r\n").resp.Header.Get("Sec-WebSocket-Protocol"); got != "chat" {
			t.Errorf("protocol %q", got)
		}
	})
	t.Run("no upgrade asked for", func(t *testing.T) {
		if a := h.Get("echo", "/ws"); a.Body != "plain" {
			t.Errorf("%d %s", a.Status, a.Body)
		}
	})
	if in := h.Incidents(); len(in) > 0 {
		t.Errorf("incidents: %+v", in)
	}
}

// Connections live through what happens to others, and end with a code that says what happened to their own
// worker.
func TestWebSocketLives(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{Quiet: true, Tenants: map[string]hosttest.Files{
		"echo": hosttest.Worker(echo), "burns": hosttest.Worker(echo), "crashes": hosttest.Worker(echo), "reloads": hosttest.Worker(echo), "other": hosttest.Worker(echo),
	}})
	keep := dialWS(t, h, "echo")
	alive := func(what string) {
		t.Helper()
		keep.frame(0x81, []byte(what))
		if op, data, err := keep.message(); op != 1 || string(data) != what || err != nil {
			t.Fatalf("after %s: opcode %d, %q, %v", what, op, data, err)
		}
	}
	alive("nothing")
	other := dialWS(t, h, "burns")
	for range 40 { // each message has a CPU budget of its own
		other.frame(0x81, bytes.Repeat([]byte("x"), 1000))
		if op, _, err := other.message(); op != 1 || err != nil {
			t.Fatal(op, err)
		}
	}
	other.frame(0x81, []byte("burn"))
	if code := other.closeCode(); code != 1011 {
		t.Errorf("over its CPU limit: closed with %d, want 1011", code)
	}
	alive("a neighbour over its limit")
	reloads := dialWS(t, h, "reloads")
	h.Put("reloads", hosttest.Worker(echo+"\nexport const version = 2;"))
	if code := reloads.closeCode(); code != 1012 {
		t.Errorf("reloaded: closed with %d, want 1012", code)
	}
	alive("a neighbour's reload")
	// A client that does not read is held up, and holds up nobody.
	slow := dialWS(t, h, "other")
	for range 60 {
		slow.frame(0x81, []byte("never"))
	}
	alive("a client that does not read")
	for _, s := range h.Shards() {
		for _, tenant := range s.Tenants {
			if tenant == "crashes" {
				t.Fatal("it runs already")
			}
		}
	}
	crashes := dialWS(t, h, "crashes")
	for _, s := range h.Shards() { // not where the kept one is
		mine, its := false, false
		for _, tenant := range s.Tenants {
			mine, its = mine || tenant == "echo", its || tenant == "crashes"
		}
		if its && !mine {
			syscall.Kill(s.PID, syscall.SIGKILL)
			if code := crashes.closeCode(); code != 1011 {
				t.Errorf("its process died: closed with %d, want 1011", code)
			}
		}
	}
	alive("a death elsewhere")
	done := make(chan int)
	go func() { done <- keep.closeCode() }()
	h.Signal(syscall.SIGTERM)
	select {
	case code := <-done:
		if code != 1001 {
			t.Errorf("the host shut down: closed with %d, want 1001", code)
		}
	case <-time.After(30 * time.Second):
		t.Error("the host's end did not close the WebSocket")
	}
	if err := h.Wait(30 * time.Second); err != nil {
		t.Error(err)
	}
}

// Many are open at once over many tenants; the memory of each is printed.
func TestManyWebSockets(t *testing.T) {
	const tenants, each = 20, 25
	files := map[string]hosttest.Files{}
	for i := range tenants {
		files[fmt.Sprintf("t%d", i)] = hosttest.Worker(echo)
	}
	h := hosttest.Start(t, hosttest.Options{Quiet: true, Tenants: files})
	for i := range tenants {
		h.Get(fmt.Sprintf("t%d", i), "/")
	}
	before := workersRSS(h)
	var mu sync.Mutex
	var all []*wsConn
	var wg sync.WaitGroup
	for i := range tenants {
		wg.Go(func() {
			for range each {
				w := dialWS(t, h, fmt.Sprintf("t%d", i))
				mu.Lock()
				all = append(all, w)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d open: %.1f KiB of the workers' memory for each", len(all), float64(int64(workersRSS(h))-int64(before))/1024/float64(len(all)))
	for round := range 3 {
		for i, w := range all {
			wg.Go(func() {
				text := fmt.Sprintf("%d/%d", i, round)
				w.frame(0x81, []byte(text))
				if op, data, err := w.message(); op != 1 || string(data) != text || err != nil {
					t.Errorf("socket %d, round %d: opcode %d, %q, %v", i, round, op, data, err)
				}
			})
		}
		wg.Wait()
	}
	for _, w := range all {
		w.frame(0x88, []byte{3, 0xe8})
	}
	for _, w := range all {
		if code := w.closeCode(); code != 1000 {
			t.Errorf("closed with %d", code)
		}
	}
	if in := h.Incidents(); len(in) > 0 {
		t.Errorf("incidents: %+v", in)
	}
}

// A worker's own WebSockets: to an upstream, and an upstream's passed on to its client.
func TestWebSocketToUpstream(t *testing.T) {
	up := upstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/plain" {
			http.Error(w, "no", http.StatusTeapot)
			return
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat"}, InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 20)
		for {
			typ, data, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if string(data) == "close" {
				c.Close(4002, "as asked")
				return
			}
			c.Write(r.Context(), typ, append([]byte("up: "), data...))
		}
	}))
	h := hosttest.Start(t, hosttest.Options{Quiet: true, Policy: "egress: {allow: [127.0.0.2]}\n", Tenants: map[string]hosttest.Files{
		"a": hosttest.Worker(`export default { async fetch(request) {
			const u = new URL(request.url), to = u.searchParams.get("u");
			if (request.headers.get("upgrade") === "websocket") return new Response(null, { status: 101, webSocket: (await fetch("` + up + `/", { headers: { upgrade: "websocket" } })).webSocket });
			try {
				const ws = new WebSocket(to.replace("http", "ws"), u.searchParams.get("p") ?? []);
				return await new Promise((done) => {
					const said = [];
					ws.onopen = () => { said.push(ws.protocol); ws.send("one"); ws.send("x".repeat(500000)); ws.send("close"); };
					ws.onmessage = (e) => said.push(e.data.length > 100 ? e.data.length : e.data);
					ws.onerror = (e) => said.push(e.message);
					ws.onclose = (e) => { said.push(e.code, e.reason); done(Response.json(said)); };
				});
			} catch (e) { return new Response(e.message); }
		} };`),
	}})
	for _, c := range []struct{ path, want string }{
		{"/?u=" + up + "/", `["","up: one",500004,4002,"as asked"]`},
		{"/?p=chat&u=" + up + "/", `["chat","up: one",500004,4002,"as asked"]`},
		{"/?u=" + up + "/plain", `does not speak WebSocket here: it answered with status 418",1006,""]`},
		{"/?u=http://127.0.0.1:1/", `1006,""]`},
		{"/?u=http://169.254.169.254/", `1006,""]`},
	} {
		if a := h.Get("a", c.path); a.Status != 200 || !strings.Contains(a.Body, c.want) {
			t.Errorf("%s: %d %s, want %s", c.path, a.Status, a.Body, c.want)
		}
	}
	w := dialWS(t, h, "a")
	w.frame(0x81, []byte("through"))
	if op, data, err := w.message(); op != 1 || string(data) != "up: through" || err != nil {
		t.Errorf("passed on: %d %q %v", op, data, err)
	}
	w.frame(0x81, []byte("close"))
	if code := w.closeCode(); code != 4002 {
		t.Errorf("the upstream's close arrives as %d", code)
	}
}

// A close is answered when the listeners of the messages before it are done, whoever closed: a client or an upstream.
func TestWebSocketCloseWaits(t *testing.T) {
	// An upstream that says a message and its close at once, and tells what it heard after that.
	heard := make(chan string, 1)
	up := upstream(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		conn, br, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(60 * time.Second))
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n\x81\x05hello\x88\x02\x03\xe8", base64.StdEncoding.EncodeToString(sum[:]))
		said := ""
		for {
			var head [6]byte // short and masked
			if _, err := io.ReadFull(br, head[:]); err != nil {
				heard <- said + " " + err.Error()
				return
			}
			data := make([]byte, head[1]&0x7f)
			if _, err := io.ReadFull(br, data); err != nil {
				heard <- said + " " + err.Error()
				return
			}
			for i := range data {
				data[i] ^= head[2+i%4]
			}
			if head[0]&15 == 8 {
				heard <- fmt.Sprintf("%s closed %x", said, data)
				return
			}
			said += string(data)
		}
	}))
	h := hosttest.Start(t, hosttest.Options{Quiet: true, Policy: "egress: {allow: [127.0.0.2]}\n", Tenants: map[string]hosttest.Files{
		"later": hosttest.Worker(`export default { fetch(request) {
			const [client, server] = Object.values(new WebSocketPair());
			server.accept();
			server.addEventListener("message", async (e) => { await (e.data === "never" ? new Promise(() => {}) : scheduler.wait(300)); server.send("late " + e.data); });
			server.addEventListener("close", () => server.close());
			return new Response(null, { status: 101, webSocket: client });
		} };`),
		"asks": hosttest.Worker(`export default { async fetch() {
			const ws = new WebSocket("` + strings.Replace(up, "http", "ws", 1) + `/");
			ws.addEventListener("message", async (e) => { await scheduler.wait(300); ws.send("late " + e.data); });
			return new Response(await new Promise((done) => { ws.onclose = async (e) => { await scheduler.wait(1000); done(e.code + " " + e.wasClean); }; }));
		} };`),
	}})
	w := dialWS(t, h, "later")
	w.frame(0x81, []byte("x"))
	w.frame(0x88, []byte("\x03\xe8"))
	if op, data, err := w.message(); op != 1 || string(data) != "late x" || err != nil {
		t.Errorf("after the close: %d %q %v", op, data, err)
	}
	if code := w.closeCode(); code != 1005 { // as the worker closes
		t.Errorf("closed with %d", code)
	}
	w = dialWS(t, h, "later")
	w.frame(0x81, []byte("never"))
	w.frame(0x88, []byte("\x03\xe8"))
	if code := w.closeCode(); code != 1005 && code != 1000 { // the worker's timer, or the gateway's a second later
		t.Errorf("a listener that is never done: closed with %d", code)
	}
	if a := h.Get("asks", "/"); a.Body != "1000 true" {
		t.Errorf("asks: %d %s", a.Status, a.Body)
	}
	select {
	case got := <-heard:
		if got != "late hello closed 03e8" {
			t.Errorf("the upstream heard %q", got)
		}
	case <-time.After(30 * time.Second):
		t.Error("the upstream heard nothing")
	}
	if in := h.Incidents(); len(in) > 0 {
		t.Errorf("incidents: %+v", in)
	}
}
