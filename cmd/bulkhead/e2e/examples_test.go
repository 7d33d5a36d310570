package e2e

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"bulkhead/securitytests/hosttest"
)

// examplesPolicy is the examples' own policy, with the host API's socket in dir.
func examplesPolicy(t *testing.T, examples, dir string) string {
	t.Helper()
	policy, err := os.ReadFile(filepath.Join(examples, "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Replace(string(policy), "/srv/bulkhead/inventory", dir, 1)
}

// TestExamples serves the folder examples/ as `make run` does. Those with npm packages need them
// installed, which `make test` does before.
func TestExamples(t *testing.T) {
	examples, err := filepath.Abs("../../../examples")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"hono-app", "preact-ssr"} {
		if _, err := os.Stat(filepath.Join(examples, d, "node_modules")); err != nil {
			t.Fatalf("%v: run `make examples` (make test does)", err)
		}
	}
	dir := socketDir(t)
	hosttest.Build(t, "./examples/stock/inventory", filepath.Join(dir, "service"))
	service := exec.Command(filepath.Join(dir, "service"), "--socket", filepath.Join(dir, "http.sock"))
	service.Stderr = os.Stderr
	runtime.LockOSThread() // whose end would be the service's
	defer runtime.UnlockOSThread()
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { service.Process.Kill(); service.Wait() })
	h := hosttest.Start(t, hosttest.Options{Args: []string{"--tenants", examples, "--index"}, Quiet: true,
		Policy: examplesPolicy(t, examples, dir)})
	for _, c := range []struct{ method, tenant, path, body, want, contentType string }{
		{"GET", "hello", "/", "", "Hello", "text/"},
		{"GET", "service-worker", "/", "", "GET", "text/"},
		{"GET", "json-api", "/", "", "links", "application/json"},
		{"POST", "json-api", "/books", `{"title":"Snow Crash","author":"Neal Stephenson","year":1992}`, "Snow Crash", "application/json"},
		{"POST", "json-api", "/books", `{"title":`, "", "application/json"},
		{"GET", "hono-app", "/", "", "<", "text/html"},
		{"GET", "preact-ssr", "/", "", "<!doctype html>", "text/html"},
		{"GET", "streaming", "/", "", "5", "text/"},
		{"PUT", "upload", "/count", strings.Repeat("bulkhead\n", 1000), "9000", ""},
		{"GET", "chat", "/", "", "<!doctype html>", "text/html"},
		{"GET", "front", "/?name=you&l=en,sv", "", "Hello, you!\nHej, you!", "text/"},
		{"GET", "front", "/?l=tlh", "", "RangeError: I speak no tlh.", "text/"},
		{"POST", "front", "/echo", "hi", "POST /echo: hi", "text/"},
		{"GET", "stock", "/", "", "bolts 40\nnuts 38\n", "text/"},
		{"PUT", "stock", "/bolts", "12", "bolts 12\n", "text/"},
		{"GET", "stock", "/whoami", "", "tenant stock\nrequest ", "text/"},
		{"PUT", "upload", "/upper", "shout", "SHOUT", ""},
	} {
		t.Run(c.tenant+" "+c.method+" "+c.path, func(t *testing.T) {
			req, err := http.NewRequest(c.method, "http://"+c.tenant+".localhost"+c.path, bytes.NewReader([]byte(c.body)))
			if err != nil {
				t.Fatal(err)
			}
			if c.contentType == "application/json" {
				req.Header.Set("Content-Type", "application/json")
			}
			a, err := h.Send(req)
			if err != nil || a.Outcome != "" || !strings.Contains(a.Body, c.want) || !strings.HasPrefix(a.Header.Get("Content-Type"), c.contentType) {
				t.Errorf("%v: %d %s %q %.300s", err, a.Status, a.Outcome, a.Header.Get("Content-Type"), a.Body)
			}
			if c.want == "" && (a.Status != 400 || !json.Valid([]byte(a.Body))) {
				t.Errorf("bad JSON is answered %d %s", a.Status, a.Body)
			}
		})
	}
	a, b := dialWS(t, h, "chat"), dialWS(t, h, "chat")
	a.frame(0x81, []byte("to all"))
	for _, w := range []*wsConn{a, b} {
		if op, data, err := w.message(); op != 1 || string(data) != "to all" || err != nil {
			t.Errorf("chat: %d %q %v", op, data, err)
		}
	}
	req, err := http.NewRequest("GET", "http://localhost/", nil)
	if err != nil {
		t.Fatal(err)
	}
	page, err := h.Send(req)
	if err != nil || page.Status != 200 {
		t.Fatalf("the index page: %v %d", err, page.Status)
	}
	for _, tenant := range []string{"hello", "json-api", "hono-app", "preact-ssr", "streaming", "upload"} {
		if !strings.Contains(page.Body, "http://"+tenant+".localhost") {
			t.Errorf("the index page has no link to %s", tenant)
		}
	}
}
