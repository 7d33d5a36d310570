package main

import (
	"context"
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

// target is one running server under test.
type target struct {
	name       string
	addr       string // host:port
	host       string // Host header that reaches the worker
	version    string
	policyHash string
	admin      string // bulkhead's admin socket
	cmd        *exec.Cmd
	dir        string // removed at the end
}

func (t *target) stop() {
	t.cmd.Process.Signal(syscall.SIGTERM)
	ended := make(chan struct{})
	go func() { t.cmd.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(40 * time.Second):
		t.cmd.Process.Kill()
	}
	os.RemoveAll(t.dir)
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (t *target) start(name string, args ...string) error {
	log, err := os.Create(filepath.Join(t.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	t.cmd = exec.Command(name, args...)
	t.cmd.Stdout, t.cmd.Stderr = log, log
	if err := t.cmd.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		status, _, err := get(t.addr, t.host, "/")
		if err == nil && status == 200 {
			return nil
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			t.stop()
			return fmt.Errorf("%s does not answer: status %d, %v\n%s", t.name, status, err, text)
		}
	}
}

// get asks once over a connection of its own and returns the status and the time to the first byte.
func get(addr, host, path string) (int, time.Duration, error) {
	req, err := http.NewRequest("GET", "http://"+addr+path, nil)
	if err != nil {
		return 0, 0, err
	}
	req.Host = host
	start := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return 0, 0, err
	}
	took := time.Since(start)
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, took, err
}

var client = &http.Client{Timeout: 20 * time.Second}

func startBulkhead(o options) (*target, error) {
	dir, err := os.MkdirTemp("", "bhbench")
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	t := &target{name: "bulkhead", addr: addr, host: "hello.localhost", dir: dir, admin: filepath.Join(dir, "data", "admin.sock")}
	worker, err := os.ReadFile(filepath.Join(o.root, "bench/workloads/hello/worker.js"))
	if err != nil {
		return nil, err
	}
	for _, d := range []string{dir, dir + "/data"} {
		os.MkdirAll(d, 0o755)
		os.Chmod(d, 0o755)
	}
	names := []string{"hello"}
	for i := range o.tenants {
		names = append(names, fmt.Sprintf("t%d", i))
	}
	for _, name := range names {
		d := filepath.Join(dir, "tenants", name)
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(d, "worker.js"), worker, 0o644); err != nil {
			return nil, err
		}
	}
	args := []string{"serve", "--listen", addr, "--admin", t.admin, "--tenants", dir + "/tenants", "--data", dir + "/data", "--preset", "standard"}
	if os.Getuid() != 0 {
		args = append(args, "--accept", "cgroup")
	}
	if err := t.start(filepath.Join(o.root, "bin/bulkhead"), args...); err != nil {
		return nil, err
	}
	var p struct {
		Hash string `json:"hash"`
	}
	if err := t.adminGet("/v1/policy", &p); err != nil {
		t.stop()
		return nil, err
	}
	t.policyHash = p.Hash
	return t, nil
}

func startWorkerd(o options) (*target, error) {
	dir, err := os.MkdirTemp("", "wdbench")
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	bin, err := filepath.Glob(filepath.Join(o.root, "bench/peers/node_modules/@cloudflare/workerd-linux-*/bin/workerd"))
	if err != nil || len(bin) == 0 {
		return nil, fmt.Errorf("no workerd for this machine below bench/peers/node_modules (%v)", err)
	}
	version, err := exec.Command(bin[0], "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("workerd --version: %w", err)
	}
	t := &target{name: "workerd", addr: addr, host: "hello.localhost", dir: dir, version: strings.TrimSpace(string(version))}
	return t, t.start(bin[0], "serve", filepath.Join(o.root, "bench/peers/workerd.capnp"), "--socket-addr", "http="+addr)
}

func (t *target) adminGet(path string, into any) error {
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", t.admin)
		}}}
	resp, err := c.Get("http://admin" + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}
