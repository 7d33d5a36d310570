package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"

	"capnproto.org/go/capnp/v3"

	"bulkhead/schema/gen"
)

// fetchBit marks the ids of subrequests (schema/frame.capnp).
const fetchBit = 1 << 63

// lies are bytes on the data channel that break the protocol, by path.
var lies = map[string]func(stream uint64) []byte{
	"/garbage":        func(uint64) []byte { return bytes.Repeat([]byte("garbage "), 1000) },
	"/forged-id":      func(uint64) []byte { return head(1<<40, 200, "", []byte("forged")) },
	"/never-opened":   func(s uint64) []byte { return done(s+1000, gen.Outcome_ok) },
	"/stream-zero":    func(uint64) []byte { return head(0, 200, "", nil) },
	"/two-heads":      func(s uint64) []byte { h := head(s, 200, "", nil); return append(h, h...) },
	"/after-done":     func(s uint64) []byte { d := done(s, gen.Outcome_exception); return append(d, d...) },
	"/head-after-end": func(s uint64) []byte { return join(streamed(s), end(s), head(s, 200, "", nil)) },
	"/chunk-after-end": func(s uint64) []byte {
		return join(streamed(s), chunk(s, []byte("x")), end(s), chunk(s, []byte("y")))
	},
	"/end-first":      end,
	"/unknown-result": func(s uint64) []byte { return done(s, gen.Outcome_unknown) },
	"/outcome-9999":   func(s uint64) []byte { return done(s, gen.Outcome(9999)) },
	"/outcome-killer": func(s uint64) []byte { return done(s, gen.Outcome_crashed) },
	"/ok-unfinished":  func(s uint64) []byte { return join(streamed(s), done(s, gen.Outcome_ok)) },
	"/status-99":      func(s uint64) []byte { return head(s, 99, "", nil) },
	"/status-999":     func(s uint64) []byte { return head(s, 999, "", nil) },
	"/header-crlf":    func(s uint64) []byte { return head(s, 200, "x-a\nb\r\nset-cookie: evil=1\n", nil) },
	"/header-nul":     func(s uint64) []byte { return head(s, 200, "x-a\nb\x00\n", nil) },
	"/header-odd":     func(s uint64) []byte { return head(s, 200, "x-a\n", nil) },
	"/header-space":   func(s uint64) []byte { return head(s, 200, "x a\nb\n", nil) },
	"/header-many":    func(s uint64) []byte { return head(s, 200, strings.Repeat("x-a\nb\n", 5000), nil) },
	"/chunk-first":    func(s uint64) []byte { return chunk(s, []byte("no head yet")) },
	"/chunk-empty":    func(s uint64) []byte { return join(streamed(s), chunk(s, nil)) },
	"/past-window": func(s uint64) []byte {
		out := streamed(s)
		for range 64 { // 4 MiB against a window of a fraction of that
			out = append(out, chunk(s, make([]byte, 64<<10))...)
		}
		return out
	},
	"/window-huge":       func(s uint64) []byte { return window(s, 1<<32-1) },
	"/window-zero":       func(s uint64) []byte { return window(s, 0) },
	"/open-back":         func(s uint64) []byte { return frame(s, func(f gen.Frame) { f.NewOpen() }) },
	"/ping-back":         func(uint64) []byte { return frame(0, func(f gen.Frame) { f.SetPing(7) }) },
	"/pong-unasked":      func(uint64) []byte { return frame(0, func(f gen.Frame) { f.SetPong(123456) }) },
	"/pong-on-stream":    func(s uint64) []byte { return frame(s, func(f gen.Frame) { f.SetPong(1) }) },
	"/abort-as-client":   func(s uint64) []byte { return abort(s, gen.Abort_Reason_clientGone) },
	"/abort-as-deadline": func(s uint64) []byte { return abort(s, gen.Abort_Reason_deadline) },
	"/refusals":          func(s uint64) []byte { return bytes.Repeat(abort(s, gen.Abort_Reason_refused), 100_000) },
	"/unknown-frame":     func(s uint64) []byte { return frame(s, func(f gen.Frame) { capnp.Struct(f).SetUint16(8, 77) }) },
	"/overdue-nobody":    func(uint64) []byte { return overdue(0, 1<<30, 1) },
	"/overdue-forged":    func(s uint64) []byte { return overdue(s+99, 1, 1) },
	"/overdue-eternal":   func(s uint64) []byte { return overdue(s, 1, 1<<60) },

	// Sizes and pointers.
	"/oversized": func(uint64) []byte { return binary.LittleEndian.AppendUint32(make([]byte, 4), 1<<28) }, // 2 GiB announced
	"/many-segments": func(uint64) []byte {
		return append(binary.LittleEndian.AppendUint32(nil, 500), make([]byte, 4096)...)
	},
	"/empty-segment": func(uint64) []byte { return make([]byte, 8) },
	"/pointer-loop": func(s uint64) []byte {
		// The root pointer is the word after the framing header: it points at itself (a struct pointer
		// of offset -1 with one pointer; Cap'n Proto encoding spec, "Structs").
		return patched(head(s, 200, "", nil), 8, 0xfffffffc|1<<48)
	},
	"/wild-pointer": func(s uint64) []byte { return patched(head(s, 200, "", nil), 8, 0x7ffffffc|1<<32|1<<48) },
	"/far-pointer":  func(s uint64) []byte { return patched(head(s, 200, "", nil), 8, 1<<3|2) },
	"/huge-list": func(s uint64) []byte {
		// The chunk's list pointer is the word after the header, the root and three words of data: 2^29-1 bytes.
		return join(streamed(s), patched(chunk(s, []byte("x")), 8+8+24, 1|(0xffffffff&^7|2)<<32))
	},
	"/zero-sized-list": func(s uint64) []byte { // 2^29-1 elements of no bits: nothing on the wire
		return join(streamed(s), patched(chunk(s, []byte("x")), 8+8+24, 1|(0xffffffff&^7)<<32))
	},

	// Subrequests.
	"/fetch-forged-parent": func(s uint64) []byte { return fetch(fetchBit|1<<40, s+1000, nil) },
	"/fetch-no-parent":     func(uint64) []byte { return fetch(fetchBit|1<<40, 0, nil) },
	"/fetch-low-id":        func(s uint64) []byte { return fetch(s+7, s, nil) },
	"/fetch-same-id":       func(s uint64) []byte { return join(fetch(fetchBit|1<<40, s, nil), fetch(fetchBit|1<<40, s, nil)) },
	"/fetch-falling-id":    func(s uint64) []byte { return join(fetch(fetchBit|1<<40, s, nil), fetch(fetchBit|3, s, nil)) },
	"/fetch-as-parent": func(s uint64) []byte {
		return join(fetch(fetchBit|1<<40, s, nil), fetch(fetchBit|1<<40|1, fetchBit|1<<40, nil))
	},
	"/fetch-chunk-of-none":  func(uint64) []byte { return chunk(fetchBit|99, []byte("x")) },
	"/fetch-end-of-none":    func(uint64) []byte { return end(fetchBit | 99) },
	"/fetch-window-of-none": func(uint64) []byte { return window(fetchBit|99, 1) },
	"/fetch-head-back":      func(s uint64) []byte { return join(fetch(fetchBit|1<<40, s, nil), head(fetchBit|1<<40, 200, "", nil)) },
	"/fetch-done-back": func(s uint64) []byte {
		return join(fetch(fetchBit|1<<40, s, nil), done(fetchBit|1<<40, gen.Outcome_ok))
	},
	"/fetch-release-twice": func(s uint64) []byte {
		r := abort(fetchBit|1<<40, gen.Abort_Reason_clientGone)
		return join(fetch(fetchBit|1<<40, s, nil), r, r)
	},
	"/fetch-after-done":  func(s uint64) []byte { return join(done(s, gen.Outcome_exception), fetch(fetchBit|1<<40, s, nil)) },
	"/fetch-end-no-body": func(s uint64) []byte { return join(fetch(fetchBit|1<<40, s, nil), end(fetchBit|1<<40)) },
	"/fetch-end-twice": func(s uint64) []byte {
		return join(upload(fetchBit|1<<40, s), end(fetchBit|1<<40), end(fetchBit|1<<40))
	},
	"/fetch-past-window": func(s uint64) []byte {
		return append(upload(fetchBit|1<<40, s), bytes.Repeat(chunk(fetchBit|1<<40, make([]byte, 64<<10)), 64)...)
	},
	"/fetch-window-beyond": func(s uint64) []byte { return join(fetch(fetchBit|1<<40, s, nil), window(fetchBit|1<<40, 1)) },
	"/fetch-connect":       edited(func(f gen.Fetch) error { return f.SetMethod("CONNECT") }),
	"/fetch-split-method":  edited(func(f gen.Fetch) error { return f.SetMethod("GET / HTTP/1.1\r\nX: ") }),
	"/fetch-split-header":  edited(func(f gen.Fetch) error { return f.SetHeaders([]byte("x\na\r\nhost: b\n")) }),
	"/fetch-file":          edited(func(f gen.Fetch) error { return f.SetUrl("file:///etc/passwd") }),
	"/fetch-credentials":   edited(func(f gen.Fetch) error { return f.SetUrl("http://a:b@upstream.test/") }),
	"/fetch-control-url":   edited(func(f gen.Fetch) error { return f.SetUrl("http://a/\r\nx") }),
	"/fetch-long-url":      edited(func(f gen.Fetch) error { return f.SetUrl("http://a/" + strings.Repeat("x", 20<<10)) }),
	"/fetch-get-body":      edited(func(f gen.Fetch) error { f.SetBodyMode(gen.BodyMode_whole); return f.SetBody([]byte("x")) }),
	"/fetch-mode-9":        edited(func(f gen.Fetch) error { f.SetBodyMode(9); return nil }),
	"/function-of-none":    edited(function(65534, 1)), // of a client's request
	"/function-zero":       edited(function(65534, 0)),
	"/function-unbound":    edited(function(0, 7)),
	"/function-named":      edited(func(f gen.Fetch) error { function(65534, 1)(f); return f.SetCall("add") }),
	"/function-get":        edited(func(f gen.Fetch) error { function(65534, 1)(f); return f.SetMethod("GET") }),
	"/fetch-redirect-9":    edited(func(f gen.Fetch) error { f.SetRedirect(9); return nil }),
}

func edited(f func(gen.Fetch) error) func(uint64) []byte {
	return func(s uint64) []byte { return fetch(fetchBit|1<<40, s, f) }
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

// patched overwrites the word at an offset of a frame.
func patched(b []byte, at int, word uint64) []byte {
	binary.LittleEndian.PutUint64(b[at:], word)
	return b
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func head(stream uint64, status uint16, headers string, body []byte) []byte {
	return frame(stream, func(f gen.Frame) {
		h, _ := f.NewHead()
		h.SetStatus(status)
		h.SetHeaders([]byte(headers))
		h.SetBody(body)
		h.SetBodyMode(gen.BodyMode_whole)
	})
}

func streamed(stream uint64) []byte {
	return frame(stream, func(f gen.Frame) {
		h, _ := f.NewHead()
		h.SetStatus(200)
		h.SetBodyMode(gen.BodyMode_streamed)
	})
}

func chunk(stream uint64, b []byte) []byte {
	return frame(stream, func(f gen.Frame) { f.SetChunk(b) })
}

func end(stream uint64) []byte { return frame(stream, func(f gen.Frame) { f.SetEnd() }) }

func window(stream uint64, n uint32) []byte {
	return frame(stream, func(f gen.Frame) { f.SetWindow(n) })
}

func abort(stream uint64, r gen.Abort_Reason) []byte {
	return frame(stream, func(f gen.Frame) { a, _ := f.NewAbort(); a.SetReason(r) })
}

func done(stream uint64, outcome gen.Outcome) []byte {
	return frame(stream, func(f gen.Frame) {
		d, _ := f.NewDone()
		d.SetOutcome(outcome)
	})
}

func overdue(stream uint64, tenant uint32, micros uint64) []byte {
	return frame(stream, func(f gen.Frame) {
		o, _ := f.NewOverdue()
		o.SetTenant(tenant)
		o.SetCpuMicros(micros)
		o.SetLimitMicros(1)
	})
}

// fetch asks for an address that the rules refuse: what is on trial is the frame.
func fetch(id, parent uint64, edit func(gen.Fetch) error) []byte {
	return frame(id, func(f gen.Frame) {
		r, _ := f.NewFetch()
		r.SetParent(parent)
		r.SetMethod("GET")
		r.SetUrl("http://127.0.0.1:9/")
		if edit != nil && edit(r) != nil {
			panic("edit")
		}
	})
}

// function is a call of the function of that number.
func function(binding, number uint16) func(gen.Fetch) error {
	return func(f gen.Fetch) error {
		f.SetBinding(binding)
		f.SetFunction(number)
		f.SetBodyMode(gen.BodyMode_whole)
		return errors.Join(f.SetMethod("POST"), f.SetBody([]byte("5\n[[],0]")))
	}
}

// upload is a subrequest whose body follows.
func upload(id, parent uint64) []byte {
	return fetch(id, parent, func(f gen.Fetch) error { f.SetBodyMode(gen.BodyMode_streamed); return f.SetMethod("POST") })
}
