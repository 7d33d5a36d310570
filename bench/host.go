package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// target is one running server under test.
type target struct {
	name    string
	addr    string // host:port
	host    string // Host header that reaches the worker
	version string
	cmd     *exec.Cmd
	dir     string // removed at the end
	ended   chan struct{}
	public  *client

	// Of bulkhead alone.
	info  hostInfo
	admin *client
}

// hostInfo says under which rules a figure was measured.
type hostInfo struct {
	Preset     string `json:"preset"`
	PolicyHash string `json:"policyHash"`
	Profile    string `json:"profile"`
	Beside     string `json:"beside"` // what the policy document adds to the preset; empty for the preset unchanged
}

func (i hostInfo) String() string {
	s := fmt.Sprintf("preset %s, policy %s, profile %s", i.Preset, i.PolicyHash, i.Profile)
	if i.Beside != "" {
		s += ", the preset and " + i.Beside
	}
	return s
}

// hostOptions say how a host differs from `bulkhead serve --preset standard`.
type hostOptions struct {
	tenants func(dir string) error // fills the folder of tenants
	preset  string                 // "" for standard
	policy  string                 // a document given with --config
	beside  string                 // what it says, in words
	args    []string
	bin     string // of other binaries than -bin
	scratch string // where the tenants' folders are put; "" for the temporary directory
}

// startHost runs a sealed host as people start one and waits until its operators' API answers.
func (b *bench) startHost(o hostOptions) (*target, error) {
	// Short: a unix socket's path has at most 107 bytes (unix(7)).
	dir, err := os.MkdirTemp(o.scratch, "bhbench")
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	preset := "standard"
	if o.preset != "" {
		preset = o.preset
	}
	socket := filepath.Join(dir, "data", "admin.sock")
	t := &target{name: "bulkhead", addr: addr, host: "hello.localhost", dir: dir, public: newClient(addr), admin: newClient(socket)}
	t.admin.network = "unix"
	t.info = hostInfo{Preset: preset, Beside: o.beside}
	for _, d := range []string{dir, dir + "/data", dir + "/tenants", dir + "/config"} {
		os.MkdirAll(d, 0o755)
		os.Chmod(d, 0o755) // whatever the umask: the gateway has a user of its own
	}
	if err := o.tenants(dir + "/tenants"); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	args := []string{"serve", "--listen", addr, "--admin", socket, "--tenants", dir + "/tenants", "--data", dir + "/data", "--preset", preset}
	if o.policy != "" {
		path := filepath.Join(dir, "config", "policy.yaml")
		if err := os.WriteFile(path, []byte(o.policy), 0o644); err != nil {
			return nil, err
		}
		args = append(args, "--config", path)
	}
	if os.Getuid() != 0 {
		args = append(args, "--accept", "cgroup")
	}
	if b.maxShards > 0 {
		args = append(args, "--max-shards", fmt.Sprint(b.maxShards))
	}
	bin := b.bin
	if o.bin != "" {
		bin = o.bin
	}
	if err := t.start(filepath.Join(bin, "bulkhead"), append(args, o.args...), func() error {
		var status struct{}
		return t.admin.admin("GET", "/v1/status", &status)
	}); err != nil {
		return nil, err
	}
	if err := t.learn(); err != nil {
		t.stop()
		return nil, err
	}
	return t, nil
}

// learn asks the host for its rules.
func (t *target) learn() error {
	var p struct {
		Hash string `json:"hash"`
	}
	if err := t.admin.admin("GET", "/v1/policy", &p); err != nil {
		return err
	}
	t.info.PolicyHash = p.Hash
	shards, err := t.shards()
	if err == nil && len(shards) > 0 {
		t.info.Profile = shards[0].Profile
	}
	return err
}

// start runs the program and waits until ready says nil.
func (t *target) start(name string, args []string, ready func() error) error {
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
	t.ended = make(chan struct{})
	go func() { t.cmd.Wait(); close(t.ended) }()
	for deadline := time.Now().Add(120 * time.Second); ; {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-t.ended:
			err = fmt.Errorf("%s ended while it started: %s", t.name, t.cmd.ProcessState)
		case <-time.After(20 * time.Millisecond):
			if time.Now().Before(deadline) {
				continue
			}
		}
		err = fmt.Errorf("%s is not ready: %w\n%s", t.name, err, t.log())
		t.stop()
		return err
	}
}

// log is the end of what the target has printed.
func (t *target) log() string {
	text, _ := os.ReadFile(filepath.Join(t.dir, "log"))
	if n := len(text) - 16<<10; n > 0 {
		text = text[n:]
	}
	return string(text)
}

func (t *target) stop() {
	t.public.close()
	if t.admin != nil {
		t.admin.close()
	}
	t.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-t.ended:
	case <-time.After(40 * time.Second):
		t.cmd.Process.Kill()
		<-t.ended
	}
	os.RemoveAll(t.dir)
}

func freeAddr() (string, error) {
	all, err := freeAddrs(1)
	if err != nil {
		return "", err
	}
	return all[0], nil
}

// freeAddrs are n different ports of the loopback that nobody listens at: all are held until the last is
// found, since the kernel may give a port again at once.
func freeAddrs(n int) (all []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		all = append(all, l.Addr().String())
	}
	return all, nil
}

// shard is a row of the operators' listing.
type shard struct {
	ID      uint32   `json:"id"`
	PID     int      `json:"pid"`
	Profile string   `json:"profile"`
	Tenants []string `json:"tenants"`
	Spare   bool     `json:"spare"`
}

func (t *target) shards() (list []shard, err error) {
	return list, t.admin.admin("GET", "/v1/shards", &list)
}

// built waits until every tenant has a version, so that a first request meets a build no more.
func (t *target) built(ctx context.Context) error {
	for deadline := time.Now().Add(5 * time.Minute); ; {
		var list []struct {
			Tenant  string `json:"tenant"`
			Version string `json:"version"`
			Error   string `json:"error"`
		}
		if err := t.admin.admin("GET", "/v1/tenants", &list); err != nil {
			return err
		}
		left := 0
		for _, x := range list {
			if x.Error != "" {
				return fmt.Errorf("tenant %s cannot be built: %s", x.Tenant, x.Error)
			}
			if x.Version == "" {
				left++
			}
		}
		if left == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d tenants are still not built", left, len(list))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// metric sums the samples of a metric whose labels hold all of these, such as `reason="x"`.
func (t *target) metrics(name string) (map[string]float64, error) {
	var text []byte
	if err := t.admin.admin("GET", "/v1/metrics", &text); err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		labels, value, ok := strings.Cut(rest, " ")
		if v := 0.0; ok {
			fmt.Sscan(value, &v)
			out[strings.Trim(labels, "{}")] += v
		}
	}
	return out, nil
}

// workers puts the same source into a folder for each name.
func workers(source string, names ...string) func(dir string) error {
	return func(dir string) error {
		for _, name := range names {
			if err := writeWorker(dir, name, source); err != nil {
				return err
			}
		}
		return nil
	}
}

func writeWorker(dir, name, source string) error {
	d := filepath.Join(dir, name)
	if err := os.Mkdir(d, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(d, "worker.js"), []byte(source), 0o644)
}
