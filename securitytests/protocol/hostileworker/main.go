// Command hostileworker is a worker gone bad, for the protocol suite: it seals itself with the
// production code and answers like a shard, until a request's path tells it which lie to tell the
// gateway. No build that serves tenants contains it.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/url"
	"os"
	"syscall"
	"time"

	"capnproto.org/go/capnp/v3"
	"capnproto.org/go/capnp/v3/rpc"

	"bulkhead/sandboxworker/lockdown"
	"bulkhead/schema/gen"
)

const (
	controlFD = 3
	dataFD    = 4
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "hostileworker:", err)
		os.Exit(1)
	}
}

func run() error {
	for _, fd := range []int{controlFD, dataFD} {
		if err := syscall.SetNonblock(fd, true); err != nil {
			return fmt.Errorf("fd %d: %w", fd, err)
		}
	}
	control, data := os.NewFile(controlFD, "control"), os.NewFile(dataFD, "data")
	time.Sleep(time.Millisecond) // the poller and its timer exist before the seal
	if err := lockdown.Seal(); err != nil {
		return err
	}
	conn := rpc.NewConn(rpc.NewStreamTransport(control), &rpc.Options{BootstrapClient: capnp.Client(gen.Shard_ServerToClient(shard{}))})
	defer conn.Close()
	in := &frames{r: data}
	for {
		f, err := in.next()
		if err != nil {
			return err
		}
		switch f.Which() {
		case gen.Frame_Which_open:
			open, err := f.Open()
			if err != nil {
				return err
			}
			target, err := open.Url()
			if err != nil {
				return err
			}
			u, err := url.Parse(target)
			if err != nil {
				return err
			}
			if err := act(data, u.Path, f.Stream()); err != nil {
				return err
			}
		case gen.Frame_Which_ping:
			n := f.Ping()
			if _, err := data.Write(frame(0, func(f gen.Frame) { f.SetPong(n) })); err != nil {
				return err
			}
		}
	}
}

// act answers one request as its path says.
func act(w io.Writer, path string, stream uint64) error {
	lie, ok := Lies[path]
	if !ok {
		_, err := w.Write(append(head(stream, 200, "content-type\ntext/plain\n", []byte("well")), done(stream, gen.Outcome_ok)...))
		return err
	}
	if lie == nil {
		return nil // silence
	}
	_, err := w.Write(lie(stream))
	return err
}

// Lies are what the gateway must survive, by path.
var Lies = map[string]func(stream uint64) []byte{
	"/garbage":        func(uint64) []byte { return bytes.Repeat([]byte("garbage "), 1000) },
	"/half":           func(s uint64) []byte { h := head(s, 200, "", []byte("half")); return append(h[:len(h)/2], 0xff) },
	"/forged-id":      func(uint64) []byte { return head(1<<40, 200, "", []byte("forged")) },
	"/never-opened":   func(s uint64) []byte { return done(s+1000, gen.Outcome_ok) },
	"/stream-zero":    func(uint64) []byte { return head(0, 200, "", nil) },
	"/two-heads":      func(s uint64) []byte { h := head(s, 200, "", nil); return append(h, h...) },
	"/after-done":     func(s uint64) []byte { d := done(s, gen.Outcome_exception); return append(d, d...) },
	"/unknown-result": func(s uint64) []byte { return done(s, gen.Outcome_unknown) },
	"/outcome-9999":   func(s uint64) []byte { return done(s, gen.Outcome(9999)) },
	"/status-99":      func(s uint64) []byte { return head(s, 99, "", nil) },
	"/status-999":     func(s uint64) []byte { return head(s, 999, "", nil) },
	"/header-crlf":    func(s uint64) []byte { return head(s, 200, "x-a\nb\r\nset-cookie: evil=1\n", nil) },
	"/header-nul":     func(s uint64) []byte { return head(s, 200, "x-a\nb\x00\n", nil) },
	"/header-odd":     func(s uint64) []byte { return head(s, 200, "x-a\n", nil) },
	"/header-space":   func(s uint64) []byte { return head(s, 200, "x a\nb\n", nil) },
	"/header-many": func(s uint64) []byte {
		return head(s, 200, string(bytes.Repeat([]byte("x-a\nb\n"), 5000)), nil)
	},
	"/chunk-first":  func(s uint64) []byte { return chunk(s, []byte("no head yet")) },
	"/past-window":  flood,
	"/window-huge":  func(s uint64) []byte { return frame(s, func(f gen.Frame) { f.SetWindow(1<<32 - 1) }) },
	"/open-back":    func(s uint64) []byte { return frame(s, func(f gen.Frame) { f.NewOpen() }) },
	"/ping-back":    func(uint64) []byte { return frame(0, func(f gen.Frame) { f.SetPing(7) }) },
	"/pong-unasked": func(uint64) []byte { return frame(0, func(f gen.Frame) { f.SetPong(123456) }) },
	"/oversized": func(uint64) []byte {
		return binary.LittleEndian.AppendUint32(make([]byte, 4), 1<<28) // 2 GiB announced
	},
	"/many-segments": func(uint64) []byte {
		return append(binary.LittleEndian.AppendUint32(nil, 500), make([]byte, 4096)...)
	},
	"/pointer-loop": func(s uint64) []byte {
		b := frame(s, func(f gen.Frame) { f.NewHead() })
		// The root pointer is the word after the framing header: make it point at itself (a struct
		// pointer of offset -1 with one pointer; Cap'n Proto encoding spec, "Structs").
		binary.LittleEndian.PutUint64(b[8:], uint64(0xfffffffc)|uint64(1)<<48)
		return b
	},
	"/wild-pointer": func(s uint64) []byte {
		b := frame(s, func(f gen.Frame) { f.NewHead() })
		binary.LittleEndian.PutUint64(b[8:], uint64(0x7ffffffc)|uint64(1)<<32|uint64(1)<<48)
		return b
	},
	"/silence": nil,
}

func flood(s uint64) []byte {
	out := frame(s, func(f gen.Frame) {
		h, _ := f.NewHead()
		h.SetStatus(200)
		h.SetBodyMode(gen.BodyMode_streamed)
	})
	for range 64 { // 4 MiB against a window of a fraction of that
		out = append(out, chunk(s, make([]byte, 64<<10))...)
	}
	return out
}

func frame(stream uint64, fill func(gen.Frame)) []byte {
	msg, seg, err := capnp.NewMessage(capnp.SingleSegment(nil))
	if err != nil {
		panic(err)
	}
	f, err := gen.NewRootFrame(seg)
	if err != nil {
		panic(err)
	}
	f.SetStream(stream)
	fill(f)
	b, err := msg.Marshal()
	if err != nil {
		panic(err)
	}
	return b
}

func head(stream uint64, status uint16, headers string, body []byte) []byte {
	return frame(stream, func(f gen.Frame) {
		h, _ := f.NewHead()
		h.SetStatus(status)
		h.SetHeaders([]byte(headers))
		h.SetBody(body)
		h.SetBodyMode(gen.BodyMode_whole)
	})
}

func chunk(stream uint64, b []byte) []byte {
	return frame(stream, func(f gen.Frame) { f.SetChunk(b) })
}

func done(stream uint64, outcome gen.Outcome) []byte {
	return frame(stream, func(f gen.Frame) {
		d, _ := f.NewDone()
		d.SetOutcome(outcome)
	})
}

// frames reads the gateway's frames, which are trusted here.
type frames struct {
	r io.Reader
}

func (f *frames) next() (gen.Frame, error) {
	var header [8]byte
	if _, err := io.ReadFull(f.r, header[:]); err != nil {
		return gen.Frame{}, err
	}
	b := make([]byte, 8+8*int(binary.LittleEndian.Uint32(header[4:])))
	copy(b, header[:])
	if _, err := io.ReadFull(f.r, b[8:]); err != nil {
		return gen.Frame{}, err
	}
	msg, err := capnp.Unmarshal(b)
	if err != nil {
		return gen.Frame{}, err
	}
	return gen.ReadRootFrame(msg)
}

// shard answers the control channel as a good shard would.
type shard struct{}

func (shard) Load(_ context.Context, call gen.Shard_load) error {
	res, err := call.AllocResults()
	if err != nil {
		return err
	}
	result, err := res.NewResult()
	if err != nil {
		return err
	}
	loaded, err := result.NewLoaded()
	if err != nil {
		return err
	}
	handlers, err := loaded.NewHandlers(1)
	if err != nil {
		return err
	}
	return handlers.Set(0, "fetch")
}

func (shard) Configure(context.Context, gen.Shard_configure) error { return nil }

func (shard) CodeCache(_ context.Context, call gen.Shard_codeCache) error {
	_, err := call.AllocResults()
	return err
}

func (shard) Evict(context.Context, gen.Shard_evict) error { return nil }

func (shard) Stats(_ context.Context, call gen.Shard_stats) error {
	res, err := call.AllocResults()
	if err != nil {
		return err
	}
	_, err = res.NewStats()
	return err
}

func (shard) Drain(context.Context, gen.Shard_drain) error { return nil }
