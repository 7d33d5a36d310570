package sabotage

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bulkhead/securitytests/hosttest"
	"bulkhead/securitytests/suites"
)

// installed is a folder of binaries as people have it, but for its launcher and its seat, which can be
// sabotaged.
func installed(t *testing.T, s sabotage) string {
	t.Helper()
	dir, err := os.MkdirTemp(binaries(t), "i")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	real := hosttest.Binaries(t)
	text, err := os.ReadFile(filepath.Join(real, "bulkhead")) // it looks for the others where it really is
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "bulkhead"), text, 0o755)
	}
	for name, from := range map[string]string{"bulkhead-gateway": real, "bulkhead-worker": real} {
		err = errors.Join(err, os.Symlink(filepath.Join(from, name), filepath.Join(dir, name)))
	}
	for name, from := range map[string]string{"bulkhead-launcher": "launcher", "bulkhead-securityseat": "seat"} {
		err = errors.Join(err, os.Link(filepath.Join(binaries(t), from), filepath.Join(dir, name)))
	}
	err = errors.Join(err, os.WriteFile(filepath.Join(dir, "bulkhead-launcher.skip"), []byte(strings.Join(s.launcher, "\n")), 0o644),
		os.WriteFile(filepath.Join(dir, "bulkhead-securityseat.skip"), []byte(strings.Join(s.child, "\n")), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// A host whose seal has a hole is told so in every form of the report, by exit code 1, and no other
// promise is said to be broken.
func TestABrokenPromiseIsReported(t *testing.T) {
	const promise = "cannot signal another process"
	mode := "root"
	if os.Getuid() != 0 {
		mode = "rootless"
	}
	run := func(s sabotage) (code int, out string, results []map[string]string, failures int) {
		dir := installed(t, s)
		js, junit := filepath.Join(dir, "report.json"), filepath.Join(dir, "report.xml")
		cmd := exec.Command(filepath.Join(dir, "bulkhead"), "securitytest", "--suite", "neighbours", "--profile", "jitless", "--mode", mode, "--json="+js, "--junit", junit)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		text, jerr := os.ReadFile(js)
		if jerr == nil {
			jerr = json.Unmarshal(text, &results)
		}
		var suite struct {
			Failures int `xml:"failures,attr"`
		}
		xmlText, xerr := os.ReadFile(junit)
		if xerr == nil {
			xerr = xml.Unmarshal(xmlText, &suite)
		}
		if err := errors.Join(jerr, xerr); err != nil {
			t.Fatalf("%v\n%s\n%s", err, &stdout, &stderr)
		}
		return cmd.ProcessState.ExitCode(), stdout.String(), results, suite.Failures
	}
	for name, tc := range map[string]struct {
		gone   sabotage
		broken int
	}{"sound": {}, "without the filter of tgkill": {inLauncher("row tgkill"), 1}} {
		t.Run(name, func(t *testing.T) {
			code, out, results, failures := run(tc.gone)
			if code != tc.broken || failures != tc.broken {
				t.Errorf("exit code %d, %d failures in JUnit, want %d of both:\n%s", code, failures, tc.broken, out)
			}
			broken := 0
			for _, r := range results {
				// The names are a contract, letter by letter.
				if names := slices.Sorted(maps.Keys(r)); !slices.Equal(names, []string{"detail", "mode", "profile", "promise", "status"}) {
					t.Fatalf("the fields are %q", names)
				}
				switch r["status"] {
				case "broken":
					broken++
					if r["promise"] != promise || r["profile"] != "jitless" || r["mode"] != mode || !strings.Contains(r["detail"], "tgkill") && !strings.Contains(r["detail"], "signal a neighbour's thread") {
						t.Errorf("%v", r)
					}
				case "held", "not shown":
				default:
					t.Errorf("status %q", r["status"])
				}
			}
			if broken != tc.broken || len(results) < 7 {
				t.Errorf("%d of %d broken, want %d", broken, len(results), tc.broken)
			}
			for _, p := range suites.Promises() {
				if said := strings.Contains(out, p.Gain) && strings.Contains(out, p.Repair); p.Name == promise && said != (tc.broken > 0) {
					t.Errorf("what an attacker gains and how to repair it is said: %t\n%s", said, out)
				}
			}
		})
	}
}
