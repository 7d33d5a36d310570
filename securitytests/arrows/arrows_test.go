// Package arrows tests which package may import which. The binary is the privilege boundary, so
// the list of everything each binary contains is checked in next to its main.go (imports.txt) and
// a change of it shows up in review; between packages a table says which arrows exist.
package arrows

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite cmd/*/imports.txt")

const module = "bulkhead"

// room is a folder of the layout and what its packages may import of this module and of others.
// A trailing slash means the folder and everything below it.
type room struct {
	inside  []string // of this module
	outside []string // of other modules; the standard library is free unless denied
	denied  []string // of the standard library
}

// The standard library's parsers of network input. Nothing with privilege may contain them.
var networkParsers = []string{"net/http", "encoding/json", "encoding/xml", "html/template", "text/template", "mime/multipart", "crypto/tls"}

var rooms = map[string]room{
	"schema/gen":        {outside: []string{"capnproto.org/go/capnp/v3/"}},
	"policy":            {inside: []string{"policy/"}, outside: []string{"github.com/goccy/go-yaml/"}, denied: []string{"net/http", "os/exec", "net"}},
	"policy/doctree":    {outside: []string{"github.com/goccy/go-yaml/", "github.com/pelletier/go-toml/v2/", "github.com/tailscale/hujson"}, denied: []string{"os", "net", "os/exec"}},
	"policy/seccomp":    {outside: []string{"golang.org/x/sys/"}, denied: append([]string{"os", "net", "os/exec"}, networkParsers...)},
	"policy/namespaces": {inside: []string{"policy/limits"}, outside: []string{"golang.org/x/sys/"}, denied: append([]string{"os", "net", "os/exec"}, networkParsers...)},
	"policy/egress":     {denied: append([]string{"os", "net", "os/exec"}, networkParsers...)},
	"policy/suspicion":  {denied: []string{"os", "net", "os/exec", "net/http"}}, // reads recordings: JSON
	"policy/cron":       {outside: []string{"github.com/adhocore/gronx"}, denied: append([]string{"net", "os/exec"}, networkParsers...)},
	"policy/limits":     {denied: append([]string{"os", "net", "os/exec"}, networkParsers...)},

	// The launcher has the privilege: it links no parser of anything from the network.
	"supervisor/launcher/": {
		inside:  []string{"supervisor/launcher/", "policy/seccomp/", "policy/namespaces", "policy/limits", "sandboxworker/lockdown/"},
		outside: []string{"golang.org/x/sys/", "github.com/seccomp/libseccomp-golang", "github.com/containerd/cgroups/v3/", "github.com/opencontainers/runtime-spec/"},
		denied:  networkParsers,
	},
	"supervisor/gateway/": {
		inside:  []string{"supervisor/gateway/", "supervisor/placement", "supervisor/tenants", "supervisor/observe", "supervisor/egress", "supervisor/secrets", "supervisor/socket", "supervisor/launcher/orders", "ipc/", "schema/gen", "policy/"},
		outside: []string{"golang.org/x/", "github.com/prometheus/", "github.com/coder/websocket"},
	},
	// The only code that opens tenants' secrets.
	"supervisor/secrets": {
		inside:  []string{"policy"},
		outside: []string{"filippo.io/age"},
		denied:  []string{"net/http", "os/exec"},
	},
	// The only code that dials for a tenant.
	"supervisor/egress/": {
		inside:  []string{"supervisor/egress/", "supervisor/observe", "supervisor/socket", "ipc/", "schema/gen", "policy/"},
		outside: []string{"github.com/andybalholm/brotli", "github.com/klauspost/compress/", "github.com/coder/websocket"},
		denied:  []string{"os", "os/exec"},
	},
	// What is kept for a tenant stays in memory: no files, no network.
	"supervisor/cache": {
		inside: []string{"supervisor/observe", "ipc/", "schema/gen", "policy/"},
		denied: []string{"os", "os/exec", "net"},
	},
	// What both have in common, on either side of a WebSocket: it is given connections and dials none.
	"supervisor/socket": {
		inside:  []string{"ipc/", "schema/gen", "policy/limits"},
		outside: []string{"github.com/coder/websocket"},
		denied:  []string{"os", "os/exec"},
	},
	"supervisor/placement/": {
		inside:  []string{"supervisor/placement/", "supervisor/tenants", "supervisor/observe", "supervisor/launcher/orders", "ipc/", "schema/gen", "policy/"},
		outside: []string{"golang.org/x/sync/", "golang.org/x/sys/"},
		denied:  []string{"net/http"},
	},
	"supervisor/tenants/": {
		inside: []string{"supervisor/tenants/", "supervisor/launcher/orders", "schema/gen", "policy/", "ipc"},
		outside: []string{"capnproto.org/go/capnp/v3", "github.com/evanw/esbuild/", "github.com/fsnotify/fsnotify", "github.com/goccy/go-yaml/",
			"github.com/pelletier/go-toml/v2/", "github.com/tailscale/hujson", "golang.org/x/sys/"},
		denied: []string{"net/http", "os/exec"},
	},
	"supervisor/observe/": {
		inside:  []string{"supervisor/observe/", "schema/gen", "policy/"},
		outside: []string{"github.com/prometheus/"},
		denied:  []string{"os/exec"},
	},
	"ipc/": {
		inside:  []string{"ipc/", "schema/gen", "policy/limits"},
		outside: []string{"capnproto.org/go/capnp/v3/", "golang.org/x/sys/"},
		denied:  []string{"net/http", "os/exec"},
	},
	"sandboxworker/lockdown": {
		inside: []string{"policy/seccomp", "policy/namespaces", "policy/limits"}, outside: []string{"golang.org/x/sys/"},
		denied: append([]string{"net", "os/exec"}, networkParsers...),
	},
	// What the launcher writes and the constructor reads: data alone, so that the launcher need not
	// link the constructor.
	"sandboxworker/lockdown/setup": {denied: append([]string{"os", "net", "os/exec"}, networkParsers...)},
	// The only importer of v8go, and the only C++.
	"sandboxworker/engine/": {
		inside:  []string{"sandboxworker/engine/", "sandboxworker/runtime", "schema/gen", "policy/seccomp", "policy/limits"},
		outside: []string{"github.com/tommie/v8go/", "github.com/ada-url/goada", "golang.org/x/sys/"},
		denied:  []string{"net/http", "os/exec", "net"},
	},
	// All of a worker before it is verified; bulkhead-worker and the attacker's seat share it.
	"sandboxworker/start": {
		inside:  []string{"sandboxworker/engine", "sandboxworker/lockdown", "sandboxworker/runtime", "sandboxworker/scheduler", "ipc", "ipc/workerside", "policy/limits", "policy/namespaces"},
		outside: []string{"golang.org/x/sys/"},
		denied:  []string{"net/http", "os/exec", "net"},
	},
	"sandboxworker/runtime/": {
		inside:  []string{"sandboxworker/runtime/"},
		outside: []string{"github.com/klauspost/compress/", "golang.org/x/net/html", "golang.org/x/text/encoding/"},
		denied:  []string{"net/http", "os/exec", "net"},
	},
	"sandboxworker/scheduler/": {
		inside:  []string{"sandboxworker/scheduler/", "sandboxworker/engine", "sandboxworker/runtime", "ipc", "ipc/workerside", "schema/gen", "policy/limits", "policy/seccomp"},
		outside: []string{"capnproto.org/go/capnp/v3/", "golang.org/x/sys/"},
		denied:  []string{"net/http", "os/exec", "net"},
	},
}

// The binaries wire; each may import any room but these. A slash at the end means everything below.
// `bulkhead` alone contains the security suites; what attacks in them is in none.
var binaries = map[string]struct{ denied []string }{
	"cmd/bulkhead-launcher": {denied: append([]string{"capnproto.org/", "github.com/tommie/v8go", "github.com/goccy/go-yaml", "github.com/evanw/esbuild", "bulkhead/policy", "bulkhead/securitytests/"}, withoutJSON(networkParsers)...)},
	"cmd/bulkhead-gateway":  {denied: []string{"github.com/tommie/v8go", "github.com/seccomp/libseccomp-golang", "github.com/containerd/cgroups", "github.com/evanw/esbuild", "os/exec", "bulkhead/securitytests/"}},
	"cmd/bulkhead-worker":   {denied: []string{"net/http", "github.com/goccy/go-yaml", "github.com/evanw/esbuild", "github.com/seccomp/libseccomp-golang", "crypto/tls", "bulkhead/securitytests/"}},
	"cmd/bulkhead":          {denied: []string{"github.com/tommie/v8go", "bulkhead/sandboxworker/engine", "bulkhead/sandboxworker/start", "bulkhead/securitytests/seat", "bulkhead/securitytests/hosttest"}},
}

// withoutJSON is for the launcher: containerd/cgroups brings encoding/json along, in its logger and
// its statistics. The launcher's own packages are held to the full list by their room.
func withoutJSON(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(p string) bool { return p == "encoding/json" })
}

type pkg struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
	Module     *struct{ Path string }
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e", "-json=ImportPath,Standard,Imports,Deps,Module"}, args...)...)
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("go list %v: %v", args, err)
		}
		pkgs = append(pkgs, p)
	}
}

func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return first != module && !strings.Contains(first, ".")
}

// matches reports whether path is the pattern, or lies below a pattern that ends in a slash.
func matches(path string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		return path == strings.TrimSuffix(p, "/") || strings.HasSuffix(p, "/") && strings.HasPrefix(path, p)
	})
}

func roomOf(rel string) (string, room, bool) {
	for dir := rel; dir != "."; dir = filepath.Dir(dir) {
		if r, ok := rooms[dir]; ok && dir == rel {
			return dir, r, true
		}
		if r, ok := rooms[dir+"/"]; ok {
			return dir + "/", r, true
		}
	}
	return "", room{}, false
}

// TestArrows holds each package's own imports against the table.
func TestArrows(t *testing.T) {
	for _, p := range list(t, "./...") {
		rel := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		top, _, _ := strings.Cut(rel, "/")
		if top == "cmd" || top == "bench" || top == "securitytests" || top == "examples" {
			continue // wiring and instruments; the binaries are held to TestBinaries
		}
		name, r, ok := roomOf(rel)
		if !ok {
			t.Errorf("package %s stands in no room: add it to the table with the arrows it may have, or move it", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			switch {
			case imp == "C" || imp == "unsafe":
			case standard(imp):
				if matches(imp, r.denied) {
					t.Errorf("%s imports %s, which room %s may not contain", p.ImportPath, imp, name)
				}
			case strings.HasPrefix(imp, module+"/"):
				if in := strings.TrimPrefix(imp, module+"/"); !matches(in, r.inside) {
					t.Errorf("%s imports %s: the design has no arrow from room %s to it", p.ImportPath, imp, name)
				}
			case !matches(imp, r.outside):
				t.Errorf("%s imports %s, which room %s has no use for by the table", p.ImportPath, imp, name)
			}
		}
	}
}

// TestBinariesUpToDate holds all that a binary contains, however indirectly, against what it must
// not contain and against the list that was reviewed.
func TestBinariesUpToDate(t *testing.T) {
	for dir, b := range binaries {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			ps := list(t, "./"+dir)
			if len(ps) != 1 {
				t.Fatalf("go list ./%s found %d packages, want 1", dir, len(ps))
			}
			var reviewed []string
			for _, dep := range ps[0].Deps {
				for _, d := range b.denied {
					if dep == d || strings.HasPrefix(dep, strings.TrimSuffix(d, "/")+"/") && (strings.Contains(d, ".") || strings.HasSuffix(d, "/")) {
						t.Errorf("%s contains %s, which it must never", dir, dep)
					}
				}
				if !standard(dep) {
					// One list for every architecture: V8's archive is a module for each.
					reviewed = append(reviewed, strings.ReplaceAll(dep, "_"+runtime.GOARCH, "_ARCH"))
				}
			}
			slices.Sort(reviewed)
			got := "# Every package of this module and of others in this binary. `make generate` rewrites it;\n# a line that appears is a decision: say why in docs/RATIONALE.md.\n" + strings.Join(reviewed, "\n") + "\n"
			path := filepath.Join("../..", dir, "imports.txt")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatalf("%v: run make generate", err)
			}
			if string(want) != got {
				t.Errorf("%s is not what the binary contains now: run make generate and read the difference", path)
			}
		})
	}
}
