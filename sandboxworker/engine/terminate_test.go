package engine

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// longArgs keep a host function busy for a while, so that an order to stop arrives inside it; where there
// are none, it is called so often that one does.
const longArgs = `const MiB = 1 << 20, long = "a".repeat(4 * MiB), wide = "\u20ac".repeat(2 * MiB), many = new Map(Array.from({ length: 50_000 }, (_, i) => [i, "v" + i]));
const deep = Array.from({ length: 20_000 }, (_, i) => ({ i, s: "s" + i })), sparse = Object.fromEntries(deep.map((v) => ["k" + v.i, v]));
const longArgs = {
	utf8Encode: () => [wide], utf8EncodeInto: () => [wide, new Uint8Array(8 * MiB)], utf8Decode: () => [new Uint8Array(8 * MiB).fill(97), true, false], latin1Decode: () => [new Uint8Array(8 * MiB)],
	randomFill: () => [new Uint8Array(4 * MiB)], previewEntries: () => [many], getOwnNonIndexProperties: () => [sparse, false], structuredClone: () => [deep, []],
	urlParse: () => ["http://a/" + long, undefined, new Uint32Array(9)], urlCanParse: () => ["http://a/" + long, undefined], urlSet: () => ["http://a/", 7, long, new Uint32Array(9)],
	urlPatternParse: () => ["http://a/" + ":x/".repeat(2000), "http://b/", false, () => true], log: () => [1, 2, "x".repeat(4096)], op: () => [1, 2, 3, "meta", new Uint8Array(MiB)], askResizable: () => [64],
};
const argsOf = (name) => (longArgs[name] ?? validArgs[name])();
// forever is what a host function calls back: it never comes home by itself, whatever is thrown in it.
const forever = () => { for (;;) { try { for (;;); } catch {} finally { for (;;); } } };
const calling = {
	"structuredClone, a getter": () => raw.structuredClone({ get a() { return forever(); } }, []),
	"structuredClone, a getter in an array's way": () => raw.structuredClone([1, Object.defineProperty({}, "b", { enumerable: true, get: forever })], []),
	"structuredClone, its error": () => { raw.setDataCloneError(forever); raw.structuredClone(() => 0, []); },
	"urlPatternParse, its test of a regular expression": () => raw.urlPatternParse("http://a/(x+)", "http://b/", false, forever),
	"defineLazy, the making": () => { const o = {}; raw.defineLazy(o, "x", forever); o.x; },
	"defineLazy, the making of what another makes": () => { const o = {}, p = {}; raw.defineLazy(p, "y", forever); raw.defineLazy(o, "x", () => p.y); o.x; },
	"previewEntries after a proxy's trap": () => raw.previewEntries(new Proxy(many, { get: forever, ownKeys: forever, getPrototypeOf: forever }).size),
	"getOwnNonIndexProperties, a proxy's traps": () => { for (;;) raw.getOwnNonIndexProperties(new Proxy(sparse, { ownKeys: forever }), true), forever(); },
};
`

// TestTerminationInsideEveryHostCall stops the turn while it is in each host function, at moments that
// differ, and inside whatever a host function calls back. The order must get through, and the isolate and
// its host functions must be whole after it.
func TestTerminationInsideEveryHostCall(t *testing.T) {
	locked(t)
	if os.Getenv(profileEnv) != "" {
		return
	}
	src := validArgs + longArgs + `
	const loops = (name) => { const f = raw[name]; for (;;) { try { for (;;) f(...argsOf(name)); } catch {} } };
	export default { fetch(r) {
		const [, what, name] = new RegExp("([a-z]+)=(.*)").exec(r.url) ?? [];
		if (what === "host") loops(decodeURIComponent(name));
		if (what === "back") { try { calling[decodeURIComponent(name)](); } catch {} finally { forever(); } }
		raw.setDataCloneError(cloneError);
		return JSON.stringify([Object.keys(validArgs), Object.keys(calling), raw.utf8Decode(raw.utf8Encode("\u20ac"), true, false), raw.structuredClone({ a: [1] }, []).a[0], raw.urlCanParse("http://a/", undefined)]);
	} }`
	const whole = ",\"\u20ac\",1,true]"
	i := load(t, src)
	var lists [2][]string
	if err := json.Unmarshal([]byte(ask(t, i)), &[]any{&lists[0], &lists[1]}); err != nil {
		t.Fatal(err)
	}
	if len(lists[0]) < 30 || len(lists[1]) < 5 {
		t.Fatal(lists)
	}
	const seed = 4711
	rng := rand.New(rand.NewPCG(seed, seed))
	for k, kind := range []string{"host", "back"} {
		for _, name := range lists[k] {
			t.Run(kind+" "+name, func(t *testing.T) {
				locked(t)
				i := load(t, src)
				for round := range 6 {
					after := time.Duration(rng.Int64N(int64(4 * time.Millisecond)))
					over, stopped := make(chan struct{}), make(chan struct{})
					go func() {
						defer close(stopped)
						for time.Sleep(after); !i.Terminate(ReasonCPU); time.Sleep(50 * time.Microsecond) { // it may not have begun
							select {
							case <-over: // nor been stopped by this: it ran out of memory first
								return
							default:
							}
						}
					}()
					turn := i.Request(epoch, Request{Inv: 1, Method: "GET", URL: fmt.Sprintf("http://t/?%s=%s", kind, url.PathEscape(name))})
					close(over)
					<-stopped
					if turn.Status != Terminated && turn.Status != OutOfMemory {
						t.Fatalf("round %d, stopped after %v: %v %v %.300q", round, after, turn.Status, turn.Reason, texts(&turn))
					}
					for range turn.Records() { // each must decode
					}
					if turn.Reason != ReasonCPU {
						i.Dispose()
						i = load(t, src)
						continue
					}
					next := get(i, 2)
					if got := body(t, &next); !strings.HasSuffix(got, whole) {
						t.Fatalf("after round %d: %q", round, got)
					}
				}
			})
		}
	}
}
