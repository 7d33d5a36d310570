package main

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// egressPolicy lets tenants fetch from loopback, which the preset does not.
const egressPolicy = "egress:\n  allow: [\"127.0.0.1\"]\n"

// allowUpstream adds the allowance to the host's policy. A build whose policy knows no egress is
// left with the preset: what becomes of fetch() there is then what the figures show.
func (b *bench) allowUpstream(o *hostOptions) {
	dir, err := os.MkdirTemp("", "bhpolicy")
	if err != nil {
		return
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "policy.yaml")
	if os.WriteFile(file, []byte(egressPolicy), 0o644) != nil {
		return
	}
	if exec.Command(filepath.Join(b.bin, "bulkhead"), "policy", "check", file).Run() == nil {
		o.policy, o.beside = egressPolicy, "egress to 127.0.0.1"
	} else {
		o.beside = "no egress: this build's policy has no rule for it"
	}
}

// upstream is a server beyond the host that counts what reaches it.
type upstream struct {
	url    string
	server *http.Server

	mu   sync.Mutex
	seen map[string]map[string]int // guarded by mu: id → "METHOD /path" → requests
	// hook is called before the answer to a request that asks for it: hook=first once for an id,
	// hook=always each time. Guarded by mu; may be nil.
	hook func(id string)
}

// startUpstream answers GET /attempt with how often that id has asked, and counts everything.
func startUpstream() (*upstream, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u := &upstream{url: "http://" + l.Addr().String(), seen: map[string]map[string]int{}}
	u.server = &http.Server{Handler: http.HandlerFunc(u.serve)}
	go u.server.Serve(l)
	return u, nil
}

func (u *upstream) serve(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("id")
	key := r.Method + " " + r.URL.Path
	u.mu.Lock()
	if u.seen[id] == nil {
		u.seen[id] = map[string]int{}
	}
	u.seen[id][key]++
	n, hook := u.seen[id][key], u.hook
	u.mu.Unlock()
	if when := r.URL.Query().Get("hook"); hook != nil && (when == "first" && n == 1 || when == "always") {
		hook(id)
	}
	w.Write([]byte(strings.Repeat("I", min(n, 9))))
}

// onHook says what hooks do from now on.
func (u *upstream) onHook(f func(id string)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.hook = f
}

// count is how often an id has made this request.
func (u *upstream) count(id, key string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.seen[id][key]
}

// total is how many requests of this kind came in all.
func (u *upstream) total() (n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, m := range u.seen {
		for _, c := range m {
			n += c
		}
	}
	return n
}
