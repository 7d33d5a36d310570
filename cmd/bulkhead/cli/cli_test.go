package cli_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// binary is built once for all tests of the package.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "bh")
	if err == nil {
		binary = filepath.Join(dir, "bin", "bulkhead")
		var out []byte
		if out, err = exec.Command("go", "build", "-ldflags", "-X main.version=v1.2.3", "-o", binary, "bulkhead/cmd/bulkhead").CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

type answer struct {
	code     int
	out, err string
}

// run executes the binary in an empty home.
func run(t *testing.T, path string, args ...string) answer {
	t.Helper()
	cmd := exec.Command(path, args...)
	home := t.TempDir()
	cmd.Dir = home
	cmd.Env = []string{"HOME=" + home, "XDG_STATE_HOME=" + home, "PATH=/usr/bin:/bin"}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	timer := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return answer{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// install puts the binary beside others that only say how they were called.
func install(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	self := filepath.Join(dir, "bulkhead")
	b, err := os.ReadFile(binary)
	if err == nil {
		err = os.WriteFile(self, b, 0o755)
	}
	for _, n := range names {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, n), []byte("#!/bin/sh\necho ARGV \"$0\" \"$@\"\necho PID $$\n"), 0o755)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return self
}

func TestUsage(t *testing.T) {
	tenants := t.TempDir()
	write(t, filepath.Join(tenants, "a/worker.js"), "")
	file := write(t, filepath.Join(tenants, "file"), "")
	badPolicy := write(t, filepath.Join(t.TempDir(), "bad.yaml"), "limits:\n  memmory: 1GiB\n")
	goodPolicy := write(t, filepath.Join(t.TempDir(), "good.yaml"), "preset: strict\n")
	write(t, filepath.Join(tenants, "Bad Name/worker.js"), "")
	for _, c := range []struct {
		args []string
		code int
		want string // part of stdout or stderr
	}{
		{[]string{"version"}, 0, "bulkhead v1.2.3"},
		{[]string{"--version"}, 0, "bulkhead v1.2.3"},
		{[]string{"--help"}, 0, "serve"},
		{[]string{"serve", "--help"}, 0, "--tenants DIR"},
		{nil, 2, "Usage"},
		{[]string{"sevre"}, 2, `unknown command "sevre"`},
		{[]string{"serve", "--prest", "dev"}, 2, "unknown flag: --prest; see `bulkhead serve --help`"},
		{[]string{"serve", "extra"}, 2, "extra"},
		{[]string{"serve"}, 2, "--tenants DIR"},
		{[]string{"serve", "--tenants", tenants, "--preset", "lax"}, 2, "one of dev, standard, strict, paranoid"},
		{[]string{"serve", "--tenants", "/nonexistent/x"}, 1, "/nonexistent/x"},
		{[]string{"serve", "--tenants", file}, 2, "is not a directory"},
		{[]string{"serve", "--tenants", tenants, "--listen", "8080"}, 2, "write IP:PORT"},
		{[]string{"serve", "--tenants", tenants, "--listen", ":http"}, 2, "is not a port"},
		{[]string{"serve", "--tenants", tenants, "--listen", "127.0.0.1:70000"}, 2, "is not a port"},
		{[]string{"serve", "--tenants", tenants, "--listen", "unix:"}, 2, "the path is missing"},
		{[]string{"serve", "--tenants", tenants, "--admin", "/" + strings.Repeat("x", 120)}, 2, "too long"},
		{[]string{"serve", "--tenants", tenants, "--admin", "127.0.0.1:9000"}, 2, "only a unix socket"},
		{[]string{"serve", "--tenants", tenants, "--accept", "cgruop"}, 1, "bulkhead-launcher is not in"},
		{[]string{"serve", "--tenants", tenants, "--config", badPolicy}, 1, badPolicy + ":2:3: \"limits\" has no key \"memmory\"; did you mean \"memory\"?\n  |   memmory: 1GiB"},
		{[]string{"serve", "--tenants", tenants, "--config", "/nonexistent"}, 1, "/nonexistent"},
		{[]string{"serve", "--tenants", tenants}, 1, "make build"},
		{[]string{"serve", "--tenants", tenants, "--data", file + "/x"}, 1, "--data DIR"},
		{[]string{"dev"}, 2, "accepts 1 arg"},
		{[]string{"dev", file}, 2, "is a file; name the folder"},
		{[]string{"dev", filepath.Join(tenants, "Bad Name")}, 1, "cannot be a tenant id"},
		{[]string{"dev", "/nonexistent"}, 1, "/nonexistent"},
		{[]string{"policy"}, 2, "policy check|show|explain"},
		{[]string{"policy", "check"}, 2, "accepts 1 arg"},
		{[]string{"policy", "check", badPolicy}, 1, "did you mean \"memory\"?"},
		{[]string{"policy", "check", goodPolicy}, 0, "good; preset strict, hash "},
		{[]string{"policy", "show", "--preset", "paranoid"}, 0, "maxTenants: 1\n"},
		{[]string{"policy", "show", "--config", goodPolicy}, 0, "preset: strict\n"},
		{[]string{"policy", "show"}, 1, "--preset NAME"},
		{[]string{"tenants"}, 1, "no host at "},
		{[]string{"tenants", "--data", "/nonexistent"}, 1, "no host at /nonexistent/admin.sock"},
		{[]string{"shards", "x"}, 2, "x"},
		{[]string{"logs"}, 2, "name one tenant"},
		{[]string{"logs", "../x"}, 2, "cannot be a tenant id"},
		{[]string{"evict", "A B"}, 2, "cannot be a tenant id"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			a := run(t, binary, c.args...)
			if a.code != c.code || !strings.Contains(a.out+a.err, c.want) {
				t.Errorf("exit code %d, want %d; output lacks %q:\n%s%s", a.code, c.code, c.want, a.out, a.err)
			}
			if a.code != 0 && a.out != "" || a.code == 0 && a.err != "" {
				t.Errorf("output on the wrong stream: stdout %q, stderr %q", a.out, a.err)
			}
		})
	}
}

// serve becomes the launcher: same pid, and a command line the launcher understands.
func TestServeBecomesTheLauncher(t *testing.T) {
	self := install(t, "bulkhead-launcher", "bulkhead-gateway", "bulkhead-worker")
	dir := filepath.Dir(self)
	tenants := t.TempDir()
	write(t, filepath.Join(tenants, "hello/worker.js"), "")
	write(t, filepath.Join(tenants, "other/worker.js"), "")
	data := filepath.Join(t.TempDir(), "data")
	pol := write(t, filepath.Join(t.TempDir(), "p.yaml"), "accept: [mdwe]\nshard: {memory: 1GiB}\ntenants: {hello: {profile: jitless}}")
	a := run(t, self, "serve", "--tenants", tenants, "--data", data, "--listen", "127.0.0.1:0", "--listen", "unix:/tmp/x.sock", "--config", pol,
		"--preset", "strict", "--accept", "cgroup", "--accept", "landlock", "--index", "--max-shards", "7", "--drain-timeout", "5s")
	if a.code != 0 {
		t.Fatalf("%+v", a)
	}
	_, argv, _ := strings.Cut(a.out, "ARGV ")
	argv, _, _ = strings.Cut(argv, "\n")
	for _, want := range []string{
		"--gateway " + dir + "/bulkhead-gateway", "--worker " + dir + "/bulkhead-worker", "--bundler " + self, "--data " + data,
		"--admin " + data + "/admin.sock", "--tenants " + tenants, "--listen 127.0.0.1:0", "--listen unix:/tmp/x.sock", "--config " + pol,
		"--accept mdwe", "--accept cgroup", "--accept landlock", "--shard-memory 1073741824", "--allow-profile jitless",
		"--gateway-arg --preset=strict", "--gateway-arg --dev=false", "--gateway-arg --index=true", "--max-shards 7", "--drain-timeout 5s",
	} {
		if !strings.Contains(argv+" ", want+" ") {
			t.Errorf("the launcher is not given %s:\n%s", want, argv)
		}
	}
	if strings.Contains(argv, "--allow-profile jit ") || strings.Contains(argv, "jit+wasm") {
		t.Errorf("a profile that the policy gives to nobody is allowed:\n%s", argv)
	}
	for _, want := range []string{"preset strict, hash ", "2: hello, other", "listening 127.0.0.1:0", data + "/admin.sock"} {
		if !strings.Contains(a.out, want) {
			t.Errorf("it does not say %q:\n%s", want, a.out)
		}
	}
	if st, err := os.Stat(data); err != nil || !st.IsDir() {
		t.Errorf("the data directory was not made: %v", err)
	}
	if a := run(t, self, "serve", "--tenants", tenants, "--data", data, "--accept", "cgruop"); a.code != 2 || !strings.Contains(a.err, "one of cgroup") {
		t.Errorf("%+v", a)
	}

	worker := filepath.Join(t.TempDir(), "w")
	write(t, filepath.Join(worker, "bulkhead-worker"), "")
	if err := os.Chmod(filepath.Join(worker, "bulkhead-worker"), 0o755); err != nil {
		t.Fatal(err)
	}
	a = run(t, self, "dev", filepath.Join(tenants, "hello"), "--worker-dir", worker)
	for _, want := range []string{"--tenants " + tenants, "--gateway-arg --only=hello", "--gateway-arg --dev=true", "--gateway-arg --index=false", "--gateway-arg --preset=dev",
		"--allow-profile jit+wasm", "--worker " + worker + "/bulkhead-worker", "--accept cgroup", "/dev-hello/admin.sock", "--listen 127.0.0.1:8080", "http://hello.localhost:8080/"} {
		if !strings.Contains(a.out, want) {
			t.Errorf("dev: no %s:\n%s%s", want, a.out, a.err)
		}
	}
	if a := run(t, install(t, "bulkhead-launcher", "bulkhead-gateway"), "dev", filepath.Join(tenants, "hello")); a.code != 1 || !strings.Contains(a.err, "bulkhead-worker is not in") {
		t.Errorf("%+v", a)
	}
}

// libexec is where `make install` puts the other three.
func TestLibexec(t *testing.T) {
	self := install(t)
	prefix := filepath.Dir(self)
	if err := os.MkdirAll(filepath.Join(prefix, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(self, filepath.Join(prefix, "bin/bulkhead")); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"bulkhead-launcher", "bulkhead-gateway", "bulkhead-worker"} {
		p := write(t, filepath.Join(prefix, "libexec/bulkhead", n), "#!/bin/sh\necho ARGV \"$@\"\n")
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	a := run(t, filepath.Join(prefix, "bin/bulkhead"), "serve", "--tenants", t.TempDir())
	if a.code != 0 || !strings.Contains(a.out, "--worker "+prefix+"/libexec/bulkhead/bulkhead-worker") || !strings.Contains(a.out, "none yet") {
		t.Errorf("%+v", a)
	}
}

// The questions to a running host, asked of an API that answers with what a hostile tenant and a
// newer host might put there.
func TestQuestions(t *testing.T) {
	data := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(data, "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 100)
	mux := http.NewServeMux()
	for path, body := range map[string]string{
		"GET /v1/tenants":                  `[{"tenant":"a","version":"0123","shard":4,"state":"loaded","requests":10,"outcomes":{"ok":8,"exception":2},"new":1},{"tenant":"b","state":"failed","shard":null,"version":"\u001b[31m"}]`,
		"GET /v1/shards":                   `[{"id":4,"pid":77,"profile":"jit","sealed":true,"tenants":["a","b"],"isolates":3,"rssBytes":17825792,"heapBytes":1572864,"ageSeconds":61.5}]`,
		"GET /v1/incidents":                `[{"id":"1","time":"2026-01-02T03:04:05Z","kind":"shardDied","shard":4,"tenants":["a"],"outcome":"crashed","signal":"SIGSEGV","syscall":null,"detail":"x\u001b[2Jy","scripts":["a.0123456789abcdef.json"]}]`,
		"GET /v1/scripts/0123456789abcdef": `{"tenant":"a","version":"0123456789abcdef","policy":"77","incident":"isolated","time":"2026-01-02T03:04:05Z","env":["KEY"],"main":"worker.js","modules":[{"name":"worker.js","kind":"esModule","text":"let x = 1;\n\tlet y = \"\u001b[2J\";\n"},{"name":"a.wasm","kind":"wasm","bytes":"AGFzbQ=="}]}`,
		"GET /v1/logs/a":                   `{"seq":1,"time":"2026-01-02T03:04:05Z","level":"warn","text":"one\ntwo\u001b[31m"}` + "\n",
		"POST /v1/evict/a":                 `{"tenant":"a","evicted":1,"busy":0}`,
		"POST /v1/evict/b":                 `{"tenant":"b","evicted":0,"busy":2}`,

		"POST /v1/isolate/a":     `{"tenant":"a","shards":[4],"left":3,"busy":1}`,
		"POST /v1/release/a":     `{"tenant":"a"}`,
		"POST /v1/stop/a":        `{"tenant":"a"}`,
		"POST /v1/reshuffle":     `{"shards":4,"tenants":9}`,
		"POST /v1/policy/reload": `{"changed":true,"before":"1","after":"2","text":"2 tenants will move to other processes"}`,
		"GET /v1/top":            `[{"tenant":"a\u001b[31m","shard":4,"running":2,"cpuMs":12,"bracketedMs":7,"heapBytes":1048576,"points":51,"verdict":"watch","standing":""}]`,
		"GET /v1/explain/a": `{"tenant":"a","values":[{"key":"limits.cpu","value":"50ms","from":"preset standard"}],"profile":"jit","shard":4,"pid":77,"beside":["b"],` +
			`"standing":"alone by suspicion: x","suspicion":{"points":60,"parts":[{"signal":"aborts","amount":1,"unit":"","points":60,"why":"a process ended"}]}}`,
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			asked <- r.Method + " " + r.URL.String()
			fmt.Fprint(w, body)
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(404)
		fmt.Fprint(w, `{"error":"no tenant \"zz\""}`)
	})
	srv := &http.Server{Handler: mux}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	for _, c := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"tenants"}, 0, []string{"TENANT", "a       loaded  4      0123", "exception 2", "b       failed  -"}},
		{[]string{"tenants", "--json"}, 0, []string{`"new":1`}},
		{[]string{"shards"}, 0, []string{"4      77   jit      yes     2        3         17.0 MiB  1.5 MiB  1m1s  a b"}},
		{[]string{"incidents"}, 0, []string{"shardDied", "SIGSEGV", "crashed", "x", "a.0123456789abcdef.json"}},
		{[]string{"incidents", "script", "0123456789abcdef"}, 0, []string{"// a, version 0123456789abcdef, under policy 77", "let x = 1;", "4 bytes that are no text", "env: KEY"}},
		{[]string{"incidents", "script", "a.0123456789abcdef.json"}, 0, []string{"let x = 1;"}},
		{[]string{"logs", "a"}, 0, []string{"warn  one\n", "two"}},
		{[]string{"logs", "a", "--json"}, 0, []string{`"seq":1`}},
		{[]string{"logs", "zz"}, 1, []string{`no tenant "zz"`}},
		{[]string{"evict", "a"}, 0, []string{"a is unloaded"}},
		{[]string{"evict", "b"}, 1, []string{"requests are in flight"}},
		{[]string{"evict", "aa"}, 1, []string{`no tenant "aa"; did you mean "a"?`}},
		{[]string{"policy", "show"}, 1, []string{"no tenant"}},
		{[]string{"isolate", "a", "--reason", "seen on the news"}, 0, []string{"a is kept apart: 3 neighbours left at once, 1 when"}},
		{[]string{"isolate", "a"}, 2, []string{"--reason"}},
		{[]string{"isolate", "zz", "--reason", "x"}, 1, []string{`no tenant "zz"`}},
		{[]string{"release", "a", "--reason", "x"}, 0, []string{"a is released"}},
		{[]string{"stop", "a", "--reason", "x"}, 0, []string{"a is stopped"}},
		{[]string{"reshuffle", "--shard", "4"}, 0, []string{"9 tenants leave 4 processes"}},
		{[]string{"policy", "reload"}, 0, []string{"policy 2: 2 tenants will move"}},
		{[]string{"policy", "explain", "a"}, 0, []string{"preset standard", "29 system calls", "shard 4, pid 77, with 1 other tenants (b)", "alone by suspicion", "60 aborts"}},
		{[]string{"top", "--rounds", "1", "--every", "100ms"}, 0, []string{"VERDICT", "7 ms", "51      watch"}},
		{[]string{"top", "--every", "1ms"}, 2, []string{"at least 100ms"}},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			a := run(t, binary, append(c.args, "--data", data)...)
			if a.code != c.code {
				t.Errorf("exit code %d: %s%s", a.code, a.out, a.err)
			}
			for _, w := range c.want {
				if !strings.Contains(a.out+a.err, w) {
					t.Errorf("no %q in:\n%s%s", w, a.out, a.err)
				}
			}
			if strings.Contains(a.out+a.err, "\x1b") {
				t.Errorf("a tenant's escape sequence reaches the terminal: %q", a.out)
			}
		})
	}
	for len(asked) > 0 {
		<-asked
	}
	if a := run(t, binary, "logs", "a", "-f", "--admin", filepath.Join(data, "admin.sock")); a.code != 0 || <-asked != "GET /v1/logs/a?follow=1" {
		t.Errorf("%+v", a)
	}
	srv.Close()
	os.Remove(filepath.Join(data, "admin.sock"))
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrUnix{Name: filepath.Join(data, "admin.sock")})
		syscall.Close(fd)
	}
	if err != nil {
		t.Fatal(err)
	}
	if a := run(t, binary, "tenants", "--data", data); a.code != 1 || !strings.Contains(a.err, "left its socket behind") {
		t.Errorf("a dead host's socket: %+v", a)
	}
}

func TestDoctor(t *testing.T) {
	a := run(t, binary, "doctor", "--json")
	var found []struct {
		Name, State, Found, For, Remedy string
		Weight                          int
		Exposure                        float64
	}
	if err := json.Unmarshal([]byte(a.out), &found); err != nil {
		t.Fatalf("%v: %s", err, a.out)
	}
	if len(found) < 8 || a.code != 1 {
		t.Errorf("%d findings, exit code %d (the other binaries are not there)", len(found), a.code)
	}
	for _, f := range found {
		if f.Found == "" || f.For == "" || f.State != "ok" && (f.Remedy == "" || f.Exposure == 0) {
			t.Errorf("%+v does not say enough", f)
		}
	}
	self := install(t, "bulkhead-launcher", "bulkhead-gateway", "bulkhead-worker")
	begin := time.Now()
	a = run(t, self, "doctor")
	if time.Since(begin) > 2*time.Second {
		t.Errorf("the doctor took %s", time.Since(begin))
	}
	if !regexp.MustCompile(`(?m)^Overall exposure of workers on this host: \d+\.\d [A-Z]+$`).MatchString(a.out) {
		t.Errorf("no score: %s", a.out)
	}
	if !strings.Contains(a.out, "binaries") || strings.Contains(a.out, "NONE") != (a.code == 1) {
		t.Errorf("%+v", a)
	}
}

// Under the bundler's name it is of no use to anybody but the launcher.
func TestBundlerAlone(t *testing.T) {
	cmd := exec.Command(binary)
	cmd.Args = []string{"bulkhead-bundler"}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || len(out) == 0 || bytes.Contains(out, []byte("goroutine")) {
		t.Errorf("%v: %s", err, out)
	}
}
