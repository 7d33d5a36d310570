package scheduler

import (
	"bytes"
	"flag"
	"os"
	"runtime/debug"
	"strconv"
	"testing"
	"time"
)

// cyclesFlag is how often TestCyclesGiveMemoryBack loads and evicts a tenant. The figure of record is
// for 10,000.
var cyclesFlag = flag.Int("cycles", 600, "cycles of load and eviction in TestCyclesGiveMemoryBack")

// cyclesEnv marks the child of TestCyclesGiveMemoryBack, a process in which nobody else has been.
const cyclesEnv = "SCHEDULER_TEST_CYCLES"

// resident is this process's resident set in bytes, after all that an idle shard does about it.
func resident(t testing.TB) int {
	t.Helper()
	debug.FreeOSMemory()
	testEngine.Trim()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(string(bytes.Fields(b)[1]))
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// Tenants come and go, one of them stays: the process is as large after thousands as after the first
// fifth of them, within a tenth.
func TestCyclesGiveMemoryBack(t *testing.T) {
	if os.Getenv(cyclesEnv) == "" {
		end, out := childOf(t, "TestCyclesGiveMemoryBack", cyclesEnv+"=1", "-cycles="+strconv.Itoa(*cyclesFlag))
		if !end.Success() {
			t.Errorf("%v", end)
		}
		t.Log("\n" + out)
		return
	}
	h := startShard(t, Options{})
	stays := h.load(counted)
	h.wantOK(h.get(stays, "/"), "1")
	const source = `const kept = new Uint8Array(1 << 16).fill(1); setTimeout(() => kept, 1000);
	export default { async fetch(r) { console.log("line"); await new Promise((f) => setTimeout(f, 1)); return new Response("hello " + kept.length); } }`
	warm := *cyclesFlag / 5
	var start int
	began := time.Now()
	for k := 1; k <= *cyclesFlag; k++ {
		n := h.load(source)
		h.wantOK(h.get(n, "/"), "hello 65536")
		if err := h.Evict(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		if k == warm {
			start = resident(t)
		}
		if k%(max(*cyclesFlag/10, 1)) == 0 {
			t.Logf("%6d cycles, %v each: %.1f MiB", k, (time.Since(began) / time.Duration(k)).Round(10*time.Microsecond), float64(resident(t))/(1<<20))
		}
	}
	end := resident(t)
	t.Logf("%.1f MiB after %d cycles, %.1f MiB after %d", float64(start)/(1<<20), warm, float64(end)/(1<<20), *cyclesFlag)
	if end > start+start/10 {
		t.Errorf("the process grew from %d to %d bytes", start, end)
	}
	h.wantOK(h.get(stays, "/"), "2")
}
