package gateway

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/workerside"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/launcher/orders"

	"golang.org/x/sys/unix"
)

// socket is what scripts do with messages: they are acknowledged at once, whatever comes of them.
func (s *script) socket(d *workerside.Data, id uint64, st *scriptStream, fr gen.Frame) error {
	w := limits.DefaultWire()
	m, err := ipc.DecodeMessage(fr, &w)
	if err != nil {
		return err
	}
	if m.Opcode != ipc.OpClose {
		d.Begin().Window(id, uint32(ipc.MessageCost(len(m.Data))))
		d.End()
		return nil
	}
	code, reason := m.CloseStatus()
	st.query.Set("heard", fmt.Sprint(code, " ", reason))
	answer := func(code uint16, say string) {
		b := d.Begin()
		if say != "" {
			b.Message(id, &ipc.Message{Opcode: ipc.OpText, Last: true, Data: []byte(say)})
		}
		b.Message(id, ipc.CloseMessage(code, ""))
		b.Done(id, &ipc.Done{Outcome: gen.Outcome_ok})
		d.End()
		d.Flush()
	}
	switch st.query.Get("do") {
	case "late":
		say := st.query.Get("heard")
		time.AfterFunc(1500*time.Millisecond, func() { answer(code, say) })
	case "own":
		answer(4001, "mine")
	case "never":
	case "die":
		s.enter(3, st.open.Tenant, id, unix.SIGSEGV)
		s.die(orders.Exit{Code: -1, Signal: unix.SIGSEGV, Syscall: -1})
	}
	return nil
}

// closingFrame writes a frame whose mask is not zero.
func closingFrame(c io.Writer, first byte, p string) {
	b := append([]byte{first, 0x80 | byte(len(p))}, 1, 2, 3, 4)
	for i := range len(p) {
		b = append(b, p[i]^byte(i%4+1))
	}
	c.Write(b)
}

// The gateway answers a client's close when the worker has had its say to what came before it, and in good
// time if the worker says nothing.
func TestCloseWaitsForTheWorker(t *testing.T) {
	f := newFarm(t, nil)
	for _, c := range []struct {
		do, send string // payload of the client's close
		want     []string
		wait     time.Duration // at least
	}{
		{"late", "\x03\xe9bye", []string{"text 1001 bye", "close 1001"}, time.Second},
		{"late", "", []string{"text 1005 ", "close 1005"}, time.Second},
		{"own", "\x03\xe8", []string{"text mine", "close 4001"}, 0},
		{"never", "\x03\xe8", []string{"close 1000"}, time.Second},
		{"die", "\x03\xe8", []string{"close 1011"}, 0},
		{"own", "x", []string{"close 1002"}, 0},
		{"own", "\x03\xe8\xff", []string{"close 1007"}, 0},
	} {
		t.Run(fmt.Sprintf("%s %q", c.do, c.send), func(t *testing.T) {
			conn, err := net.Dial("tcp", f.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(60 * time.Second))
			fmt.Fprintf(conn, "GET /socket?do=%s HTTP/1.1\r\nHost: a.localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", c.do)
			br := bufio.NewReader(conn)
			if r, err := http.ReadResponse(br, nil); err != nil || r.StatusCode != 101 {
				t.Fatalf("%v, %+v", err, r)
			}
			begin := time.Now()
			closingFrame(conn, 0x81, "before")
			closingFrame(conn, 0x88, c.send)
			for _, want := range c.want {
				var h [2]byte
				if _, err := io.ReadFull(br, h[:]); err != nil {
					t.Fatalf("instead of %q: %v", want, err)
				}
				p := make([]byte, h[1])
				io.ReadFull(br, p)
				got := "text " + string(p)
				if h[0] == 0x88 {
					got = "close 1005"
					if len(p) >= 2 {
						got = "close " + strconv.Itoa(int(binary.BigEndian.Uint16(p)))
					}
				}
				if got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
			if took := time.Since(begin); took < c.wait {
				t.Errorf("closed after %v", took)
			}
			if _, err := br.ReadByte(); err != io.EOF {
				t.Errorf("after the close: %v", err)
			}
		})
	}
}
