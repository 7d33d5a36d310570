package engine

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write testdata/host.golden anew")

// hostileJS is shared with package runtime.
func hostileJS(t testing.TB) string {
	t.Helper()
	src, err := os.ReadFile("../runtime/testdata/hostile.js")
	if err != nil {
		t.Fatal(err)
	}
	return string(src)
}

// validArgs are arguments each host function takes without complaint: the matrix puts a hostile value in
// the place of each. A host function that is not here fails the test.
const validArgs = `const validArgs = {
	respond: () => [1, 200, "a\nb\n", 1, "body"], chunk: () => [1, new Uint8Array(3)], end: () => [1], refuse: () => [1], abort: () => [1, "why"], credit: () => [1, 5], finish: () => [1, 1, "done"],
	log: () => [1, 2, "line"], timer: () => [raw.now() + 5, 1], now: () => [], op: () => [1, 2, 3, "meta", new Uint8Array(3)], getContext: () => [], setContext: () => [undefined],
	defineLazy: () => [{}, "x", () => 1], readable: () => ["x"], askResizable: () => [64], dropResizable: () => [64], keepResizable: () => [new ArrayBuffer(1)],
	utf8Encode: () => ["x"], utf8EncodeInto: () => ["xyz", new Uint8Array(8)], utf8Decode: () => [new Uint8Array(3), true, false], latin1Decode: () => [new Uint8Array(3)], randomFill: () => [new Uint8Array(3)],
	promiseDetails: () => [Promise.resolve()], proxyDetails: () => [new Proxy({}, {})], previewEntries: () => [new Map([[1, 2]])], getOwnNonIndexProperties: () => [{ a: 1 }, true], classOf: () => [{}], constructorName: () => [{}],
	structuredClone: () => [{ a: 1 }, [new ArrayBuffer(3)]], setDataCloneError: () => [(m) => new TypeError(m)],
	data: () => [0], urlPatternParse: () => ["http://a/:x", "http://b/", false, () => true], urlPatternInput: () => [["http", "", "", "a", "", "/p", "", "", undefined]],
	urlParse: () => ["http://a/", "http://b/", new Uint32Array(9)], urlCanParse: () => ["http://a/", "http://b/"], urlSet: () => ["http://a/", 7, "/p", new Uint32Array(9)],
};
const cloneError = (m) => { const e = new Error(m); e.name = "DataCloneError"; return e; };
`

// insideCallbacks are functions V8 calls that are no host functions, and the test that has them.
var insideCallbacks = map[string]string{
	"ReturnData":   "TestDynamicImport",
	"FinishImport": "TestDynamicImport",
	"Check":        "TestWasmSharedMemoryIsImpossible",
}

// TestEveryNativeFunctionIsKnown holds the C++ against the tables of this file: what can be called from
// JavaScript is a host function of the matrix or has a test of its own.
func TestEveryNativeFunctionIsKnown(t *testing.T) {
	locked(t)
	files, err := filepath.Glob("native/*.cc")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	registered := map[string]bool{} // C++ names that stand beside a JavaScript name
	names := map[string]bool{}
	callbacks := map[string]bool{}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`SetFunction\(iso, c, host, "(\w+)", (\w+)\)|\{"(\w+)", ([A-Z]\w+)\}`).FindAllStringSubmatch(string(src), -1) {
			names[m[1]+m[3]], registered[m[2]+m[4]] = true, true
		}
		for _, m := range regexp.MustCompile(`(?m)^void (\w+)\(const Args& args\)`).FindAllStringSubmatch(string(src), -1) {
			callbacks[m[1]] = true
		}
	}
	i := load(t, validArgs+`export default { fetch: () => JSON.stringify([Object.keys(raw).filter((k) => typeof raw[k] === "function"), Object.keys(validArgs)]) }`)
	var lists [2][]string
	if err := json.Unmarshal([]byte(ask(t, i)), &lists); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, name := range lists[1] {
		known[name] = true
	}
	for _, name := range lists[0] {
		if !names[name] {
			t.Errorf("host.%s: not found in native/*.cc", name)
		}
		if !known[name] {
			t.Errorf("host.%s: a host function the matrix does not know", name)
		}
		delete(known, name)
		delete(names, name)
	}
	for name := range known {
		t.Errorf("host.%s: in the matrix, but no host function", name)
	}
	for name := range names {
		t.Errorf("host.%s: in native/*.cc, but JavaScript does not see it", name)
	}
	for name := range callbacks {
		if !registered[name] && insideCallbacks[name] == "" {
			t.Errorf("%s: JavaScript can call it, and no test is named for it", name)
		}
	}
	tests := ""
	all, _ := filepath.Glob("*_test.go")
	for _, file := range all {
		src, _ := os.ReadFile(file)
		tests += string(src)
	}
	for name, test := range insideCallbacks {
		if !callbacks[name] || !strings.Contains(tests, "func "+test+"(") {
			t.Errorf("%s or its test %s is gone", name, test)
		}
	}
}

// TestHostMatrix puts each hostile value in the place of each argument of each host function. What comes
// of it stands in testdata/host.golden; see TestSurface of package runtime.
func TestHostMatrix(t *testing.T) {
	locked(t)
	if os.Getenv(profileEnv) != "" {
		return
	}
	const golden = "testdata/host.golden"
	src := hostileJS(t) + validArgs + `
	export default { fetch(r) {
		const name = new RegExp("row=(.*)").exec(r.url)?.[1];
		if (name === undefined) return JSON.stringify(Object.keys(validArgs).sort());
		const f = raw[name], n = validArgs[name]().length;
		const shapes = [["none", () => f()], ["all", (k) => f(k(), k(), k(), k(), k())]];
		for (let at = 0; at < n; at++) shapes.push(["argument " + at, (k) => { const args = validArgs[name](); args[at] = k(); return f(...args); }]);
		raw.setDataCloneError(cloneError);
		const text = H.grid(f, shapes);
		raw.setDataCloneError(cloneError);
		if (name === "askResizable") for (let i = 0; i < 1000; i++) raw.dropResizable(0);
		return text();
	} }`
	i := load(t, src)
	var list []string
	if err := json.Unmarshal([]byte(ask(t, i)), &list); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for n, name := range list {
		i.Dispose()
		i = load(t, src)
		fmt.Fprintf(os.Stderr, "matrix: %s\n", name)
		turn := i.Request(epoch, Request{Inv: uint32(70_000_000 + n), Method: "GET", URL: "http://t/?row=" + name})
		text := ""
		for r := range turn.Records() {
			if r.Kind == RecordHead && r.Inv == uint32(70_000_000+n) {
				text = string(r.Data)
			}
		}
		if turn.Status != OK || !strings.HasPrefix(text, "  ") {
			t.Errorf("%s: %v %q %.300q", name, turn.Status, text, texts(&turn))
		}
		b.WriteString(name + "\n" + text)
		if got := ask(t, i); !strings.HasPrefix(got, "[") {
			t.Errorf("after %s: %q", name, got)
		}
	}
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	wants, gots := strings.Split(string(want), "\n"), strings.Split(b.String(), "\n")
	name := ""
	for n := range max(len(wants), len(gots)) {
		var w, g string
		if n < len(wants) {
			w = wants[n]
		}
		if n < len(gots) {
			g = gots[n]
		}
		if !strings.HasPrefix(g, "  ") {
			name = g
		}
		if w != g {
			t.Errorf("%s:\ngot  %s\nwant %s", name, g, w)
		}
	}
}

// TestGeneratedHostCalls is TestGeneratedCalls of package runtime with the host functions themselves,
// which no tenant has in hand.
func TestGeneratedHostCalls(t *testing.T) {
	locked(t)
	if os.Getenv(profileEnv) != "" {
		return
	}
	src := hostileJS(t) + validArgs + `
	const entries = Object.keys(validArgs).map((path) => ({ path, f: raw[path], owner: "", how: "call" }));
	// Every other call has mostly good arguments, or it would end at the first check.
	for (const path of Object.keys(validArgs)) entries.push({ path, f: (...args) => { const v = validArgs[path](); args.forEach((a, i) => { if (i % 2 === 0 || v.length < 3) v[(i + args.length) % 5] = a; }); return raw[path](...v); }, owner: "", how: "call" });
	export default { fetch(r) {
		const [, seed, n] = new RegExp("seed=(\\d+)&n=(\\d+)").exec(r.url);
		return String(H.fuzz(entries, () => undefined, +seed, +n, +seed % 2 ? H.pollute : undefined));
	} }`
	i, left := load(t, src), 8
	one := func(seed uint64) {
		fmt.Fprintf(os.Stderr, "generated: host seed %d\n", seed)
		stop := time.AfterFunc(2*time.Second, func() { i.Terminate(ReasonCPU) })
		defer stop.Stop()
		turn := i.Request(epoch, Request{Inv: 70_000_000, Method: "GET", URL: fmt.Sprintf("http://t/?seed=%d&n=300", seed)})
		for range turn.Records() { // each must decode
		}
		if left--; left == 0 || turn.Status != OK {
			i.Dispose()
			i, left = load(t, src), 8
		}
	}
	if s := os.Getenv("GENERATED_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		one(seed)
		return
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
		one(seed)
		programs++
	}
	t.Logf("%d programs of 300 calls from seed %d", programs, first)
	if got := ask(t, load(t, `export default { fetch: () => "alive" }`)); got != "alive" {
		t.Errorf("after it all: %q", got)
	}
}
