package policy

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkhead/policy/seccomp"
)

const cordoned = `
placement: {spread: 3}
classes:
  wasm: {profile: jit+wasm, memory: 1GiB, maxTenants: 8, maxAge: 2h}
  slow: {profile: jitless}
cordons:
  free: {class: slow, spread: 2}
  paid: {}
labels:
  premium: [shop, acme-*]
cordon: free
tenants:
  "*": {limits: {cpu: 40ms}}
  acme-*:
    cordon: paid
    limits: {cpu: 30ms, timers: 7}
  label:premium:
    limits: {cpu: 60ms}
    class: wasm
  shop:
    limits: {wasm: true}
    egress: {deny: [a.example]}
  acme-one: {profile: jit, egress: {deny: [b.example]}}
`

func TestRulesApplyInOrder(t *testing.T) {
	p, err := Parse("p.yaml", []byte(cordoned))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		tenant, cordon, class string
		profile               seccomp.Profile
		cpu                   time.Duration
		timers, spread        int
		maxTenants            int
	}{
		{"else", "free", "slow", seccomp.Jitless, 40 * time.Millisecond, 10_000, 2, 64},
		{"acme-two", "paid", "wasm", seccomp.JITWasm, 60 * time.Millisecond, 7, 3, 8},
		{"acme-one", "paid", "wasm", seccomp.JIT, 60 * time.Millisecond, 7, 3, 8},
		{"shop", "free", "wasm", seccomp.JITWasm, 60 * time.Millisecond, 10_000, 2, 8},
		{"acme", "free", "slow", seccomp.Jitless, 40 * time.Millisecond, 10_000, 2, 64},
	} {
		g := p.For(c.tenant)
		if g.Cordon != c.cordon || g.Class != c.class || g.Profile != c.profile || g.Limits.CPU != c.cpu || g.Limits.Timers != c.timers ||
			p.SpreadOf(g.Cordon) != c.spread || p.ClassOf(g).Shard.MaxTenants != c.maxTenants || p.ClassOf(g).Profile != c.profile {
			t.Errorf("%s: %+v, want %+v", c.tenant, g, c)
		}
	}
	if got := p.EgressFor("shop").Deny; !slices.Equal(got, []string{"a.example"}) {
		t.Errorf("shop denies %v", got)
	}
	if got := p.Profiles(); !slices.Equal(got, seccomp.Profiles()) {
		t.Errorf("profiles %v", got)
	}
}

// A policy that came as JSON from a running host answers as the one that was parsed.
func TestJSONKeepsRules(t *testing.T) {
	p, err := Parse("p.yaml", []byte(cordoned))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var q Policy
	if err := json.Unmarshal(b, &q); err != nil {
		t.Fatal(err)
	}
	if q.Hash() != p.Hash() || string(q.YAML()) != string(p.YAML()) || q.For("acme-one") != p.For("acme-one") {
		t.Errorf("another policy arrived:\n%s", q.YAML())
	}
}

func TestRulesForIsSafeForConcurrentUse(t *testing.T) {
	p, err := Parse("p.yaml", []byte(cordoned))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, id := range []string{"shop", "acme-one", "else", "acme-two"} {
				for range 100 {
					p.For(id)
					p.EgressFor(id)
				}
			}
		})
	}
	wg.Wait()
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		glob, id string
		want     bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"*", "", true}, {"*", "x", true}, {"a*", "a", true}, {"a*", "ba", false}, {"*a", "ba", true},
		{"*a", "ab", false}, {"a*b*c", "a1b2c", true}, {"a*b*c", "acb", false}, {"a*a", "a", false}, {"*b*", "abc", true}, {"a**c", "abc", true},
		{"*ab", "aab", true}, {"a*ab", "aab", true},
	} {
		if got := matchGlob(c.glob, c.id); got != c.want {
			t.Errorf("matchGlob(%q, %q) = %v", c.glob, c.id, got)
		}
	}
}

func TestExplain(t *testing.T) {
	p, err := Parse("p.yaml", []byte("limits:\n  wall: 20s\n"+strings.TrimPrefix(cordoned, "\n")+"egress: {deny: [c.example]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Value{}
	for _, v := range p.Explain("acme-one") {
		if _, twice := got[v.Key]; twice {
			t.Errorf("%s is explained twice", v.Key)
		}
		got[v.Key] = v
	}
	for _, want := range []Value{
		{"limits.cpu", "60ms", "p.yaml:19, tenants.label:premium"},
		{"limits.timers", "7", "p.yaml:17, tenants.acme-*"},
		{"limits.wall", "20s", "p.yaml:2, limits.wall"},
		{"limits.memory", "128MiB", "preset standard"},
		{"cordon", `"paid"`, "p.yaml:16, tenants.acme-*"},
		{"class", `"wasm"`, "p.yaml:20, tenants.label:premium"},
		{"profile", "jit", "p.yaml:24, tenants.acme-one"},
		{"egress.deny", `["c.example", "b.example"]`, "p.yaml:25, egress.deny and p.yaml:24, tenants.acme-one"},
		{"shard.memory", "1GiB", "p.yaml:5, classes.wasm.memory"},
		{"shard.maxAge", "2h", "p.yaml:5, classes.wasm.maxAge"},
		{"placement.spread", "3", "p.yaml:3, placement.spread"},
	} {
		if d := cmp.Diff(want, got[want.Key]); d != "" {
			t.Error(d)
		}
	}
	for _, v := range p.Explain("else") {
		if v.Key == "class" && v.From != "p.yaml:8, cordons.free.class" || v.Key == "profile" && v.From != "p.yaml:6, classes.slow.profile" {
			t.Errorf("else: %+v", v)
		}
	}
	preset, _ := Preset("strict")
	for _, v := range preset.Explain("any") {
		if v.From != "preset strict" {
			t.Errorf("a preset's value is said to come from elsewhere: %+v", v)
		}
	}
}

func TestDiff(t *testing.T) {
	parse := func(doc string) *Policy {
		t.Helper()
		p, err := Parse("p.yaml", []byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	a := parse("cordons: {paid: {}}")
	b := parse("cordons: {paid: {}}\nlimits: {cpu: 20ms}\ntenants: {p: {cordon: paid}, e: {egress: {public: false}, limits: {cpu: 50ms}}}")
	for _, c := range []struct {
		tenant         string
		keys           []string
		moves, renewed bool
	}{
		{"p", []string{"cordon", "limits.cpu"}, true, true},
		{"e", []string{"egress.public"}, false, false},
		{"else", []string{"limits.cpu"}, false, true},
	} {
		d := a.Diff(b, c.tenant)
		var keys []string
		for _, ch := range d.Changes {
			keys = append(keys, ch.Key)
		}
		if !slices.Equal(keys, c.keys) || d.Moves != c.moves || d.Renewed != c.renewed {
			t.Errorf("%s: %+v, want %+v", c.tenant, d, c)
		}
	}
	if d := a.DiffHost(b); len(d) != 1 || d[0] != (Change{"limits.cpu", "50ms", "20ms"}) {
		t.Errorf("host: %v", d)
	}
}

// The schema for editors knows every key the parser knows, says something of each, and no key more.
func TestSchema(t *testing.T) {
	var root map[string]any
	if err := json.Unmarshal(Schema(), &root); err != nil {
		t.Fatal(err)
	}
	seen := 0
	var walk func(path string, s map[string]any)
	walk = func(path string, s map[string]any) {
		props, _ := s["properties"].(map[string]any)
		for key, v := range props {
			prop := v.(map[string]any)
			if text, _ := prop["description"].(string); text == "" || strings.HasPrefix(text, ";") {
				t.Errorf("%s%s has no description", path, key)
			}
			seen++
			walk(path+key+".", prop)
		}
		if extra, ok := s["additionalProperties"].(map[string]any); ok {
			walk(path+"*.", extra)
		} else if props != nil && s["additionalProperties"] != false {
			t.Errorf("%s: unknown keys pass", path)
		}
	}
	walk("", root)
	if seen < 100 {
		t.Errorf("only %d keys", seen)
	}
	p, _ := Preset("standard")
	r := &reader{p: p}
	for _, f := range r.top() {
		if root["properties"].(map[string]any)[f.name] == nil {
			t.Errorf("the schema does not know %q", f.name)
		}
	}
}

// Reflection fails on a field of the policy that no key shows: what cannot be shown cannot be set, and
// would be in force unseen.
func TestEveryValueIsShown(t *testing.T) {
	p, _ := Preset("standard")
	base := p.flat()
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				if f := v.Type().Field(i); f.IsExported() {
					walk(path+"."+f.Name, v.Field(i))
				}
			}
			return
		case reflect.Array:
			for i := range v.Len() {
				walk(path, v.Index(i))
			}
			return
		case reflect.Int, reflect.Int64:
			old := v.Int()
			v.SetInt(old + 1)
			defer v.SetInt(old)
		case reflect.Uint64:
			old := v.Uint()
			v.SetUint(old + 1<<20)
			defer v.SetUint(old)
		case reflect.Float64:
			old := v.Float()
			v.SetFloat(old + 1)
			defer v.SetFloat(old)
		case reflect.Bool:
			old := v.Bool()
			v.SetBool(!old)
			defer v.SetBool(old)
		default:
			return // texts, lists and maps: read back by other tests
		}
		if reflect.DeepEqual(base, p.flat()) {
			t.Errorf("Policy%s can be changed without being shown", path)
		}
	}
	walk("", reflect.ValueOf(p).Elem())
}

var update = flag.Bool("update", false, "rewrite docs/policy.schema.json")

// docs/policy.schema.json is what editors are pointed at.
func TestSchemaUpToDate(t *testing.T) {
	const file = "../docs/policy.schema.json"
	if *update {
		if err := os.WriteFile(file, Schema(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(b, Schema()) {
		t.Errorf("%s is not what the table says (%v): run make generate", file, err)
	}
}

// What docs/POLICY.md shows is a policy.
func TestDocumentedExample(t *testing.T) {
	b, err := os.ReadFile("../docs/POLICY.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "```yaml\n")
	example, _, found := strings.Cut(rest, "```")
	p, err := Parse("docs/POLICY.md", []byte(example))
	if err != nil || !found {
		t.Fatal(err)
	}
	if got := p.For("shop"); got.Cordon != "paid" || got.Limits.CPU != 100*time.Millisecond {
		t.Errorf("shop: %+v", got)
	}
	if got := p.For("x-preview"); got.Cordon != "free" || got.Class != "careful" || got.Limits.CPU != 10*time.Millisecond {
		t.Errorf("x-preview: %+v", got)
	}
}
