package engine

import (
	"strings"
	"testing"
	"time"
)

// What comes too late for an isolate finds none: an answer, a timer, a body. It used freed memory.
func TestDisposedIsolate(t *testing.T) {
	locked(t)
	i := load(t, `export default { fetch: () => "ok" }`)
	turn := get(i, 1)
	i.Dispose()
	i.Dispose()
	for name, do := range map[string]func() Turn{
		"request": func() Turn { return get(i, 2) },
		"chunk":   func() Turn { return i.Chunk(epoch, 1, []byte("x")) },
		"end":     func() Turn { return i.End(epoch, 1) },
		"abort":   func() Turn { return i.Abort(epoch, 1, 0, "gone") },
		"window":  func() Turn { return i.Window(epoch, 1, 5) },
		"timer":   func() Turn { return i.Timer(epoch + 5) },
		"op":      func() Turn { return i.OpResult(epoch, 1, true, "meta", []byte("data")) },
		"load":    func() Turn { _, turn := i.Load(one(`1`), []EnvVar{{Name: "a"}}, Limits{}, epoch); return turn },
	} {
		if got := do(); got.Status != Fatal || got.NextTimerMs >= 0 {
			t.Errorf("%s: %+v", name, got)
		} else {
			for range got.Records() {
				t.Errorf("%s: a record", name)
			}
		}
	}
	i.Trim()
	i.Done(&Turn{out: make([]byte, keepOutput+1)})
	if i.CodeCache() != nil || i.Terminate(ReasonCPU) || i.Usage() != (Usage{}) {
		t.Error("it answers")
	}
	mustPanic(t, "after Dispose", func() {
		for range turn.Records() {
		}
	})
}

// Records are memory of the isolate: read after its next turn they would be another request's.
func TestRecordsReadTooLate(t *testing.T) {
	locked(t)
	i := load(t, `export default { fetch: (r) => "secret of " + r.inv }`)
	first := get(i, 1)
	get(i, 2)
	mustPanic(t, "after the next turn", func() {
		for r := range first.Records() {
			t.Errorf("read %q", r.Data)
		}
	})
	third := get(i, 3)
	i.Trim()
	mustPanic(t, "after Trim", func() {
		for range third.Records() {
		}
	})
	fourth := get(i, 4)
	mustPanic(t, "between two records", func() {
		for range fourth.Records() {
			get(i, 5)
		}
	})
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if why, _ := recover().(string); !strings.HasPrefix(why, "BUG: ") {
			t.Errorf("%s: no panic but %q", what, why)
		}
	}()
	f()
}

// A collection between turns that found the tenant over its limit asked V8 to stop what runs. Nothing
// did, so it stopped the next request, which was then lost: its turn ended OK and empty.
func TestCollectionBetweenTurnsStopsNoLaterOne(t *testing.T) {
	locked(t)
	// The limit is at times above, at times below what the collection finds.
	for mib := uint64(8); mib < 16; mib++ {
		i := loadBundle(t, one(`const kept = []; export default { fetch(r) { if (r.inv === 1) for (let n = 0; n < 23; n++) kept.push(new Array(65536).fill(n + 0.5)); else kept.length = 0; return "fine"; } }`),
			Limits{MemoryBytes: mib << 20, Timers: 9})
		if turn := get(i, 1); turn.Status != OK {
			continue // found at once
		}
		i.Trim()
		turn := get(i, 2)
		switch turn.Status {
		case OK:
			if got := body(t, &turn); got != "fine" {
				t.Errorf("%d MiB: %q", mib, got)
			}
		case OutOfMemory:
		default:
			t.Errorf("%d MiB: %v %v", mib, turn.Status, turn.Reason)
		}
	}
}

// A buffer of one byte takes some 400 outside V8's heap, one of none 200: a tenant within 128 MiB held
// 1 GiB of them. They are charged what they take, and found before the heap is full.
func TestSmallBuffersAreCharged(t *testing.T) {
	if underASan {
		t.Skip("AddressSanitizer has its own operator new, so its pieces are not counted, and a quarantine")
	}
	for _, size := range []string{"0", "1", "64", "129"} {
		t.Run(size, func(t *testing.T) {
			locked(t)
			const limit = 64 << 20
			const n = 60_000
			i := loadBundle(t, one(`const kept = []; export default { fetch(r) { for (let n = 0; r.inv === 2 || n < `+"60000"+`; n++) kept.push(new ArrayBuffer(`+size+`)); return "ok"; } }`),
				Limits{MemoryBytes: limit, Timers: 9})
			i.Trim()
			before, had := rss(t), i.Usage()
			if turn := get(i, 1); turn.Status != OK {
				t.Fatal(turn.Status)
			}
			i.Trim()
			after := i.Usage()
			took := float64(rss(t)-before) / n
			charged := float64(after.HeapBytes+after.ExternalBytes-had.HeapBytes-had.ExternalBytes) / n
			t.Logf("each takes %.0f bytes and is charged %.0f", took, charged)
			if charged < 0.45*took || charged > 3*took+200 {
				t.Errorf("each takes %.0f bytes and is charged %.0f", took, charged)
			}
			stop := time.AfterFunc(3*time.Minute, func() { i.Terminate(ReasonWall) })
			defer stop.Stop()
			if turn := get(i, 2); turn.Status != OutOfMemory {
				t.Errorf("an endless row of them ended %v %v", turn.Status, turn.Reason)
			}
			if grown := rss(t) - before; grown > 4*limit {
				t.Errorf("the process grew by %d MiB under a limit of %d", grown>>20, limit>>20)
			}
		})
	}
}

// The place of an error is the tenant's word too: a sourceURL of 20 MB took its diagnostic with it, and a
// column counts characters where the excerpt was cut by bytes.
func TestDiagnosticsAreBounded(t *testing.T) {
	locked(t)
	f := fails(t, one(`throw new Error("here") //# sourceURL=`+strings.Repeat("x", 4<<20)))
	if !strings.Contains(f.Message, "here") || len(f.File) > 1<<10 || len(f.Excerpt) > 800 {
		t.Errorf("%.200q %d %d", f.Message, len(f.File), len(f.Excerpt))
	}
	f = fails(t, one(`/*`+strings.Repeat("é", 500)+`*/ throw new Error("there"); /*`+strings.Repeat("é", 500)+`*/`))
	if !strings.Contains(f.Excerpt, `throw new Error("there")`) || strings.Contains(f.Excerpt, "\ufffd") {
		t.Errorf("excerpt %q", f.Excerpt)
	}
}
