package suites

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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// house is a whole host, as people start it: `bulkhead serve` with tenants of the suite's own.
type house struct {
	pid    int
	dir    string
	cmd    *exec.Cmd
	public http.Client
	admin  http.Client
	done   chan struct{}

	mu  sync.Mutex
	log bytes.Buffer // guarded by mu
}

// Write keeps the host's log.
func (h *house) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.log.Len() < 1<<20 {
		h.log.Write(p)
	}
	return len(p), nil
}

func (h *house) text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.String()
}

// openHouse starts a host in a mode and waits until it serves.
func openHouse(ctx context.Context, bulkhead string, mode Mode, policy string, tenants map[string]map[string]string) (*house, error) {
	dir, err := os.MkdirTemp("", "bhh") // short: a unix socket's path has 107 bytes
	if err != nil {
		return nil, fmt.Errorf("house: %w", err)
	}
	h := &house{dir: dir, done: make(chan struct{})}
	files := map[string]string{"config/policy.yaml": policy}
	for id, all := range tenants {
		for name, text := range all {
			files[filepath.Join("tenants", id, name)] = text
		}
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		err = errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644))
	}
	l, lerr := net.Listen("tcp", "127.0.0.1:0")
	if err = errors.Join(err, lerr, os.Mkdir(filepath.Join(dir, "data"), 0o755), os.Chmod(dir, 0o755)); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("house: %w", err)
	}
	addr := l.Addr().String()
	l.Close()
	data := filepath.Join(dir, "data")
	sock := filepath.Join(data, "admin.sock")
	h.cmd = exec.Command(bulkhead, "serve", "--listen", addr, "--admin", sock, "--tenants", filepath.Join(dir, "tenants"),
		"--data", data, "--config", filepath.Join(dir, "config", "policy.yaml"))
	h.cmd.Env, h.cmd.Dir, h.cmd.Stdout, h.cmd.Stderr = []string{"PATH=/usr/bin:/bin", "HOME=" + dir}, "/", h, h
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if mode == Rootless {
		h.cmd.Args = append(h.cmd.Args, "--accept", "cgroup")
		if os.Getuid() == 0 {
			h.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: rootlessID, Gid: rootlessID}
			err = errors.Join(os.Lchown(dir, rootlessID, rootlessID), os.Lchown(data, rootlessID, rootlessID), os.Lchown(filepath.Join(dir, "tenants"), rootlessID, rootlessID))
		}
	}
	if err = errors.Join(err, h.cmd.Start()); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("house: %w", err)
	}
	h.pid = h.cmd.Process.Pid
	go func() {
		_ = h.cmd.Wait() // how it ended stands in its log
		close(h.done)
	}()
	dial := func(network, to string) http.Client {
		return http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, to)
		}}}
	}
	h.public, h.admin = dial("tcp", addr), dial("unix", sock)
	if err := h.await(ctx); err != nil {
		h.close()
		return nil, fmt.Errorf("house: %w: %s", err, strings.TrimSpace(h.text()))
	}
	return h, nil
}

func (h *house) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		if _, err := h.ask(ctx, "GET", "/v1/status"); err == nil {
			return nil
		}
		select {
		case <-h.done:
			return errors.New("the host ended")
		case <-ctx.Done():
			return fmt.Errorf("the host does not answer: %w", context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// close ends the host and removes its folder.
func (h *house) close() {
	h.public.CloseIdleConnections()
	_ = h.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-h.done:
	case <-time.After(30 * time.Second):
		_ = h.cmd.Process.Kill()
		<-h.done
	}
	os.RemoveAll(h.dir)
}

// send asks a tenant.
func (h *house) send(req *http.Request) (status int, body string, err error) {
	resp, err := h.public.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func (h *house) get(ctx context.Context, tenant, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+tenant+".localhost"+path, nil)
	if err != nil {
		return "", err
	}
	status, body, err := h.send(req)
	if err == nil && status != 200 {
		err = fmt.Errorf("%s: status %d: %.300s", tenant, status, body)
	}
	return body, err
}

// ask asks as an operator.
func (h *house) ask(ctx context.Context, method, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://admin"+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := h.admin.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %.300s", method, path, resp.Status, b)
	}
	return string(b), err
}

// shards are the host's processes for tenants: pid and tenants.
func (h *house) shards(ctx context.Context) (map[int][]string, error) {
	text, err := h.ask(ctx, "GET", "/v1/shards")
	if err != nil {
		return nil, err
	}
	var rows []struct {
		PID     int
		Tenants []string
	}
	if err := json.Unmarshal([]byte(text), &rows); err != nil {
		return nil, err
	}
	out := map[int][]string{}
	for _, r := range rows {
		out[r.PID] = r.Tenants
	}
	return out, nil
}

// family is a process and all that it has started.
func family(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		dirs, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, d := range dirs {
			b, err := os.ReadFile(d)
			if err != nil {
				continue
			}
			// The command, in parentheses, may hold anything: fields are counted from its end.
			f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
			if len(f) > 1 && f[1] == strconv.Itoa(all[i]) {
				child, _ := strconv.Atoi(filepath.Base(filepath.Dir(d)))
				all = append(all, child)
			}
		}
	}
	return all
}

// isGateway reports whether a process is a host's gateway, by its constant argv.
func isGateway(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && string(bytes.TrimRight(b, "\x00")) == "bulkhead-gateway"
}
