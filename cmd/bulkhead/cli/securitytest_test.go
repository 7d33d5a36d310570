package cli_test

import (
	"encoding/json"
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestSecuritytestUsage(t *testing.T) {
	a := run(t, binary, "securitytest", "--list")
	for _, want := range []string{"syscalls\n", "  cannot open a file\n", "  cannot see a neighbour\n", "  cannot make a system call that is not on the list\n"} {
		if !strings.Contains(a.out, want) || a.code != 0 {
			t.Errorf("--list lacks %q: %+v", want, a)
		}
	}
	for _, args := range [][]string{{"--suite", "nonsense"}, {"--mode", "nonsense"}, {"--profile", "nonsense"}, {"nonsense"}, {"--json", "a", "b"}} {
		if a := run(t, binary, append([]string{"securitytest"}, args...)...); a.code != 2 || a.err == "" {
			t.Errorf("%q: %+v", args, a)
		}
	}
	self := install(t, "bulkhead-launcher", "bulkhead-gateway", "bulkhead-worker")
	if a := run(t, self, "securitytest"); a.code != 1 || !strings.Contains(a.err, "bulkhead-securityseat is not in") || !strings.Contains(a.err, "make build") {
		t.Errorf("without the seat: %+v", a)
	}
}

// One suite, for real, in all three forms of report.
func TestSecuritytestReports(t *testing.T) {
	dir, err := os.MkdirTemp("", "bhcli")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // the rootless launcher is another user
		t.Fatal(err)
	}
	for _, args := range [][]string{{dir + "/", "bulkhead/cmd/..."}, {filepath.Join(dir, "bulkhead-securityseat"), "bulkhead/securitytests/seat"}} {
		if out, err := exec.Command("go", "build", "-o", args[0], args[1]).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	self := filepath.Join(dir, "bulkhead")
	junit, js := filepath.Join(t.TempDir(), "report.xml"), filepath.Join(t.TempDir(), "report.json")
	a := run(t, self, "securitytest", "--suite", "files", "--profile", "jitless", "--junit", junit, "--json", js)
	if a.code != 0 || !strings.Contains(a.out, "  cannot open a file") || !strings.Contains(a.out, " 0 broken") || !strings.Contains(a.err, "cannot open a device (jitless, rootless)") {
		t.Errorf("%+v", a)
	}
	var results []struct{ Promise, Profile, Mode, Status, Detail string }
	text, err := os.ReadFile(js)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &results); err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Promise == "" || r.Profile != "jitless" || r.Mode != "root" && r.Mode != "rootless" || r.Status != "held" && r.Status != "not shown" || r.Detail == "" {
			t.Errorf("%+v", r)
		}
		if r.Mode == "root" && os.Getuid() != 0 && r.Status != "not shown" {
			t.Errorf("without root: %+v", r)
		}
	}
	var suite struct {
		Tests int `xml:"tests,attr"`
	}
	if text, err = os.ReadFile(junit); err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(text, &suite); err != nil || suite.Tests != len(results) || len(results) != 8 {
		t.Errorf("%d results, %d in JUnit (%v)", len(results), suite.Tests, err)
	}
}

// By hand the seat is of no use to anybody.
func TestTheSeatIsInert(t *testing.T) {
	seat := filepath.Join(t.TempDir(), "bulkhead-securityseat")
	if out, err := exec.Command("go", "build", "-o", seat, "bulkhead/securitytests/seat").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, argv0 := range []string{seat, "bulkhead-worker", "bulkhead-gateway"} {
		cmd := exec.Command(seat)
		cmd.Args = []string{argv0}
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "bulkhead-launcher") {
			t.Errorf("%s: %v: %s", argv0, err, out)
		}
	}
}
