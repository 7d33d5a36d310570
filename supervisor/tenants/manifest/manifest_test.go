package manifest

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// folder makes a directory of these files and opens it.
func folder(t *testing.T, files map[string]string) *os.Root {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func TestRead(t *testing.T) {
	vars := []Var{{Name: "A", Value: "x"}, {Name: "B", JSON: true, Value: `{"n":[1,2.5,true,null]}`}}
	varsTOML := []Var{{Name: "A", Value: "x"}, {Name: "B", JSON: true, Value: `{"n":[1,2.5,true]}`}}
	routes := []string{"example.com/api/*", "*.example.com/*"}
	for _, c := range []struct {
		name     string
		files    map[string]string
		main     string
		env      []Var
		routes   []string
		warnings []string
		crons    string
	}{
		{name: "bare js", files: map[string]string{"worker.js": ""}, main: "worker.js"},
		{name: "bare ts first", files: map[string]string{"worker.js": "", "worker.ts": ""}, main: "worker.ts"},
		{name: "src/index", files: map[string]string{"src/index.tsx": "", "README.md": ""}, main: "src/index.tsx"},
		{name: "bulkhead.yaml", files: map[string]string{"bulkhead.yaml": "main: ./src/app.ts\nvars:\n  A: x\n  B: {n: [1, 2.5, true, null]}\nroutes: [example.com/api/*, '*.example.com/*']\n"},
			main: "src/app.ts", env: vars, routes: routes},
		{name: "wrangler.toml", files: map[string]string{"wrangler.toml": "name = \"x\"\nmain = \"src/app.ts\"\ncompatibility_date = \"2025-01-01\"\nroutes = [\"example.com/api/*\", { pattern = \"*.example.com/*\", zone_name = \"example.com\" }]\n[vars]\nA = \"x\"\nB = { n = [1, 2.5, true] }\n"},
			main: "src/app.ts", env: varsTOML, routes: routes},
		{name: "wrangler.jsonc", files: map[string]string{"wrangler.jsonc": "{ // c\n\"main\": \"src/app.ts\", \"route\": \"example.com/api/*\", \"vars\": {\"A\": \"x\", \"B\": {\"n\": [1, 2.5, true, null]}},}"},
			main: "src/app.ts", env: vars, routes: routes[:1]},
		{name: "wrangler without main", files: map[string]string{"wrangler.json": `{"name": "x"}`, "src/index.js": ""}, main: "src/index.js"},
		{name: "empty bulkhead.yaml", files: map[string]string{"bulkhead.yaml": "# later\n", "worker.mjs": ""}, main: "worker.mjs"},
		{name: "bindings", files: map[string]string{"wrangler.toml": "main = \"a.js\"\n[[kv_namespaces]]\nbinding = \"KV\"\nid = \"1\"\n[triggers]\ncrons = [\"* * * * *\"]\n[env.prod]\nmain = \"b.js\"\n"},
			main: "a.js", crons: "* * * * * UTC", warnings: []string{"wrangler.toml:2:3: kv_namespaces is not served by this version: its binding will be missing in env", "wrangler.toml:7:2: env"}},
		{name: "services", files: map[string]string{"wrangler.toml": "main = \"a.js\"\n[vars]\nV = \"x\"\n[[services]]\nbinding = \"B\"\nservice = \"b\"\n[[services]]\nbinding = \"C\"\nservice = \"c-2\"\nentrypoint = \"Sums\"\nprops = { a = 1 }\n"},
			main: "a.js", env: []Var{{Name: "V", Value: "x"}, {Name: "B", Service: "b"}, {Name: "C", Value: `{"a":1}`, Service: "c-2", Entrypoint: "Sums"}}},
		{name: "services in bulkhead.yaml", files: map[string]string{"bulkhead.yaml": "main: a.js\nservices: [{binding: B, service: b, entrypoint: default}]\ncallers: [x, '*']\n"},
			main: "a.js", env: []Var{{Name: "B", Service: "b"}}},
		{name: "host APIs", files: map[string]string{"bulkhead.yaml": "main: a.js\nservices: [{binding: B, service: b}]\nhostApis: [{binding: INV, api: inventory}]\n"},
			main: "a.js", env: []Var{{Name: "B", Service: "b"}, {Name: "INV", HostAPI: "inventory"}}},
		{name: "crons", files: map[string]string{"wrangler.toml": "main = \"a.js\"\n[triggers]\ncrons = [\"*/5  * * * *\", \"0 3 * * MON\"]\n"}, main: "a.js", crons: "*/5 * * * * UTC, 0 3 * * MON UTC"},
		{name: "crons in zones", files: map[string]string{"bulkhead.yaml": "main: a.js\ntriggers: {crons: ['0 0 * * *', {cron: '0 3 * * *', zone: Europe/Berlin}]}\n"}, main: "a.js", crons: "0 0 * * * UTC, 0 3 * * * Europe/Berlin"},
		{name: "empty bindings say nothing", files: map[string]string{"wrangler.json": `{"main": "a.js", "kv_namespaces": [], "triggers": {}, "observability": {"enabled": true}}`}, main: "a.js"},
		{name: "typo", files: map[string]string{"wrangler.json": `{"main": "a.js", "varz": {}}`}, main: "a.js", warnings: []string{`unknown key "varz", ignored; did you mean "vars"?`}},
		{name: "two configurations", files: map[string]string{"bulkhead.yaml": "main: a.js", "wrangler.toml": "main = 'b.js'"}, main: "a.js", warnings: []string{"wrangler.toml: ignored, because bulkhead.yaml"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := Read(folder(t, c.files))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range m.Routes {
				got = append(got, r.Pattern)
			}
			if d := cmp.Diff(c.routes, got); d != "" || m.Main != c.main {
				t.Errorf("main %q, routes:\n%s", m.Main, d)
			}
			if d := cmp.Diff(c.env, m.Env); d != "" {
				t.Error(d)
			}
			var crons []string
			for _, e := range m.Crons {
				crons = append(crons, e.Text+" "+e.Zone)
			}
			if strings.Join(crons, ", ") != c.crons {
				t.Errorf("crons %q", crons)
			}
			if len(m.Warnings) != len(c.warnings) {
				t.Fatalf("warnings: %v", m.Warnings)
			}
			for i, w := range m.Warnings {
				if !strings.Contains(w.Error(), c.warnings[i]) {
					t.Errorf("warning %d is %v, want %s", i, w, c.warnings[i])
				}
			}
		})
	}
}

func TestBadManifests(t *testing.T) {
	for _, c := range []struct {
		name, file, text, want string
	}{
		{"leaves the folder", "bulkhead.yaml", "main: ../other/worker.js", "bulkhead.yaml:1:7: main leaves the folder"},
		{"leaves it in the middle", "wrangler.toml", "main = 'src/../../x.js'", "leaves the folder"},
		{"absolute", "wrangler.json", `{"main": "/etc/passwd"}`, "must be relative"},
		{"backslash", "bulkhead.yaml", `main: 'src\index.ts'`, "forward slashes"},
		{"empty", "bulkhead.yaml", `main: ""`, "main is empty"},
		{"a list", "bulkhead.yaml", "main: [a.js]", "must be the path"},
		{"our own key misspelt", "bulkhead.yaml", "mian: a.js", `bulkhead.yaml:1:1: bulkhead.yaml has no key "mian"; did you mean "main"?`},
		{"limits are not the tenant's", "bulkhead.yaml", "limits: {cpu: 1h}", "the operator's, in the policy"},
		{"vars as list", "bulkhead.yaml", "vars: [a]", "must be a mapping"},
		{"a host API with an address", "bulkhead.yaml", "hostApis: [{binding: A, api: a, address: 'unix:/x/y'}]", "Its address is the operator's, in the policy"},
		{"a host API that is none", "bulkhead.yaml", "hostApis: [{binding: A, api: ../a}]", "cannot be a host API"},
		{"a host API without a name in env", "bulkhead.yaml", "hostApis: [{api: a}]", "needs a binding"},
		{"a host API by another's name", "bulkhead.yaml", "services: [{binding: A, service: b}]\nhostApis: [{binding: A, api: a}]", "two things named \"A\""},
		{"host APIs as names", "bulkhead.yaml", "hostApis: [a]", "must be a mapping with binding and api"},
		{"props no mapping", "bulkhead.yaml", "main: a.js\nservices: [{binding: B, service: b, props: 7}]\n", "props of a service must be a mapping"},
		{"long props", "bulkhead.yaml", "main: a.js\nservices: [{binding: B, service: b, props: {a: " + strings.Repeat("x", 4<<10) + "}}]\n", "and may have 4096"},
		{"bad date", "wrangler.toml", "compatibility_date = 5", "must be a date"},
		{"route without host", "bulkhead.yaml", "routes: [/api/*]", "has no host"},
		{"route of everything", "bulkhead.yaml", "routes: ['*/*']", "first part of a host"},
		{"route of a top level", "bulkhead.yaml", "routes: ['*.com/*']", "at least two parts"},
		{"route of a neighbour", "bulkhead.yaml", "routes: [victim.localhost/*]", "names under localhost"},
		{"route of localhost", "bulkhead.yaml", "routes: [localhost]", "names under localhost"},
		{"route of a neighbour in capitals", "bulkhead.yaml", "routes: ['*.VICTIM.LocalHost/*']", "names under localhost"},
		{"route with a port", "bulkhead.yaml", "routes: ['example.com:80/*']", "without a port"},
		{"star in the path", "bulkhead.yaml", "routes: ['example.com/*/x']", "only at the end"},
		{"an address", "bulkhead.yaml", "routes: ['127.0.0.1/*']", "an address"},
		{"a number", "bulkhead.yaml", "routes: ['2130706433/*']", "an address"},
		{"a hexadecimal number", "bulkhead.yaml", "routes: ['0X7f000001']", "an address"},
		{"an empty hexadecimal number", "bulkhead.yaml", "routes: ['a.0x']", "an address"},
		{"addresses below a part of one", "bulkhead.yaml", "routes: ['*.0.0.1/*']", "an address"},
		{"localhost with a dot", "bulkhead.yaml", "routes: ['localhost./*']", "not a name"},
		{"LOCALHOST", "bulkhead.yaml", "routes: ['LOCALHOST/*']", "belong to bulkhead"},
		{"a neighbour", "bulkhead.yaml", "routes: ['neighbour.localhost/*']", "belong to bulkhead"},
		{"all neighbours", "bulkhead.yaml", "routes: ['*.localhost/*']", ""},
		{"an address in brackets", "bulkhead.yaml", "routes: ['[::1]/*']", "not a name"},
		{"query", "bulkhead.yaml", "routes: ['example.com/?a=1']", "cannot hold a query"},
		{"routes as text", "bulkhead.yaml", "routes: example.com", "must be a list"},
		{"syntax", "wrangler.toml", "main = ", "wrangler.toml:1"},
		{"syntax in json", "wrangler.jsonc", "{\n  main: 1\n}", "wrangler.jsonc:2"},
		{"key twice", "wrangler.json", `{"main": "a", "main": "b"}`, "set twice"},
		{"a list instead", "wrangler.json", `[]`, "must be a mapping"},
		{"services as a mapping", "bulkhead.yaml", "services: {binding: B}", "must be a list"},
		{"a service without a binding", "wrangler.json", `{"services": [{"service": "b"}]}`, "needs a binding"},
		{"a service that is a path", "bulkhead.yaml", "services: [{binding: B, service: ../b}]", "cannot be a worker"},
		{"a service that is nobody", "wrangler.json", `{"services": [{"binding": "B"}]}`, "cannot be a worker"},
		{"an entrypoint of two lines", "wrangler.json", `{"services": [{"binding": "B", "service": "b", "entrypoint": "a\nb"}]}`, "not the name of an export"},
		{"a binding twice", "bulkhead.yaml", "vars: {B: x}\nservices: [{binding: B, service: b}]", "two things named"},
		{"a key of a service", "bulkhead.yaml", "services: [{binding: B, service: b, limit: 1}]", "no key \"limit\""},
		{"a cron of six fields", "wrangler.json", `{"triggers": {"crons": ["* * * * * *"]}}`, "must have five fields"},
		{"a cron in no zone", "bulkhead.yaml", "triggers: {crons: [{cron: '* * * * *', zone: Mars/Olympus}]}", "IANA name"},
		{"a cron that is a number", "bulkhead.yaml", "triggers: {crons: [5]}", "must be an expression"},
		{"triggers as a list", "bulkhead.yaml", "triggers: ['* * * * *']", "must be a mapping"},
		{"callers by path", "bulkhead.yaml", "callers: [../x]", "names of tenants"},
		{"billion laughs", "bulkhead.yaml", "a: &a [x,x]\nb: &b [*a,*a]\n", "anchors"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := Read(folder(t, map[string]string{c.file: c.text, "worker.js": ""}))
			if err == nil {
				t.Fatalf("taken as good: %+v", m)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q, got:\n%v", c.want, err)
			}
		})
	}
	if _, err := Read(folder(t, map[string]string{"README.md": "hi"})); err == nil || !strings.Contains(err.Error(), "no worker here") {
		t.Errorf("an empty folder: %v", err)
	}
}

// Files that are not plain ones are refused at once: nothing waits for them, nothing outside is read.
func TestHostileFiles(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret.yaml")
	if err := os.WriteFile(secret, []byte("main: worker.js\nvars: {SECRET: found}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(string) error{
		"absolute link":  func(p string) error { return os.Symlink(secret, p) },
		"relative link":  func(p string) error { return os.Symlink("../../../../../../../.."+secret, p) },
		"fifo":           func(p string) error { return syscall.Mkfifo(p, 0o644) },
		"directory":      func(p string) error { return os.Mkdir(p, 0o755) },
		"huge":           func(p string) error { return os.WriteFile(p, make1MB(), 0o644) },
		"dangling link":  func(p string) error { return os.Symlink("nowhere", p) },
		"link to itself": func(p string) error { return os.Symlink("bulkhead.yaml", p) },
		"unix socket": func(p string) error {
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			defer syscall.Close(fd)
			return syscall.Bind(fd, &syscall.SockaddrUnix{Name: p})
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := folder(t, map[string]string{"worker.js": ""})
			if err := make(filepath.Join(root.Name(), "bulkhead.yaml")); err != nil {
				t.Fatal(err)
			}
			done := time.AfterFunc(10*time.Second, func() { panic("reading " + name + " hangs") })
			defer done.Stop()
			m, err := Read(root)
			if err == nil {
				t.Fatalf("taken as good: %+v", m)
			}
			if strings.Contains(err.Error(), "found") || !strings.Contains(err.Error(), "bulkhead.yaml") {
				t.Error(err)
			}
		})
	}
	t.Run("a link within the folder is fine", func(t *testing.T) {
		root := folder(t, map[string]string{"config/real.yaml": "main: src/a.js"})
		if err := os.Symlink("config/real.yaml", filepath.Join(root.Name(), "bulkhead.yaml")); err != nil {
			t.Fatal(err)
		}
		if m, err := Read(root); err != nil || m.Main != "src/a.js" {
			t.Errorf("%+v, %v", m, err)
		}
	})
}

func make1MB() []byte { return []byte("vars: {A: \"" + strings.Repeat("x", 1<<20) + "\"}") }

func TestParseRoute(t *testing.T) {
	for text, want := range map[string]Route{
		"example.com":            {Pattern: "example.com/*", Host: "example.com", Path: "/", Prefix: true},
		"Example.COM/":           {Pattern: "example.com/", Host: "example.com", Path: "/"},
		"example.com/a*":         {Pattern: "example.com/a*", Host: "example.com", Path: "/a", Prefix: true},
		"https://example.com/a":  {Pattern: "example.com/a", Host: "example.com", Path: "/a"},
		"*.example.com/api/*":    {Pattern: "*.example.com/api/*", Host: "example.com", Wild: true, Path: "/api/", Prefix: true},
		"xn--bcher-kva.example/": {Pattern: "xn--bcher-kva.example/", Host: "xn--bcher-kva.example", Path: "/"},
	} {
		got, wrong := ParseRoute(text)
		if wrong != "" || got != want {
			t.Errorf("%s: %+v, %s", text, got, wrong)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("bulkhead.yaml", []byte("main: a.js\nvars: {A: 1}\nroutes: [a.com/*]"))
	f.Add("wrangler.toml", []byte("main = 'a.js'\n[vars]\nA = 1"))
	f.Add("wrangler.jsonc", []byte(`{"main": "a.js", "vars": {"A": [1]}}`))
	f.Fuzz(func(t *testing.T, name string, src []byte) {
		if name != "bulkhead.yaml" && name != "wrangler.toml" && name != "wrangler.jsonc" {
			return
		}
		m := &Manifest{File: name}
		if m.parse(src) != nil {
			return
		}
		if strings.HasPrefix(m.Main, "/") || strings.HasPrefix(m.Main, "..") {
			t.Errorf("main %q leaves the folder", m.Main)
		}
		for _, r := range m.Routes {
			if strings.HasSuffix(r.Host, "localhost") && (r.Host == "localhost" || strings.HasSuffix(r.Host, ".localhost")) {
				t.Errorf("route %q takes a neighbour's name", r.Pattern)
			}
		}
	})
}
