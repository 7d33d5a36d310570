package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

//go:embed reporter.js
var reporterJS string

// resourcesAddr is where the checkout's files are served to the tests: an address of this machine that
// nothing else has, because it is the only one they may reach.
const resourcesAddr = "127.0.0.2"

// hostPolicy is what tests need beside the preset: time and memory of a browser's page, what the
// specification of WebAssembly is about, and the files they fetch. What they do with their CPU is
// like measuring, and nobody is to be isolated for it.
const hostPolicy = `preset: standard
profile: jit+wasm
limits: {cpu: 40s, wall: 15m, memory: 512MiB, eval: true, wasm: true, subrequests: 10000, scriptSize: 32MiB}
shard: {memory: 3GiB}
suspicion: {watch: 999998, isolate: 999999, stop: 1000000}
egress: {allow: [` + resourcesAddr + `], internal: [` + resourcesAddr + `]}
`

// host is a running bulkhead whose tenants are tests, and the server of the checkout's files.
type host struct {
	addr       string
	resources  string // URL without a path
	policyHash string
	dir        string // removed at the end
	cmd        *exec.Cmd
	ended      chan struct{}
	client     *http.Client
	files      *http.Server
}

func tenantName(i int) string { return fmt.Sprintf("t%d", i) }

// startHost makes a tenant of each test and runs `bulkhead serve` over them.
func startHost(o options, tests []test) (h *host, err error) {
	// Short: a unix socket's path has at most 107 bytes (unix(7)).
	dir, err := os.MkdirTemp(o.scratch, "bhconf")
	if err != nil {
		return nil, err
	}
	h = &host{dir: dir, ended: make(chan struct{})}
	defer func() {
		if err != nil {
			h.stop()
			h = nil
		}
	}()
	for _, d := range []string{dir, dir + "/data", dir + "/tenants", dir + "/config"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return h, err
		}
		if err := os.Chmod(d, 0o755); err != nil { // whatever the umask: the gateway has a user of its own
			return h, err
		}
	}
	root := os.DirFS(o.dir)
	for i, t := range tests {
		text, err := t.source(root)
		if err != nil {
			return h, err
		}
		d := filepath.Join(dir, "tenants", tenantName(i))
		if err := os.Mkdir(d, 0o755); err != nil {
			return h, err
		}
		for name, text := range map[string]string{"worker.js": reporterJS, "test.txt": text} {
			if err := os.WriteFile(filepath.Join(d, name), []byte(text), 0o644); err != nil {
				return h, err
			}
		}
	}
	if err := os.WriteFile(dir+"/config/policy.yaml", []byte(hostPolicy), 0o644); err != nil {
		return h, err
	}
	if err := h.serveFiles(o.dir); err != nil {
		return h, err
	}
	return h, h.serve(o)
}

// serveFiles offers the checkout to the tests, read-only.
func (h *host) serveFiles(dir string) error {
	l, err := net.Listen("tcp", resourcesAddr+":0")
	if err != nil {
		return fmt.Errorf("serve the checkout's files: %w", err)
	}
	h.resources = "http://" + l.Addr().String()
	h.files = &http.Server{Handler: http.FileServerFS(os.DirFS(dir)), ReadHeaderTimeout: 10 * time.Second}
	go h.files.Serve(l)
	return nil
}

// serve starts the host and waits until its operators' API answers.
func (h *host) serve(o options) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	h.addr = l.Addr().String()
	l.Close()
	socket := filepath.Join(h.dir, "data", "admin.sock")
	args := []string{"serve", "--listen", h.addr, "--admin", socket, "--tenants", h.dir + "/tenants", "--data", h.dir + "/data", "--config", h.dir + "/config/policy.yaml"}
	if os.Getuid() != 0 {
		args = append(args, "--accept", "cgroup")
	}
	log, err := os.Create(filepath.Join(h.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	h.cmd = exec.Command(filepath.Join(o.bin, "bulkhead"), args...)
	h.cmd.Stdout, h.cmd.Stderr = log, log
	if err := h.cmd.Start(); err != nil {
		h.cmd = nil
		return err
	}
	go func() { h.cmd.Wait(); close(h.ended) }()
	h.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: o.jobs, DisableCompression: true}}
	admin := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}}
	for deadline := time.Now().Add(2 * time.Minute); ; {
		h.policyHash, err = askHash(admin)
		if err == nil {
			return nil
		}
		select {
		case <-h.ended:
			err = fmt.Errorf("the host ended while it started: %s", h.cmd.ProcessState)
		case <-time.After(20 * time.Millisecond):
			if time.Now().Before(deadline) {
				continue
			}
		}
		text, _ := os.ReadFile(log.Name()) // of a start that failed: a few lines
		return fmt.Errorf("the host is not ready: %w\n%s", err, bytes.TrimSpace(text))
	}
}

func askHash(admin *http.Client) (string, error) {
	resp, err := admin.Get("http://admin/v1/policy")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("admin: %s: %s", resp.Status, strings.TrimSpace(string(b)))
	}
	var p struct {
		Hash string `json:"hash"`
	}
	return p.Hash, json.Unmarshal(b, &p)
}

func (h *host) stop() {
	if h.cmd != nil {
		h.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-h.ended:
		case <-time.After(40 * time.Second):
			h.cmd.Process.Kill()
			<-h.ended
		}
	}
	if h.client != nil {
		h.client.CloseIdleConnections()
	}
	if h.files != nil {
		h.files.Close()
	}
	os.RemoveAll(h.dir)
}
