package policy

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"bulkhead/policy/doctree"
	"bulkhead/policy/egress"
	"bulkhead/policy/limits"
	"bulkhead/policy/seccomp"
)

func TestPresets(t *testing.T) {
	hashes := map[string]string{}
	for _, name := range Presets() {
		p, err := Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := hashes[p.Hash()]; ok {
			t.Errorf("presets %s and %s have one hash", name, other)
		}
		hashes[p.Hash()] = name
		for what, bad := range map[string]bool{
			"cpu": p.Tenant.CPU <= 0, "startup": p.Tenant.StartupCPU <= 0, "wall": p.Tenant.Wall <= 0, "waitUntil": p.Tenant.WaitUntil <= 0,
			"memory": p.Tenant.Memory == 0, "concurrent": p.Tenant.Concurrent <= 0, "logs": p.Tenant.LogBytes <= 0, "timers": p.Tenant.Timers <= 0,
			"weight": p.Tenant.Weight < 1 || p.Tenant.Weight > 10_000, "request": p.Tenant.RequestBody == 0, "response": p.Tenant.ResponseBody == 0,
			"headers": p.Tenant.HeaderBytes <= 0 || p.Tenant.HeaderBytes > limits.DefaultWire().HeaderBytes,
			"pending": p.Tenant.Pending <= 0, "subrequests": p.Tenant.Subrequests <= 0,
			"script": p.Tenant.ScriptSize <= 0, "shard memory": p.Shard.Memory < p.Tenant.Memory, "tenants": p.Shard.MaxTenants < 1 || p.Shard.MaxTenants > 64,
			"profile": !p.Profile.Valid(), "wasm without its profile": p.Tenant.Wasm && p.Profile != seccomp.JITWasm, "eval": p.Tenant.Eval, "idle": p.IdleEvict <= 0,
		} {
			if bad {
				t.Errorf("preset %s: %s", name, what)
			}
		}
	}
	standard, _ := Preset("standard")
	if standard.Tenant.CPU != 50*time.Millisecond || standard.Shard.MaxTenants != 64 || len(standard.Accept) != 0 {
		t.Errorf("standard is not what every figure is measured under: %+v", standard)
	}
	if paranoid, _ := Preset("paranoid"); paranoid.Shard.MaxTenants != 1 || paranoid.Profile != seccomp.Jitless {
		t.Errorf("paranoid: %+v", paranoid)
	}
	if _, err := Preset("lax"); err == nil {
		t.Error("a preset that does not exist was found")
	}
}

const good = `
preset: strict
profile: jit
idleEvict: 90s
accept: [cgroup, mdwe]
limits:
  cpu: 20ms
  memory: 96MiB
egress:
  ports: [443, 8000-8999]
  deny: ["*.evil.example"]
  internal: [api.corp:443]
shard:
  maxTenants: 8
tenants:
  images:
    profile: jit+wasm
    egress: {public: false, allow: ["10.1.0.0/16:8080", api.corp], deny: [10.1.2.3], safe: [api.corp], concurrent: 7, bytes: 1MiB}
    limits: {wasm: true, cpu: 500ms, memory: 268435456}
  "123": {limits: {timers: 5}}
`

func TestParse(t *testing.T) {
	p, err := Parse("p.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	want, _ := Preset("strict")
	want.Profile, want.IdleEvict, want.Accept = seccomp.JIT, 90*time.Second, []string{"cgroup", "mdwe"}
	want.Tenant.CPU, want.Tenant.Memory, want.Shard.MaxTenants = 20*time.Millisecond, 96<<20, 8
	images, numbers := want.For("images"), want.For("123")
	images.Profile, images.Limits.Wasm, images.Limits.CPU, images.Limits.Memory = seccomp.JITWasm, true, 500*time.Millisecond, 256<<20
	numbers.Limits.Timers = 5
	want.Egress.Ports = []egress.Ports{{Low: 443, High: 443}, {Low: 8000, High: 8999}}
	want.Egress.Deny, want.Egress.Internal = []string{"*.evil.example"}, []string{"api.corp:443"}
	own := want.Egress
	own.Public, own.Concurrent, own.Bytes = false, 7, 1<<20
	own.Allow, own.Safe, own.Deny = []string{"10.1.0.0/16:8080", "api.corp"}, []string{"api.corp"}, []string{"*.evil.example", "10.1.2.3"}
	if d := cmp.Diff(want.DiffHost(p), []Change(nil)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(own, p.EgressFor("images")); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(want.Egress, p.EgressFor("123")); d != "" {
		t.Error(d)
	}
	plain := TenantPolicy{Limits: want.Tenant, Profile: want.Profile, Class: DefaultName, Cordon: DefaultName}
	if p.For("images") != images || p.For("123") != numbers || p.For("else") != plain || !p.Accepts("mdwe") || p.Accepts("landlock") {
		t.Error("For or Accepts disagree with the document")
	}
}

func TestYAMLReadsBack(t *testing.T) {
	docs := []string{good, "", cordoned}
	for _, name := range Presets() {
		docs = append(docs, "preset: "+name)
	}
	for _, doc := range docs {
		p, err := Parse("p.yaml", []byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse("back.yaml", p.YAML())
		if err != nil {
			t.Fatalf("%v\n%s", err, p.YAML())
		}
		if d := cmp.Diff(p.DiffHost(back), []Change(nil)); d != "" {
			t.Errorf("what was written reads back differently:\n%s", d)
		}
		for _, id := range []string{"images", "123", "acme-shop", "shop", "else"} {
			if d := p.Diff(back, id); len(d.Changes) > 0 {
				t.Errorf("what was written reads back differently for %s: %v\n%s", id, d.Changes, p.YAML())
			}
		}
		if p.Hash() != back.Hash() {
			t.Errorf("what was written has another hash:\n%s", p.YAML())
		}
	}
}

func TestHashIsOfTheEffect(t *testing.T) {
	hash := func(doc string) string {
		t.Helper()
		p, err := Parse("p.yaml", []byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		return p.Hash()
	}
	standard := hash("")
	for _, same := range []string{"preset: standard", "# nothing\n", "limits: {cpu: 50ms}", "limits:\n  memory: 134217728", "tenants: {a: {}}", "tenants: {a: {egress: {public: true}}}", "egress: {concurrent: 256}", "tenants: {a: {limits: {cpu: 0.05s}}}", "class: default", "tenants: {\"a-*\": {cordon: default}}"} {
		if hash(same) != standard {
			t.Errorf("%q has another hash than standard, which it is", same)
		}
	}
	for _, other := range []string{"preset: strict", "limits: {cpu: 51ms}", "accept: [cgroup]", "tenants: {a: {limits: {cpu: 1ms}}}", "shard: {pids: 65}", "idleEvict: 1h", "profile: jitless", "egress: {public: false}", "cordons: {a: {}}", "cordons: {a: {spread: 2}}", "suspicion: {weights: {aborts: 5}}", "reshuffle: {jitter: 3}", "placement: {spread: 2}", "tenants: {\"a-*\": {limits: {cpu: 1ms}}}", "tenants: {a: {egress: {deny: [a.example]}}}"} {
		if hash(other) == standard {
			t.Errorf("%q has the hash of standard, which it is not", other)
		}
	}
	if hash("accept: [cgroup, mdwe]") != hash("accept: [mdwe, cgroup]") {
		t.Error("the order of accepted degradations changes the hash")
	}
}

// Each limit is a value that a document can set, that another document reads back from what is
// written, and that changes the hash. Reflection fails on a limit nobody has given a key.
func TestEveryLimitIsPolicy(t *testing.T) {
	keys := map[string]string{
		"CPU": "cpu: 51ms", "StartupCPU": "startupCpu: 2s", "Wall": "wall: 31s", "WaitUntil": "waitUntil: 31s", "Memory": "memory: 64MiB",
		"Concurrent": "concurrent: 7", "Weight": "weight: 200", "RequestBody": "requestBody: 1.5GiB", "ResponseBody": "responseBody: 1MiB",
		"HeaderBytes": "headers: 16KiB", "LogBytes": "logBytes: 64KiB", "Timers": "timers: 8", "Pending": "pending: 9", "Subrequests": "subrequests: 10",
		"CacheEntries": "cacheEntries: 11", "CacheEntry": "cacheEntry: 1MiB", "CacheBytes": "cacheBytes: 2MiB",
		"ScriptSize": "scriptSize: 1MiB", "Eval": "eval: true", "Wasm": "wasm: true",
	}
	standard := limits.DefaultTenant()
	for f := range reflect.TypeFor[limits.Tenant]().Fields() {
		key, ok := keys[f.Name]
		if !ok {
			t.Errorf("limits.Tenant.%s has no key in the policy, or none in this test", f.Name)
			continue
		}
		p, err := Parse("p.yaml", []byte("profile: jit+wasm\nlimits: {"+key+"}"))
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		if got, old := reflect.ValueOf(p.Tenant).FieldByName(f.Name), reflect.ValueOf(standard).FieldByName(f.Name); got.Equal(old) {
			t.Errorf("%s changes nothing: %v", key, got)
		}
		other := standard
		reflect.ValueOf(&other).Elem().FieldByName(f.Name).Set(reflect.ValueOf(p.Tenant).FieldByName(f.Name))
		if d := cmp.Diff(other, p.Tenant); d != "" {
			t.Errorf("%s changes another limit:\n%s", key, d)
		}
		if name, _, _ := strings.Cut(key, ":"); !strings.Contains(string(p.YAML()), "\n  "+name+": ") {
			t.Errorf("`bulkhead policy show` does not show %s:\n%s", name, p.YAML())
		}
		if back, err := Parse("p.yaml", p.YAML()); err != nil || back.Tenant != p.Tenant {
			t.Errorf("%s does not read back: %v", key, err)
		}
	}
}

// Every wrong document gets a message with file, line and column, the offending line, and words
// that lead to the remedy. Each case is: document, place, part of the message.
func TestBadPolicies(t *testing.T) {
	for _, c := range []struct{ name, doc, place, message string }{
		{"unknown key", "presset: dev", "1:1", `did you mean "preset"`},
		{"unknown key far off", "zzzzzzzz: 1", "1:1", "it takes preset, profile"},
		{"unknown limit", "limits:\n  memmory: 1GiB", "2:3", `did you mean "memory"`},
		{"unknown shard key", "shard:\n  maxTenant: 3", "2:3", `did you mean "maxTenants"`},
		{"transposed", "limits: {cup: 5ms}", "1:10", `did you mean "cpu"`},
		{"case", "idleevict: 5m", "1:1", `did you mean "idleEvict"`},
		{"unknown preset", "preset: standart", "1:9", `did you mean "standard"`},
		{"preset is a number", "preset: 5", "1:9", "one of dev, standard"},
		{"unknown profile", "profile: jit-less", "1:10", `did you mean "jitless"`},
		{"unknown degradation", "accept: [cgruop]", "1:10", `did you mean "cgroup"`},
		{"accept is text", "accept: cgroup", "1:9", "must be a list"},
		{"time without unit", "limits: {cpu: 50}", "1:15", "with its unit"},
		{"time of nonsense", "limits: {cpu: fast}", "1:15", "is not a time"},
		{"time too short", "limits: {cpu: 1us}", "1:15", "must be from 1ms"},
		{"time negative", "limits: {wall: -5s}", "1:16", "must be from"},
		{"time too long", "idleEvict: 10000h", "1:12", "must be from"},
		{"size of nonsense", "limits: {memory: much}", "1:18", "is not a size"},
		{"decimal unit", "limits: {memory: 128MB}", "1:18", "KiB, MiB or GiB"},
		{"size too small", "limits: {memory: 1KiB}", "1:18", "must be from 8MiB"},
		{"size too large", "limits: {memory: 4GiB}", "1:18", "to 2800MiB"},
		{"size negative", "limits: {memory: -1}", "1:18", "negative"},
		{"size is a list", "limits: {memory: [1]}", "1:18", "must be a size"},
		{"count is text", "limits: {timers: many}", "1:18", "whole number"},
		{"count is a fraction", "limits: {timers: 1.5}", "1:18", "whole number"},
		{"count too small", "limits: {concurrent: 0}", "1:22", "from 1 to"},
		{"too many tenants", "shard: {maxTenants: 65}", "1:21", "from 1 to 64"},
		{"huge number", "limits: {timers: 99999999999999999999}", "1:18", ""},
		{"body without unit is bytes", "limits: {requestBody: 512}", "1:23", "must be from 1KiB to 1024GiB"},
		{"body decimal", "limits: {responseBody: 1GB}", "1:24", "KiB, MiB or GiB"},
		{"headers beyond a frame", "limits: {headers: 128KiB}", "1:19", "from 1KiB to 64KiB"},
		{"headers of one byte", "limits: {headers: 1}", "1:19", "from 1KiB"},
		{"pending nothing", "limits: {pending: 0}", "1:19", "from 1 to"},
		{"subrequests unlimited", "limits: {subrequests: -1}", "1:23", "from 1 to 100000"},
		{"weightless", "limits: {weight: 0}", "1:18", "from 1 to 10000"},
		{"old spelling", "limits: {requestBodies: 1MiB}", "1:10", `did you mean "requestBody"`},
		{"switch is text", "limits: {eval: maybe}", "1:16", "true or false"},
		{"yaml 1.1 switch", "limits: {eval: yes}", "1:16", "true or false"},
		{"limits is a list", "limits:\n  - cpu: 5ms", "2:", "must be a mapping"},
		{"limits is text", "limits: none", "1:9", "must be a mapping"},
		{"document is a list", "- a\n- b", "1:", "must be a mapping"},
		{"document is text", "standard", "1:1", "must be a mapping"},
		{"egress of nonsense", "egress: {allow: [\"a b\"]}", "1:18", "is no host name, address or network"},
		{"calls of nobody", "calls: [{from: [a]}]", "1:9", "needs both from and to"},
		{"calls of a path", "calls: [{from: [../a], to: [b]}]", "1:17", "cannot be a tenant id"},
		{"calls as a mapping", "calls: {a: b}", "1:8", "must be a list"},
		{"tails to all", "tails: [{from: [a], to: ['*']}]", "1:9", "name the tenants"},
		{"no depth", "callDepth: 0", "1:12", "from 1 to 32"},
		{"egress is a list", "egress: [a]", "1:9", "must be a mapping"},
		{"allow is text", "egress: {allow: a.example}", "1:17", "must be a list of patterns"},
		{"deny of a mapping", "egress: {deny: [{a: b}]}", "1:17", "this is a mapping"},
		{"network with host bits", "egress: {deny: [10.0.0.1/8]}", "1:17", "write 10.0.0.0/8"},
		{"port zero", "egress: {ports: [0]}", "1:18", "is no port"},
		{"ports backwards", "egress: {ports: [9-5]}", "1:18", "is no port"},
		{"port of a pattern", "egress: {allow: [\"a.example:99999\"]}", "1:18", "is no port"},
		{"tenant's egress", "tenants:\n  a: {egress: {alow: []}}", "2:16", `did you mean "allow"`},
		{"tenants is a list", "tenants: [a]", "1:10", "mapping of tenant ids"},
		{"bad tenant id", "tenants:\n  My_App: {}", "2:3", "cannot be a tenant id"},
		{"tenant id begins with -", "tenants:\n  -x: {}", "2:3", "cannot be a tenant id"},
		{"unknown tenant key", "tenants:\n  a: {limit: {}}", "2:7", `did you mean "limits"`},
		{"limit directly below a tenant", "tenants:\n  a: {cpu: 5ms}", "2:7", "it takes cordon, class, profile, limits"},
		{"wasm without profile", "limits: {wasm: true}", "1:", "set profile: jit+wasm"},
		{"tenant wasm without profile", "tenants:\n  a: {limits: {wasm: true}}", "2:3", "set profile: jit+wasm"},
		{"tenant larger than its shard", "shard: {memory: 64MiB}", "1:", "lower limits.memory"},
		{"cpu above wall", "limits: {cpu: 5s, wall: 1s}", "1:", "raise wall or lower cpu"},
		{"key twice", "limits: {cpu: 5ms}\nlimits: {cpu: 6ms}", "2:1", "set twice, first in line 1"},
		{"nested key twice", "limits:\n  cpu: 5ms\n  cpu: 6ms", "3:3", "set twice, first in line 2"},
		{"anchor", "limits: &x {cpu: 5ms}", "1:9", "anchors and aliases"},
		{"alias", "idleEvict: *x", "1:12", ""},
		{"merge key", "limits: {<<: {cpu: 5ms}}", "1:10", "merge keys"},
		{"tag", "preset: !!str dev", "1:9", "tags"},
		{"two documents", "preset: dev\n---\npreset: strict", "3:", "second document"},
		{"tab indentation", "limits:\n\tcpu: 5ms", "2:", ""},
		{"unclosed brace", "limits: {cpu: 5ms", "1:", ""},
		{"unclosed quote", "preset: \"dev", "1:", ""},
		{"bad indentation", "limits:\n    cpu: 5ms\n  wall: 1s", "3:", ""},
		{"key without value below another", "limits: cpu: 5ms", "1:", ""},
		{"number as key", "5: 6", "1:1", `has no key "5"`},
		{"mapping as key", "{a: b}: c", "1:", ""},
		{"not UTF-8", "preset: \xff", "1:9", "UTF-8"},
		{"a NUL", "preset: d\x00v", "1:10", "NUL"},
		{"terminal escape in a key", "\x1b[31mred: 1", "1:", ""},
		{"not a number", "limits: {timers: .nan}", "1:18", "number"},
		{"infinite", "limits: {timers: .inf}", "1:18", "number"},
		{"unknown class", "classes: {w: {}}\ntenants: {a: {class: v}}", "2:22", "no \"v\": one of w, default"},
		{"class misspelt", "classes: {wasm: {}}\nclass: wams", "2:8", `did you mean "wasm"`},
		{"class default", "classes: {default: {memory: 1GiB}}", "1:11", "set it there"},
		{"key of a class", "classes: {w: {maxAgee: 1h}}", "1:15", `did you mean "maxAge"`},
		{"name of a class", "classes: {W: {}}", "1:11", "cannot be a name"},
		{"classes is a list", "classes: [a]", "1:10", "must be a mapping of names"},
		{"undeclared cordon", "tenants: {a: {cordon: paid}}", "1:23", `no "paid": one of default`},
		{"cordon misspelt", "cordons: {paid: {}}\ncordon: payd", "2:9", `did you mean "paid"`},
		{"cordon's class", "cordons: {paid: {class: fast}}", "1:25", "one of default"},
		{"undeclared label", "tenants: {\"label:gold\": {}}", "1:11", "declare it: labels: {gold"},
		{"label misspelt", "labels: {gold: [a]}\ntenants: {\"label:glod\": {}}", "2:11", `did you mean "gold"`},
		{"member of a label", "labels: {gold: [A_B]}", "1:17", "neither a tenant id nor a glob"},
		{"label is text", "labels: {gold: a}", "1:16", "must be a list of tenant ids"},
		{"bad glob", "tenants: {\"A*\": {}}", "1:11", "no glob of tenant ids"},
		{"spread of none", "placement: {spread: 0}", "1:21", "from 1 to 64"},
		{"jitter of all", "reshuffle: {jitter: 100}", "1:21", "from 0 to 90"},
		{"unknown signal", "suspicion: {weights: {zzzzzzzzzz: 1}}", "1:23", "it takes bracketedCpu"},
		{"weight below nothing", "suspicion: {weights: {aborts: -1}}", "1:31", "from 0 to 1000"},
		{"weight of text", "suspicion: {weights: {aborts: much}}", "1:31", "must be a number"},
		{"thresholds in no order", "suspicion: {isolate: 10}", "1:22", "the milder measure comes first"},
		{"class too small for its tenants", "classes: {s: {memory: 64MiB}}\ntenants: {a: {class: s}}", "2:11", "raise shard.memory"},
		{"class that cannot run Wasm", "classes: {s: {profile: jit}}\ntenants: {a: {class: s, limits: {wasm: true}}}", "2:11", "set profile: jit+wasm"},
		{"second of two errors", "limits: {cpu: 5}\npreset: foo", "2:9", "one of dev"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := Parse("policy.yaml", []byte(c.doc))
			if err == nil {
				t.Fatalf("taken as good: %+v", p)
			}
			text := err.Error()
			if !strings.Contains(text, "policy.yaml:"+c.place) || !strings.Contains(text, c.message) {
				t.Errorf("want place %s and %q, got:\n%s", c.place, c.message, text)
			}
			var e *doctree.Error
			if !errors.As(err, &e) || e.Excerpt == "" {
				t.Errorf("the offending line is not shown:\n%s", text)
			}
			if strings.ContainsAny(text, "\x00\x1b") || !utf8.ValidString(text) {
				t.Errorf("control characters reach the terminal: %q", text)
			}
		})
	}
}

func TestHugeAndDeep(t *testing.T) {
	deep := strings.Repeat("[", 100_000)
	for name, doc := range map[string]string{
		"large":        "#" + strings.Repeat("x", doctree.MaxBytes),
		"deep list":    "accept: " + deep,
		"deep dashes":  strings.Repeat("- ", 100_000),
		"deep map":     strings.Repeat("{a: ", 50_000),
		"deep indent":  deepIndent(200),
		"many values":  "accept: [" + strings.Repeat("a,", 30_000) + "a]",
		"many errors":  strings.Repeat("limits:\n", 3000),
		"many keys":    "limits:\n" + manyKeys(20_000),
		"flow in keys": strings.Repeat("? ", 20_000),
	} {
		begin := time.Now()
		if _, err := Parse("p.yaml", []byte(doc)); err == nil {
			t.Errorf("%s: taken as good", name)
		} else if len(err.Error()) > 16<<10 {
			t.Errorf("%s: %d bytes of errors", name, len(err.Error()))
		}
		if d := time.Since(begin); d > 5*time.Second {
			t.Errorf("%s: took %s", name, d)
		}
	}
}

func deepIndent(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("  k" + strings.Repeat("x", i%5) + time.Duration(i).String() + ": 1\n")
	}
	return b.String()
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]uint64{"0": 0, "4096": 4096, "128MiB": 128 << 20, "1.5GiB": 3 << 29, "2 KiB": 2048} {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "MiB", "-1", "1e400", "NaN", "Inf", "0x10", "1_000", "9999999GiB", "5 MB"} {
		if got, err := ParseBytes(bad); err == nil {
			t.Errorf("%q was read as %d", bad, got)
		}
	}
	for _, n := range []uint64{0, 1, 1023, 1024, 96 << 20, 3 << 30, 2800 << 20, 1<<30 + 1} {
		if back, err := ParseBytes(FormatBytes(n)); err != nil || back != n {
			t.Errorf("%d is written %q and read back as %d, %v", n, FormatBytes(n), back, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("limits: &a {cpu: *a}"))
	f.Add([]byte(cordoned))
	f.Fuzz(func(t *testing.T, doc []byte) {
		p, err := Parse("p.yaml", doc)
		if err != nil {
			return
		}
		back, err := Parse("p.yaml", p.YAML())
		if err != nil || back.Hash() != p.Hash() {
			t.Errorf("a good policy does not read back: %v", err)
		}
	})
}
