package suspicion

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func recording(t *testing.T) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for i := range 400 {
		now := start.Add(time.Duration(i) * 250 * time.Millisecond)
		for tenant, seen := range map[string]Signals{"attacker": of(Bracketed, 2), "honest": of(Remote, 50), "chat": of(Bracketed, 0.2)} {
			if err := enc.Encode(Record(tenant, seen, true, now)); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.WriteString(`{"kind":"incident","tenant":"honest","detail":"not an observation"}` + "\n\n")
	return &b
}

func TestSimulateTellsWhoWouldHaveBeenIsolatedWhen(t *testing.T) {
	rec := recording(t).Bytes()
	cfg := Default()
	for _, c := range []struct {
		name    string
		change  func(*Config)
		verdict map[string]string
		after   float64 // of the attacker, seconds
	}{
		{"as shipped", func(*Config) {}, map[string]string{"attacker": "isolate", "chat": "watch", "honest": "none"}, 12.25},
		{"twice as strict", func(c *Config) { c.Watch, c.Isolate = 25, 50 }, map[string]string{"attacker": "isolate", "chat": "isolate", "honest": "none"}, 6},
		{"too lax", func(c *Config) { c.Weights[Bracketed] = 0.01 }, map[string]string{"attacker": "none", "chat": "none", "honest": "none"}, 0},
		{"off", func(c *Config) { c.Enabled = false }, map[string]string{"attacker": "none", "chat": "none", "honest": "none"}, 0},
	} {
		cfg := cfg
		c.change(&cfg)
		got, err := Simulate(&cfg, "rec", bytes.NewReader(rec))
		if err != nil || len(got) != 3 {
			t.Fatalf("%s: %d tenants, %v", c.name, len(got), err)
		}
		for _, co := range got {
			if co.Verdict != c.verdict[co.Tenant] || co.Why == "" {
				t.Errorf("%s: %s: %s (%s), want %s", c.name, co.Tenant, co.Verdict, co.Why, c.verdict[co.Tenant])
			}
			if co.Tenant == "attacker" && (co.After < c.after-0.3 || co.After > c.after+0.3) {
				t.Errorf("%s: isolated after %v s, want %v", c.name, co.After, c.after)
			}
		}
	}
}

func TestSimulateNamesTheLine(t *testing.T) {
	good := `{"time":"2026-01-02T03:04:05Z","tenant":"a","seen":{"cpu":1}}` + "\n"
	for _, c := range []struct{ doc, want string }{
		{good + "nonsense\n", "rec:2: not a recorded event"},
		{good + good + `{"time":"2026-01-02T03:04:05Z","tenant":"a","seen":{"cpus":1}}`, `rec:3: no signal "cpus": one of bracketedCpu`},
		{`{"tenant":"a","seen":{}}`, `rec:1: an observation needs "time"`},
		{`{"time":"2026-01-02T03:04:05Z","seen":{}}`, `rec:1: an observation needs "time"`},
		{good + strings.Repeat("x", maxLine+1), "rec:2:"},
	} {
		cfg := Default()
		if _, err := Simulate(&cfg, "rec", strings.NewReader(c.doc)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80q: %v, want %q", c.doc, err, c.want)
		}
	}
}

func FuzzSimulate(f *testing.F) {
	f.Add([]byte(`{"time":"2026-01-02T03:04:05Z","tenant":"a","seen":{"cpu":1}}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		cfg := Default()
		got, err := Simulate(&cfg, "rec", bytes.NewReader(doc))
		if err == nil {
			for _, co := range got {
				if co.Highest < 0 || co.Verdict == "unknown" {
					t.Errorf("%+v", co)
				}
			}
		}
	})
}
