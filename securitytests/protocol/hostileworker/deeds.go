package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"capnproto.org/go/capnp/v3/flowcontrol"
	rpccp "capnproto.org/go/capnp/v3/std/capnp/rpc"

	"bulkhead/schema/gen"
)

// deeds are what takes time, or more than the data channel, by path. Each runs on a goroutine of its
// own; the request's answer, where there is one, comes last.
var deeds = map[string]func(w *world, stream uint64, tenant uint32){
	// Silence and half messages.
	"/silence":    func(*world, uint64, uint32) {},
	"/deaf":       func(w *world, _ uint64, _ uint32) { w.answerPings(func(uint64) []byte { return nil }) },
	"/pong-wrong": func(w *world, _ uint64, _ uint32) { w.answerPings(func(n uint64) []byte { return pong(n + 1) }) },
	"/pong-twice": func(w *world, _ uint64, _ uint32) {
		w.answerPings(func(n uint64) []byte { return join(pong(n), pong(n)) })
	},
	"/half": func(w *world, s uint64, _ uint32) { h := head(s, 200, "", []byte("half")); w.half(h[:len(h)/2]) },
	"/drip": func(w *world, s uint64, _ uint32) { w.dripFrame(head(s, 200, "", make([]byte, 4000)), time.Second) },
	"/drip-fast": func(w *world, s uint64, _ uint32) {
		w.dripFrame(head(s, 200, "", make([]byte, 4000)), 10*time.Millisecond)
	},
	"/rpc-half":     func(w *world, s uint64, _ uint32) { w.well(s); w.control.Write([]byte{0, 0, 0, 0, 9, 0, 0, 0, 1}) },
	"/rpc-drip":     func(w *world, s uint64, _ uint32) { w.well(s); drip(w.control, rpcMessage(longAbort), time.Second) },
	"/fetch-no-end": func(w *world, s uint64, _ uint32) { w.say(upload(w.nextFetch(), s)) },
	"/body-no-end":  func(w *world, s uint64, _ uint32) { w.say(join(streamed(s), chunk(s, []byte("x")))) },

	// What ends the channel.
	"/rpc-abort": func(w *world, _ uint64, _ uint32) {
		w.control.Write(rpcMessage(func(m rpccp.Message) error { _, err := m.NewAbort(); return err }))
	},
	"/rpc-long-abort": func(w *world, _ uint64, _ uint32) { w.control.Write(rpcMessage(longAbort)) },

	// Floods. The request is answered afterwards, if the shard still lives.
	"/log-flood": func(w *world, s uint64, t uint32) { w.logFlood(s, t) },
	"/stderr-flood": func(w *world, s uint64, _ uint32) {
		line := bytes.Repeat([]byte("\x1b[31mflood \xff\x00"), 5000)
		for range 1000 { // 60 MB
			os.Stderr.Write(line)
		}
		w.well(s)
	},
	"/grant-flood": func(w *world, s uint64, _ uint32) { // one byte at a time, for ever
		b := bytes.Repeat(window(s, 1), 1000)
		for w.say(b) {
		}
	},
	"/refusal-flood": func(w *world, s uint64, _ uint32) {
		b := bytes.Repeat(abort(s, gen.Abort_Reason_refused), 1000)
		for w.say(b) {
		}
	},
	"/fetch-100000":        func(w *world, s uint64, _ uint32) { w.fetches(s, false) },
	"/fetch-100000-let-go": func(w *world, s uint64, _ uint32) { w.fetches(s, true) },
	"/rpc-flood": func(w *world, _ uint64, _ uint32) {
		b := logTo(900, 0, nil)()
		for {
			if _, err := w.control.Write(b); err != nil {
				return
			}
		}
	},

	// The black box.
	"/box-die":   func(w *world, s uint64, t uint32) { w.scribble(0, t, s, "the truth"); fault() },
	"/box-frame": func(w *world, s uint64, t uint32) { w.frame(t); fault() },
	"/box-noise": func(w *world, _ uint64, _ uint32) {
		for i := range w.box {
			w.box[i] = byte(i*7 + 0x81)
		}
		fault()
	},
	"/box-clear":    func(w *world, _ uint64, _ uint32) { clear(w.box); fault() },
	"/box-strange":  func(w *world, _ uint64, _ uint32) { w.scribble(1, 1<<31, 1<<62, "\x1b[2J\xff\r\nnobody"); fault() },
	"/box-truncate": func(*world, uint64, uint32) { syscall.Syscall(syscall.SYS_FTRUNCATE, blackBoxFD, 0, 0) },
	"/box-while-dying": func(w *world, s uint64, _ uint32) {
		// Scribbled on while the gateway reads it.
		go func() {
			for n := byte(0); ; n++ {
				for i := range w.box {
					w.box[i] = n
				}
			}
		}()
		w.say(head(0, 200, "", nil))
		time.Sleep(10 * time.Second)
	},
}

func init() {
	for path, raw := range rpcLies {
		deeds[path] = func(w *world, _ uint64, _ uint32) { w.control.Write(raw()) }
	}
}

func (w *world) answerPings(f func(uint64) []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pongs = f
}

func pong(n uint64) []byte { return frame(0, func(f gen.Frame) { f.SetPong(n) }) }

func longAbort(m rpccp.Message) error {
	a, err := m.NewAbort()
	if err != nil {
		return err
	}
	return a.SetReason(strings.Repeat("no \x1b[31m", 50<<10))
}

func (w *world) nextFetch() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fetch++
	return fetchBit | w.fetch
}

// half writes the beginning of a frame; pings are not answered any more, or the answers would end it.
func (w *world) half(b []byte) {
	w.answerPings(func(uint64) []byte { return nil })
	w.say(b)
}

// dripFrame is half, a byte at a time.
func (w *world) dripFrame(b []byte, every time.Duration) {
	w.answerPings(func(uint64) []byte { return nil })
	drip(w.data, b, every)
}

// drip writes a byte at a time, never the last one.
func drip(f *os.File, b []byte, every time.Duration) {
	for _, c := range b[:len(b)-1] {
		if _, err := f.Write([]byte{c}); err != nil {
			return
		}
		time.Sleep(every)
	}
}

// fetches opens a hundred thousand subrequests of one request, and lets go of each at once or of none.
func (w *world) fetches(parent uint64, letGo bool) {
	for range 100_000 {
		id := w.nextFetch()
		b := fetch(id, parent, nil)
		if letGo {
			b = append(b, abort(id, gen.Abort_Reason_clientGone)...)
		}
		if !w.say(b) {
			return
		}
	}
	w.well(parent)
}

// logFlood logs as fast as the gateway takes it, some 200 MB in all, and then answers.
func (w *world) logFlood(stream uint64, tenant uint32) {
	w.mu.Lock()
	host := w.hosts[tenant]
	w.mu.Unlock()
	host.SetFlowLimiter(flowcontrol.NewFixedLimiter(1 << 20)) // within what the protocol allows
	text := strings.Repeat("flood \x1b[31m", 400)
	for n := range 1000 {
		if n%16 == 0 { // as fast as allowed
			if host.WaitStreaming() != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
		err := host.Log(context.Background(), func(p gen.TenantHost_log_Params) error {
			l, err := p.NewEntries(50)
			if err != nil {
				return err
			}
			for i := range l.Len() {
				if err := l.At(i).SetText(text); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return
		}
	}
	if host.WaitStreaming() != nil {
		return
	}
	w.well(stream)
}

// scribble writes a claim into a slot (layout: ipc/blackbox.go): that it ran tenant for stream when
// it died of SIGSEGV.
func (w *world) scribble(slot int, tenant uint32, stream uint64, last string) {
	s := w.box[slot*64 : (slot+1)*64]
	clear(s)
	binary.LittleEndian.PutUint64(s[0:], 1)
	binary.LittleEndian.PutUint64(s[8:], stream)
	binary.LittleEndian.PutUint32(s[16:], tenant)
	binary.LittleEndian.PutUint32(s[20:], uint32(syscall.SIGSEGV))
	copy(s[24:], last)
}

// frame makes the black box say that a neighbour did it, if one has a request here.
func (w *world) frame(own uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.box)
	for stream, tenant := range w.held {
		if tenant != own {
			w.scribble(0, tenant, stream, "it was the neighbour")
			return
		}
	}
}

// defaultFaults takes Go's handler away from SIGSEGV: what a fault then does is die of it.
func defaultFaults() {
	var act [4]uintptr // struct sigaction of the kernel: handler (SIG_DFL), flags, restorer, mask
	syscall.Syscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGSEGV), uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0)
}

// nowhere is nil.
var nowhere *byte

// fault is a real one: a signal sent to oneself does nothing to the first process of a pid namespace.
func fault() { *nowhere = 1 }
