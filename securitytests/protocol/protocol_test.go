// Package protocol sets a hostile worker against a live gateway (DESIGN invariant 2: a shard is
// hostile). The worker is sealed and verified like any other; what it says is not to be believed.
//
// For every lie: a neighbour's tenant is served all the time, the liar's process is killed, an
// incident names the shard and the tenant, and the gateway is the same process afterwards, no larger
// than before.
package protocol

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/policy/seccomp"
	"bulkhead/securitytests/hosttest"
)

// TestMain lets more tests wait at once than there are processors: what a test of silence does is wait.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	code := m.Run()
	if dir, err := hostileDir(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// atWork and waiting bound how many tests that are busy, and hosts whose workers wait, there are at once.
var atWork, waiting = make(chan struct{}, 2), make(chan struct{}, 3)

// works is for a parallel test that keeps the machine busy: two of them at a time.
func works(t *testing.T) {
	t.Parallel()
	atWork <- struct{}{}
	t.Cleanup(func() { <-atWork })
}

// eachProfileAndMode runs a test in all six, or as an ordinary user in three.
func eachProfileAndMode(t *testing.T, test func(t *testing.T, rootless bool, profile seccomp.Profile)) {
	t.Helper()
	for _, rootless := range []bool{false, true} {
		if !rootless && os.Getuid() != 0 {
			continue
		}
		for _, p := range seccomp.Profiles() {
			t.Run(fmt.Sprintf("%v, rootless %t", p, rootless), func(t *testing.T) { test(t, rootless, p) })
		}
	}
}

// breaches are the requests on which the hostile worker breaks the protocol: it must die for it.
// Those marked with * may have shown the client a lawful head before the lie.
var breaches = strings.Fields(`
	garbage forged-id never-opened stream-zero two-heads* after-done* head-after-end* chunk-after-end* end-first
	unknown-result outcome-9999 outcome-killer ok-unfinished* status-99 status-999
	header-crlf header-nul header-odd header-space header-many chunk-first chunk-empty* past-window*
	window-huge window-zero open-back ping-back pong-unasked pong-on-stream abort-as-client abort-as-deadline
	refusals unknown-frame overdue-nobody overdue-forged overdue-eternal
	oversized many-segments empty-segment pointer-loop wild-pointer far-pointer huge-list* zero-sized-list*

	fetch-forged-parent fetch-no-parent fetch-low-id fetch-same-id fetch-falling-id fetch-as-parent
	fetch-chunk-of-none fetch-end-of-none fetch-window-of-none fetch-head-back fetch-done-back fetch-release-twice
	fetch-after-done* fetch-end-no-body fetch-end-twice fetch-past-window fetch-window-beyond fetch-connect
	fetch-split-method fetch-split-header fetch-file fetch-credentials fetch-control-url fetch-long-url
	fetch-get-body fetch-mode-9 fetch-redirect-9
	function-of-none function-zero function-unbound function-named function-get

	rpc-garbage rpc-4g-segments rpc-1g rpc-no-root rpc-null-root rpc-bootstrap rpc-provide rpc-accept rpc-join
	rpc-third-party rpc-resolve rpc-unimplemented rpc-obsolete-delete rpc-obsolete-save rpc-unknown rpc-null-call
	rpc-null-return rpc-embargo rpc-disembargo rpc-return-unasked rpc-return-again rpc-return-canceled
	rpc-finish-unasked rpc-release-unheld rpc-release-beyond rpc-call-unheld rpc-call-2g rpc-call-promised
	rpc-call-load rpc-call-99 rpc-call-elsewhere rpc-call-caps rpc-pointer-loop rpc-amplified rpc-zero-sized

	box-while-dying`)

// loadBreaches are the answers to a load that no honest shard gives.
var loadBreaches = strings.Fields(`load-nothing load-handlers load-long-name load-crashed load-long-stack load-unknown load-oversized load-caps`)

// dull is a tenant whose code the hostile worker does not care about.
var dull = hosttest.Worker(`export default { fetch() {} };`)

// hostileDir holds the hostile worker, made once. Any user may run it: the host may be rootless.
var hostileDir = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "bhhostile")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
})

var buildHostile sync.Once

func hostile(t *testing.T) string {
	t.Helper()
	dir, err := hostileDir()
	if err != nil {
		t.Fatal(err)
	}
	buildHostile.Do(func() {
		hosttest.Build(t, "./securitytests/protocol/hostileworker", filepath.Join(dir, "bulkhead-worker"))
	})
	return dir
}

// arena is a host with hostile workers, and a victim who asks all the time.
type arena struct {
	*hosttest.Host
	t       *testing.T
	gateway int
	asked   atomic.Int64

	mu   sync.Mutex
	pids map[uint32]int // guarded by mu; of the shards seen
}

func newArena(t *testing.T, policy string, tenants map[string]hosttest.Files) *arena {
	t.Helper()
	return newArenaIn(t, false, policy, tenants)
}

func newArenaIn(t *testing.T, rootless bool, policy string, tenants map[string]hosttest.Files) *arena {
	t.Helper()
	tenants["victim"] = dull
	a := &arena{t: t, pids: map[uint32]int{}, Host: hosttest.Start(t, hosttest.Options{WorkerDir: hostile(t), Quiet: true, Rootless: rootless, Policy: policy, Tenants: tenants})}
	a.serves(t, "victim") // a hundred tenants are being built at once: it may take its time
	a.gateway = a.Gateway()
	stop := make(chan struct{})
	var askers sync.WaitGroup
	for range 2 {
		askers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				got, err := a.Do("GET", "victim", "/", nil)
				if err != nil || got.Status != 200 || got.Body != "well" {
					t.Errorf("the victim was told %d %s %q, %v", got.Status, got.Outcome, got.Body, err)
				}
				a.asked.Add(1)
				time.Sleep(4 * time.Millisecond)
			}
		})
	}
	// Also after parallel subtests: cleanups run when they have all ended.
	t.Cleanup(func() {
		close(stop)
		askers.Wait()
		if a.asked.Load() < 20 {
			t.Errorf("the victim was asked %d times only", a.asked.Load())
		}
		if g := a.Gateway(); g != a.gateway {
			t.Errorf("the gateway died of it: it was %d, it is %d\n%s", a.gateway, g, a.Log())
		}
	})
	return a
}

// serves waits for a tenant's honest answer, and notes the shards there are.
func (a *arena) serves(t *testing.T, tenant string) {
	t.Helper()
	hosttest.Eventually(t, 90*time.Second, tenant+" serves", func() bool {
		got, err := a.Do("GET", tenant, "/", nil)
		return err == nil && got.Status == 200 && got.Body == "well"
	})
	a.note()
}

func (a *arena) note() {
	var list []hosttest.Shard
	if a.AdminGet("/v1/shards", &list) != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range list {
		a.pids[s.ID] = s.PID
	}
}

// named waits for an incident of one of the kinds that names the tenant, among its tenants or in its
// detail, and for the end of the process.
func (a *arena) named(t *testing.T, tenant string, kinds ...string) hosttest.Incident {
	t.Helper()
	return a.namedWhen(t, func() {}, tenant, kinds...)
}

// namedWhen is named for a lie that is over and answered before anybody can know it for one: whoever shares
// its process may end that with a lie of its own, and then nothing is found. It is told again.
func (a *arena) namedWhen(t *testing.T, again func(), tenant string, kinds ...string) hosttest.Incident {
	t.Helper()
	var found hosttest.Incident
	var looked time.Time
	told := time.Now()
	hosttest.Eventually(t, 75*time.Second, "an incident that names "+tenant, func() bool {
		var list []hosttest.Incident
		if time.Since(looked) < 100*time.Millisecond || a.AdminGet("/v1/incidents", &list) != nil {
			return false
		}
		if looked = time.Now(); looked.Sub(told) > 25*time.Second {
			told = looked
			again()
		}
		for _, i := range list {
			if slices.Contains(kinds, i.Kind) && (slices.Contains(i.Tenants, tenant) || strings.Contains(i.Detail, tenant)) {
				found = i
				return true
			}
		}
		return false
	})
	if found.Shard == 0 || found.Detail == "" || len(found.Detail) > 4<<10 {
		t.Errorf("the incident is %+v", found)
	}
	a.mu.Lock()
	pid := a.pids[found.Shard]
	a.mu.Unlock()
	if pid != 0 {
		hosttest.Eventually(t, 10*time.Second, "the liar is dead", func() bool { return !hosttest.Alive(pid) || hosttest.Comm(pid) != "bulkhead-worker" })
	}
	return found
}

const violation = "shardViolation"

func TestHostileWorker(t *testing.T) {
	tenants := map[string]hosttest.Files{}
	for _, lie := range breaches {
		tenants[strings.TrimSuffix(lie, "*")] = dull
	}
	for _, lie := range loadBreaches {
		tenants[lie] = hosttest.Worker(`export default { fetch() { return "lie:` + lie + `"; } };`)
	}
	a := newArena(t, "", tenants)
	before := hosttest.RSS(a.gateway)
	t.Run("lies", func(t *testing.T) {
		for _, lie := range breaches {
			tenant, shown := strings.CutSuffix(lie, "*")
			t.Run(tenant, func(t *testing.T) {
				works(t)
				a.serves(t, tenant)
				asked := a.asked.Load()
				got, err := a.Do("GET", tenant, "/"+tenant, nil)
				if err == nil && got.Status < 500 && !shown {
					t.Errorf("the lie was served: %d %q", got.Status, got.Body)
				}
				if err == nil && (got.Header.Get("Set-Cookie") != "" || got.Header.Get("X-A") != "") {
					t.Errorf("a forged header came through: %v", got.Header)
				}
				i := a.named(t, tenant, violation)
				if i.Outcome != "protocolViolation" || !slices.Contains(i.Tenants, tenant) {
					t.Errorf("the incident is %+v", i)
				}
				a.serves(t, tenant)
				hosttest.Eventually(t, 20*time.Second, "the victim is served", func() bool { return a.asked.Load() > asked })
			})
		}
		for _, lie := range loadBreaches {
			t.Run(lie, func(t *testing.T) {
				works(t)
				a.note()
				// The first request is sent with the load: what the process says in the name of its own tenant
				// may be out before the lie about the load is read.
				if got, err := a.Do("GET", lie, "/", nil); err == nil && got.Status < 500 && got.Body != "well" {
					t.Errorf("it was served: %d %q", got.Status, got.Body)
				}
				a.named(t, lie, violation)
			})
		}
	})
	if after := hosttest.RSS(a.gateway); after > before+192<<20 {
		t.Errorf("the gateway grew from %d to %d MiB", before>>20, after>>20)
	}
}

// The gateway's judgement of a shard knows neither profiles nor modes; what kills the liar and finds out
// how it died does. A lie of each class in each of them.
func TestHostileWorkerInEachProfileAndMode(t *testing.T) {
	lies := strings.Fields("garbage forged-id pointer-loop overdue-forged fetch-forged-parent fetch-split-header rpc-garbage rpc-call-unheld rpc-return-unasked box-while-dying")
	eachProfileAndMode(t, func(t *testing.T, rootless bool, p seccomp.Profile) {
		tenants := map[string]hosttest.Files{}
		for _, lie := range lies {
			tenants[lie] = dull
		}
		a := newArenaIn(t, rootless, fmt.Sprintf("profile: %v\n", p), tenants)
		t.Cleanup(func() { // the lies take a second
			hosttest.Eventually(t, 60*time.Second, "the victim is served on", func() bool { return a.asked.Load() >= 100 })
		})
		for _, tenant := range lies {
			t.Run(tenant, func(t *testing.T) {
				works(t)
				a.serves(t, tenant)
				if got, err := a.Do("GET", tenant, "/"+tenant, nil); err == nil && got.Status < 500 {
					t.Errorf("the lie was served: %d %q", got.Status, got.Body)
				}
				a.named(t, tenant, violation)
				a.serves(t, tenant)
			})
		}
	})
}

// A shard that stays silent, stops in the middle of a message or sends it by the byte, must not hold
// a client, or its place, for ever. Whether that is a breach or a hang is a matter of which deadline
// comes first; that it ends is not.
func TestSilentWorker(t *testing.T) {
	eachProfileAndMode(t, func(t *testing.T, rootless bool, p seccomp.Profile) {
		t.Parallel()
		waiting <- struct{}{}
		t.Cleanup(func() { <-waiting })
		silentWorker(t, rootless, p)
	})
}

func silentWorker(t *testing.T, rootless bool, p seccomp.Profile) {
	silent := []string{"silence", "deaf", "half", "drip", "drip-fast", "fetch-no-end", "body-no-end"}
	breach := []string{"pong-wrong", "pong-twice", "rpc-half", "rpc-drip", "rpc-abort", "rpc-long-abort"}
	tenants := map[string]hosttest.Files{"load-silence": hosttest.Worker(`export default { fetch() { return "lie:load-silence"; } };`),
		"load-exception": hosttest.Worker(`export default { fetch() { return "lie:load-exception"; } };`)}
	for _, s := range slices.Concat(silent, breach) {
		tenants[s] = dull
	}
	a := newArenaIn(t, rootless, fmt.Sprintf("profile: %v\nlimits:\n  wall: 10s\n  waitUntil: 1s\n", p), tenants)
	t.Run("silences", func(t *testing.T) {
		for _, tenant := range slices.Concat(silent, breach) {
			t.Run(tenant, func(t *testing.T) {
				t.Parallel()
				a.serves(t, tenant)
				start := time.Now()
				got, err := a.Do("GET", tenant, "/"+tenant, nil)
				answered := got.Body == "well" && strings.HasPrefix(tenant, "rpc-")
				if err == nil && got.Status < 500 && !answered && tenant != "body-no-end" {
					t.Errorf("%d %q", got.Status, got.Body)
				}
				if took := time.Since(start); took > 45*time.Second {
					t.Errorf("it held its client for %v under a wall limit of 10 s", took)
				}
				kinds := []string{violation}
				switch {
				case strings.HasSuffix(tenant, "-abort"): // the gateway hangs up, and the worker may end of that
					kinds = append(kinds, "shardDied")
				case !slices.Contains(breach, tenant):
					kinds = append(kinds, "shardSilent")
				}
				a.namedWhen(t, func() { _, _ = a.Do("GET", tenant, "/"+tenant, nil) }, tenant, kinds...)
				a.serves(t, tenant)
			})
		}
		t.Run("load-silence", func(t *testing.T) {
			t.Parallel()
			// Its first request is sent with the load: what it answers is its own affair, as above.
			if got, err := a.Do("GET", "load-silence", "/", nil); err == nil && got.Status < 400 && got.Body != "well" {
				t.Errorf("%d %q", got.Status, got.Body)
			}
			a.named(t, "load-silence", "shardSilent")
		})
		t.Run("load-exception", func(t *testing.T) { // not a breach; its 700 KB of reasons are nobody's to keep
			t.Parallel()
			got, err := a.Do("GET", "load-exception", "/", nil)
			if err == nil && (got.Status < 500 && got.Body != "well" || len(got.Body) > 8<<10) {
				t.Errorf("%d, %d bytes", got.Status, len(got.Body))
			}
		})
	})
	if n := len(a.Log()); n > 4<<20 {
		t.Errorf("the host's log has %d bytes", n)
	}
}

// What a shard can make the gateway keep is bounded, however fast it talks and however long.
func TestFloods(t *testing.T) { eachProfileAndMode(t, floods) }

func floods(t *testing.T, rootless bool, p seccomp.Profile) {
	const most = 128 << 20 // beyond what the gateway had; each flood is larger, or has no end
	fatal := []string{"grant-flood", "refusal-flood", "rpc-flood", "rpc-calls-100000", "fetch-100000", "fetch-100000-let-go", "rpc-amplified", "past-window"}
	lawful := []string{"log-flood", "stderr-flood"}
	tenants := map[string]hosttest.Files{}
	for _, s := range slices.Concat(fatal, lawful) {
		tenants[s] = dull
	}
	a := newArenaIn(t, rootless, fmt.Sprintf("profile: %v\n", p), tenants)
	for _, tenant := range slices.Concat(fatal, lawful) {
		t.Run(tenant, func(t *testing.T) {
			a.serves(t, tenant)
			before, peak, done := hosttest.RSS(a.gateway), uint64(0), make(chan struct{})
			var sampler sync.WaitGroup
			sampler.Go(func() {
				for {
					select {
					case <-done:
						return
					case <-time.After(5 * time.Millisecond):
						peak = max(peak, hosttest.RSS(a.gateway))
					}
				}
			})
			asked := a.asked.Load()
			got, err := a.Do("GET", tenant, "/"+tenant, nil)
			if slices.Contains(fatal, tenant) {
				// A starved machine may find it silent behind its own flood before it finds the breach in that.
				a.named(t, tenant, violation, "shardSilent")
			} else if err != nil || got.Body != "well" {
				t.Errorf("%d %s %q, %v", got.Status, got.Outcome, got.Body, err)
			}
			close(done)
			sampler.Wait()
			t.Logf("gateway: %d MiB before, %d at most; the victim had %d answers meanwhile", before>>20, peak>>20, a.asked.Load()-asked)
			if peak > before+most {
				t.Errorf("the gateway grew from %d to %d MiB", before>>20, peak>>20)
			}
			a.serves(t, tenant)
		})
	}
	var log string
	if err := a.AdminGet("/v1/logs/log-flood", &log); err != nil || len(log) > 2<<20 || !strings.Contains(log, "flood") {
		t.Errorf("%d bytes of log are kept, %v", len(log), err)
	}
	if strings.Contains(a.Log(), "\x1b[31m") {
		t.Error("a shard's escape sequences reach the operator's terminal")
	}
}

// The code cache is asked of a shard that has been one large tenant's alone. Two megabytes are no
// answer.
func TestHostileCodeCache(t *testing.T) {
	large := hosttest.Worker(`export default { fetch() { return new Response("` + strings.Repeat("x", 100<<10) + `"); } };`)
	h := hosttest.Start(t, hosttest.Options{WorkerDir: hostile(t), Quiet: true, Tenants: map[string]hosttest.Files{"large": large}})
	a := &arena{Host: h, t: t, pids: map[uint32]int{}}
	a.serves(t, "large")
	a.named(t, "large", violation)
	a.serves(t, "large")
}

// The hostile worker is not in any binary that serves.
func TestHostileWorkerIsNotShipped(t *testing.T) {
	for _, b := range []string{"bulkhead", "bulkhead-launcher", "bulkhead-gateway", "bulkhead-worker"} {
		out, err := exec.Command("go", "list", "-deps", "bulkhead/cmd/"+b).Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		// `bulkhead securitytest` runs the suites; what attacks in them is a program of its own.
		for dep := range strings.FieldsSeq(string(out)) {
			if strings.HasPrefix(dep, "bulkhead/securitytests/") && (b != "bulkhead" || !slices.Contains([]string{"suites", "conductor", "canary", "clock"}, strings.TrimPrefix(dep, "bulkhead/securitytests/"))) {
				t.Errorf("%s contains %s", b, dep)
			}
		}
	}
}
