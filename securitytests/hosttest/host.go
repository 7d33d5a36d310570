// Package hosttest runs a real bulkhead host for tests: the real binaries, started as people start
// them, on a loopback port of their own, with tenants in a folder of their own. It knows nothing of
// the host's insides; it looks at it as a client, as an operator, or through /proc.
package hosttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Options say how a host differs from what `bulkhead serve` does by default.
type Options struct {
	Tenants   map[string]Files // tenant id → its folder
	Args      []string         // further flags of `bulkhead serve`
	Policy    string           // the policy document, given with --config
	WorkerDir string           // where to take bulkhead-worker from instead (sabotaged builds)
	Rootless  bool             // run as an ordinary user; needs root to become one
	Quiet     bool             // the host's own log is shown only when the test fails
}

// Files are a tenant's files by name.
type Files map[string]string

// Worker is a tenant of one file.
func Worker(source string) Files { return Files{"worker.js": source} }

// Host is a running bulkhead.
type Host struct {
	Addr    string // host:port of the public listener
	Admin   string // path of the admin socket
	Tenants string // folder of the tenants
	Data    string
	PID     int // of the launcher: `bulkhead serve` becomes it

	t      testing.TB
	cmd    *exec.Cmd
	log    *logBuffer
	client *http.Client
	exited chan error
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

var buildOnce = sync.OnceValues(func() (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, ".build", "testbin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	// Test binaries of several packages run at once and share the build.
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	cmd := exec.Command("go", "build", "-o", dir+"/", "./cmd/...")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/...: %w\n%s", err, out)
	}
	return dir, nil
})

func moduleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

// Binaries builds the four binaries once a test run and returns their folder.
func Binaries(t testing.TB) string {
	t.Helper()
	dir, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Build builds one package (for sabotaged or hostile workers) to the named file.
func Build(t testing.TB, pkg, out string, flags ...string) {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", append(append([]string{"build", "-o", out}, flags...), pkg)...)
	cmd.Dir = root
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, b)
	}
}

// RootlessID is the uid and gid of rootless hosts.
const RootlessID = 29_991 // an id no account of a usual system has

// Start runs a host and waits until it answers. It is stopped, and looked after, when the test ends.
func Start(t testing.TB, o Options) *Host {
	t.Helper()
	bin := Binaries(t)
	// Not t.TempDir: its long names pass the 107 bytes a unix socket's path may have (unix(7)).
	dir, err := os.MkdirTemp("", "bh")
	if err != nil {
		t.Fatal(err)
	}
	h := &Host{t: t, Tenants: filepath.Join(dir, "tenants"), Data: filepath.Join(dir, "data"),
		Admin: filepath.Join(dir, "data", "admin.sock"), log: &logBuffer{}, exited: make(chan error, 1)}
	for _, d := range []string{dir, h.Tenants, h.Data} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for id, files := range o.Tenants {
		h.Put(id, files)
	}
	h.Addr = freeAddr(t)
	args := []string{"serve", "--listen", h.Addr, "--admin", h.Admin, "--tenants", h.Tenants, "--data", h.Data}
	if o.Policy != "" {
		// In a folder of its own: all of it is shown to the gateway.
		path := filepath.Join(dir, "config", "policy.yaml")
		if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(o.Policy), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	if o.WorkerDir != "" {
		args = append(args, "--worker-dir", o.WorkerDir)
	}
	if o.Rootless {
		args = append(args, "--accept", "cgroup")
	}
	h.cmd = exec.Command(filepath.Join(bin, "bulkhead"), append(args, o.Args...)...)
	h.cmd.Stdout, h.cmd.Stderr = h.log, h.log
	h.cmd.Dir = "/"
	h.cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + dir}
	if o.Rootless {
		if os.Getuid() == 0 {
			for _, d := range []string{dir, h.Data, h.Tenants} {
				if err := os.Chown(d, RootlessID, RootlessID); err != nil {
					t.Fatal(err)
				}
			}
			h.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: RootlessID, Gid: RootlessID}}
		}
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatalf("start host: %v", err)
	}
	h.PID = h.cmd.Process.Pid
	go func() { h.exited <- h.cmd.Wait(); close(h.exited) }()
	h.client = &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", h.Addr)
			},
			MaxIdleConnsPerHost: 1024,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       60 * time.Second,
	}
	t.Cleanup(func() {
		h.client.CloseIdleConnections()
		h.Stop()
		if t.Failed() || !o.Quiet && testing.Verbose() {
			t.Logf("the host's log:\n%s", h.log)
		}
		os.RemoveAll(dir)
	})
	h.waitReady()
	return h
}

func freeAddr(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (h *Host) waitReady() {
	h.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		select {
		case err := <-h.exited:
			h.t.Fatalf("the host ended while starting: %v\n%s", err, h.log)
		default:
		}
		var status struct{}
		err := h.AdminGet("/v1/status", &status)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("the host is not ready after 60 s: %v\n%s", err, h.log)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Put writes a tenant's folder; files that it does not name stay.
func (h *Host) Put(id string, files Files) {
	h.t.Helper()
	for name, text := range files {
		path := filepath.Join(h.Tenants, id, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			h.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			h.t.Fatal(err)
		}
	}
}

// Log is what the host has printed.
func (h *Host) Log() string { return h.log.String() }

// Client speaks to the public listener whatever the URL's host says.
func (h *Host) Client() *http.Client { return h.client }

// Answer is a whole response.
type Answer struct {
	Status  int
	Header  http.Header
	Body    string
	Outcome string // the header bulkhead-outcome
}

// Get asks a tenant for a path.
func (h *Host) Get(tenant, path string) Answer {
	h.t.Helper()
	a, err := h.Do("GET", tenant, path, nil)
	if err != nil {
		h.t.Fatalf("GET %s %s: %v\n%s", tenant, path, err, h.log)
	}
	return a
}

// Do sends one request to a tenant and reads the whole answer.
func (h *Host) Do(method, tenant, path string, body io.Reader) (Answer, error) {
	req, err := http.NewRequest(method, "http://"+tenant+".localhost"+path, body)
	if err != nil {
		return Answer{}, err
	}
	return h.Send(req)
}

// Send sends req and reads the whole answer.
func (h *Host) Send(req *http.Request) (Answer, error) {
	resp, err := h.client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: string(b), Outcome: resp.Header.Get("bulkhead-outcome")}, err
}

// AdminGet asks the operator's API and decodes its JSON; a *string gets the text as it is.
func (h *Host) AdminGet(path string, into any) error { return h.admin("GET", path, into) }

// AdminPost asks the operator's API to do something.
func (h *Host) AdminPost(path string) error { return h.admin("POST", path, nil) }

func (h *Host) admin(method, path string, into any) error {
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", h.Admin)
		}}}
	req, err := http.NewRequest(method, "http://admin"+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("admin %s %s: %s: %s", method, path, resp.Status, b)
	}
	switch into := into.(type) {
	case nil:
		return nil
	case *string:
		*into = string(b)
		return nil
	}
	return json.Unmarshal(b, into)
}

// Shard is a row of `bulkhead shards --json`.
type Shard struct {
	ID       uint32   `json:"id"`
	PID      int      `json:"pid"`
	Class    string   `json:"class"`
	Profile  string   `json:"profile"`
	Sealed   bool     `json:"sealed"`
	Tenants  []string `json:"tenants"`
	Isolates int      `json:"isolates"`
	RSSBytes uint64   `json:"rssBytes"`
}

// Shards lists the running shards.
func (h *Host) Shards() []Shard {
	h.t.Helper()
	var s []Shard
	if err := h.AdminGet("/v1/shards", &s); err != nil {
		h.t.Fatal(err)
	}
	return s
}

// Incident is a row of `bulkhead incidents --json`.
type Incident struct {
	ID      string   `json:"id"`
	Kind    string   `json:"kind"`
	Shard   uint32   `json:"shard"`
	Tenants []string `json:"tenants"`
	Outcome string   `json:"outcome"`
	Signal  string   `json:"signal"`
	Syscall *string  `json:"syscall"`
	Detail  string   `json:"detail"`
}

// Incidents lists what went wrong so far.
func (h *Host) Incidents() []Incident {
	h.t.Helper()
	var s []Incident
	if err := h.AdminGet("/v1/incidents", &s); err != nil {
		h.t.Fatal(err)
	}
	return s
}

// Signal sends the launcher a signal.
func (h *Host) Signal(sig syscall.Signal) {
	h.t.Helper()
	if err := syscall.Kill(h.PID, sig); err != nil {
		h.t.Fatalf("kill %d: %v", h.PID, err)
	}
}

// Wait waits for the launcher's end.
func (h *Host) Wait(d time.Duration) error {
	select {
	case err := <-h.exited:
		return err
	case <-time.After(d):
		return fmt.Errorf("the host still runs after %v", d)
	}
}

// Stop ends the host in order and fails the test if it does not end.
func (h *Host) Stop() {
	h.t.Helper()
	if err := syscall.Kill(h.PID, syscall.SIGTERM); errors.Is(err, syscall.ESRCH) {
		return
	}
	if err := h.Wait(45 * time.Second); err != nil && strings.Contains(err.Error(), "still runs") {
		syscall.Kill(h.PID, syscall.SIGKILL)
		h.t.Errorf("%v", err)
	}
}

// Eventually polls until ok holds or the time is over.
func Eventually(t testing.TB, d time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(d); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", d, what)
		}
	}
}
