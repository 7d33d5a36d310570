package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func inFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPolicyExplainNamesTheLine(t *testing.T) {
	doc := inFile(t, "p.yaml", "limits:\n  cpu: 20ms\ntenants:\n  \"acme-*\":\n    limits: {timers: 7}\n")
	a := run(t, binary, "policy", "explain", "acme-shop", "--config", doc)
	if a.code != 0 {
		t.Fatalf("%+v", a)
	}
	for _, want := range [][]string{
		{"limits.cpu", "20ms", doc + ":2, limits.cpu"},
		{"limits.timers", "7", doc + ":5, tenants.acme-*"},
		{"limits.wall", "30s", "preset standard"},
		{"kernel", "jit: 29 system calls are left", "no WebAssembly"},
	} {
		found := false
		for line := range strings.Lines(a.out) {
			ok := strings.HasPrefix(line, want[0])
			for _, w := range want[1:] {
				ok = ok && strings.Contains(line, w)
			}
			found = found || ok
		}
		if !found {
			t.Errorf("no line says %v:\n%s", want, a.out)
		}
	}
	var e struct{ Values []struct{ Key, From string } }
	a = run(t, binary, "policy", "explain", "x", "--preset", "strict", "--json")
	if err := json.Unmarshal([]byte(a.out), &e); err != nil || len(e.Values) < 25 || e.Values[0].From != "preset strict" {
		t.Errorf("%v %+v", err, a)
	}
	if a := run(t, binary, "policy", "explain", "No_Tenant", "--preset", "strict"); a.code != 2 {
		t.Errorf("a bad tenant id: %+v", a)
	}
}

func TestPolicyDiff(t *testing.T) {
	doc := inFile(t, "p.yaml", "limits: {cpu: 20ms}\ncordons: {paid: {}}\ntenants: {shop: {cordon: paid}, same: {}}\n")
	roots := t.TempDir()
	if err := os.Mkdir(filepath.Join(roots, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	a := run(t, binary, "policy", "diff", "standard", doc, "--tenants", roots)
	if a.code != 0 || !strings.Contains(a.out, "3 of 3 tenants compared change, 1 of them move") || !strings.Contains(a.out, "moves to another process") || !strings.Contains(a.out, "folder") {
		t.Errorf("%+v", a)
	}
	if a := run(t, binary, "policy", "diff", doc, doc); a.code != 0 || !strings.HasPrefix(a.out, "no difference") {
		t.Errorf("%+v", a)
	}
	if a := run(t, binary, "policy", "diff", "standard"); a.code != 2 {
		t.Errorf("one argument: %+v", a)
	}
	if a := run(t, binary, "policy", "diff", "standard", "nowhere.yaml"); a.code != 1 || !strings.Contains(a.err, "nowhere.yaml") {
		t.Errorf("a missing file: %+v", a)
	}
}

func TestPolicySimulate(t *testing.T) {
	line := func(second, tenant, seen string) string {
		return `{"kind":"observed","time":"2026-01-02T03:04:` + second + `Z","tenant":"` + tenant + `","seen":{` + seen + "}}\n"
	}
	rec := inFile(t, "events.jsonl", line("00", "spy-1", `"bracketedCpu":60`)+line("00", "shop", `"remoteCpu":9000`)+line("01", "spy-1", `"bracketedCpu":60`)+line("02", "chat", `"bracketedCpu":55`))
	strict := inFile(t, "p.yaml", "suspicion: {watch: 20, isolate: 50}\n")
	a := run(t, binary, "policy", "simulate", "--events", rec, "--policy", "standard", "--guilty", "spy-*")
	if a.code != 0 || !strings.Contains(a.out, "3 tenants, 1 isolated, 0 false alarms, 0 of the guilty missed") || !strings.Contains(a.out, "1.00 s") {
		t.Errorf("%+v", a)
	}
	a = run(t, binary, "policy", "simulate", "--events", rec, "--policy", strict, "--guilty", "spy-*", "--json")
	var s struct{ Isolated, FalseAlarms, Missed int }
	if err := json.Unmarshal([]byte(a.out), &s); err != nil || s.Isolated != 2 || s.FalseAlarms != 1 || s.Missed != 0 {
		t.Errorf("%v %+v", err, a)
	}
	if a := run(t, binary, "policy", "simulate", "--events", rec); a.code != 2 {
		t.Errorf("no policy: %+v", a)
	}
	bad := inFile(t, "bad.jsonl", "\n{}\n")
	if a := run(t, binary, "policy", "simulate", "--events", bad, "--policy", "standard"); a.code != 1 || !strings.Contains(a.err, "bad.jsonl:2") {
		t.Errorf("a bad recording: %+v", a)
	}
}

func TestPolicySchema(t *testing.T) {
	var s struct{ Properties map[string]any }
	a := run(t, binary, "policy", "schema")
	if err := json.Unmarshal([]byte(a.out), &s); err != nil || s.Properties["suspicion"] == nil {
		t.Errorf("%v %+v", err, a)
	}
}
