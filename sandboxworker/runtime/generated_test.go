package runtime_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"bulkhead/sandboxworker/engine"
)

// generatedSeeds are cases the generator once died or hung of.
var generatedSeeds = []uint64{}

// TestGeneratedCalls composes calls of every function a tenant can reach out of hostile values, some of
// which call back in the middle of the call they were given to, and some in a polluted realm. What a
// program throws is its affair; the process and the isolate must live. Each program is a seed, which is
// printed before it runs: GENERATED_SEED=n runs that one alone, GENERATED_FOR=5m goes on for so long.
func TestGeneratedCalls(t *testing.T) {
	if os.Getenv(profileEnv) != "" {
		return
	}
	src := hostileJS(t) + surfaceJS + `
	export default { async fetch(request, env, ctx) {
		const u = new URL(request.url), seed = +u.searchParams.get("seed"), n = +u.searchParams.get("n");
		theContext = ctx; theRequest = request;
		theKey ??= await theCrypto.subtle.generateKey({ name: "HMAC", hash: "SHA-1" }, true, ["sign", "verify"]);
		entries ??= entriesOf(request, ctx);
		const thrown = H.fuzz(entries, receiverOf, seed, n, seed % 2 ? H.pollute : undefined);
		return new Response(String(thrown));
	} }`
	run := func(w *worker, inv uint32, seed uint64) (spoilt bool) {
		fmt.Fprintf(os.Stderr, "generated: seed %d\n", seed)
		stop := time.AfterFunc(2*time.Second, func() { w.iso.Terminate(engine.ReasonCPU) })
		defer stop.Stop()
		turn := w.iso.Request(w.now, engine.Request{Inv: inv, Method: "POST", URL: fmt.Sprintf("http://t.localhost/?seed=%d&n=150", seed), Body: []byte("body")})
		for range 50 { // what it left to do: operations, timers
			if turn.Status != engine.OK {
				return true
			}
			next := turn.NextTimerMs
			for r := range turn.Records() {
				if r.Kind == engine.RecordOp {
					w.ops = append(w.ops, op{r.ID, r.Code, string(r.Text), append([]byte(nil), r.Data...)})
				}
			}
			switch {
			case len(w.ops) > 0:
				o := w.ops[0]
				w.ops = w.ops[1:]
				turn = w.iso.OpResult(w.now, o.id, seed%3 == 0, "1", o.data)
			case next >= 0:
				w.now = max(w.now, next)
				turn = w.iso.Timer(w.now)
			default:
				return false
			}
		}
		return true // it never rests: an interval
	}
	fresh := func() *worker { return load(t, src) }
	w, left := fresh(), 8
	one := func(seed uint64, inv uint32) {
		left--
		if run(w, inv, seed) || left == 0 {
			w.iso.Dispose()
			w, left = fresh(), 8
		}
	}
	if s := os.Getenv("GENERATED_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		one(seed, 1)
		return
	}
	for n, seed := range generatedSeeds {
		one(seed, uint32(n+1))
	}
	first, until := uint64(1), time.Now()
	if s := os.Getenv("GENERATED_FOR"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		first, until = uint64(time.Now().UnixNano()&0x3fffffff), until.Add(d)
	}
	programs := 0
	for seed := first; programs < 60 || time.Now().Before(until); seed++ {
		one(seed, uint32(1000+programs))
		programs++
	}
	t.Logf("%d programs of 150 calls from seed %d", programs, first)
	if got := load(t, `export default { fetch: () => new Response("alive") }`).get(); got != "alive" {
		t.Errorf("after it all: %q", got)
	}
}
