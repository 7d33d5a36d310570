package placement

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/supervisor/launcher/orders"
	"bulkhead/supervisor/observe"
)

// FuzzLastWords: what a dying shard wrote to its standard error and into its black box stands in the
// incident as one line of text, short.
func FuzzLastWords(f *testing.F) {
	f.Add([]byte("fatal error: x\n\ngoroutine 1"), []byte{1, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte("\x1b[2J\r\n\xff\xfe\xe2\x80\xae\u202e"), []byte{})
	f.Add([]byte(strings.Repeat("é", 2000)), append(make([]byte, 20), []byte("\x0b\x00\x00\x00Fatal\x1b[0m")...))
	f.Fuzz(func(t *testing.T, stderr, box []byte) {
		s := &shard{box: ipc.ReadBlackBox(append(box, make([]byte, ipc.BlackBoxSlotBytes)...))}
		s.stderr.head = stderr[:min(len(stderr), tailBytes)]
		text := s.describe(orders.Exit{Code: 2, Syscall: -1}, nil)
		if len(text) > 4<<10 || strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("%d bytes: %q", len(text), text)
		}
	})
}

// FuzzBlame: whatever the black box claims, nobody becomes a suspect who was not in the shard by the
// gateway's own list, and no stream is taken to have run that was not in flight.
func FuzzBlame(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 11}, byte(0))
	f.Add([]byte{1}, byte(1))
	f.Add(make([]byte, 4096), byte(2))
	f.Fuzz(func(t *testing.T, box []byte, how byte) {
		e := evidence{
			box: ipc.ReadBlackBox(box), boxed: how&8 == 0, hosted: []uint32{1, 2, 3}, loads: []uint32{3}, mixed: how&16 == 0,
			flight: []gatewayside.InFlight{{Stream: 8, Tenant: 1}, {Stream: 9, Tenant: 2}},
		}
		switch how & 7 {
		case 0:
			e.exit.Signal = 11
		case 1:
			e.why = ipc.Violation(ipc.KindFraming, 0, "x")
		case 2:
			e.exit.Signal = 31
		case 3:
			e.why = gatewayside.ErrUnresponsive
		case 4:
			e.exit.Signal = 9
		case 5:
			e.why = errHungUp
		}
		got := find(&e)
		for _, s := range got.suspects {
			if s < 1 || s > 3 {
				t.Errorf("suspect %d", s)
			}
		}
		for s := range got.executing {
			if s != 8 && s != 9 {
				t.Errorf("stream %d ran", s)
			}
		}
		if how&7 == 1 || how&7 == 2 || how&7 == 5 {
			if len(got.suspects) != 3 {
				t.Errorf("a compromised shard narrowed the suspects down to %v", got.suspects)
			}
		}
	})
}

// FuzzLogTime: a time that a shard claims can be shown, whatever it is.
func FuzzLogTime(f *testing.F) {
	for _, ms := range []float64{0, 1.7e12, -1, 1e300, -1e300, 8.64e15} {
		f.Add(ms)
	}
	f.Fuzz(func(t *testing.T, ms float64) {
		if _, err := json.Marshal(observe.Line{Time: msTime(ms)}); err != nil {
			t.Errorf("%v: %v", ms, err)
		}
	})
}
