package bundle

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/evanw/esbuild/pkg/api"

	"bulkhead/supervisor/tenants/bundle/nodejs"
)

// Modules of Node.js. Those of package nodejs become part of the bundle, and what the bundle does not use of
// them is left out; node:async_hooks is the runtime's. A package of the tenant's own comes before one of
// Node.js of the same name without prefix: who installs a `buffer` or `events` means that one.

const (
	nodeNamespace = "bulkhead-node"         // modules of package nodejs
	nodeRequired  = "bulkhead-node-require" // what a require() of one gives: not its namespace but its default
)

// nodeModule resolves a name of Node.js's that the folder does not have itself.
func nodeModule(spec string, kind api.ResolveKind) (api.OnResolveResult, bool) {
	name, ok := nodejs.Module(spec)
	if !ok {
		return api.OnResolveResult{}, false
	}
	space := nodeNamespace
	if kind == api.ResolveJSRequireCall {
		space = nodeRequired
	}
	return api.OnResolveResult{Path: name, Namespace: space}, true
}

// nodeGlobals are what code of Node.js's names without importing it. Who imports none of its modules is
// left without them: many packages look for them to tell where they run.
const nodeGlobals = "bulkhead-node-globals"

const nodeGlobalsModule = `export { Buffer } from "node:buffer";
export { default as process } from "node:process";
export { setImmediate, clearImmediate } from "node:timers";
`

// withNodeGlobals has the globals put in where they are named. It takes a second run: the first one told
// that a module of Node.js is imported.
func withNodeGlobals(o api.BuildOptions) api.BuildOptions {
	o.Inject = []string{nodeGlobals}
	o.Define = maps.Clone(o.Define)
	o.Define["global"] = "globalThis"
	return o
}

// withinNode resolves what a module of package nodejs imports: its parts, and what the runtime has.
func withinNode(a api.OnResolveArgs) api.OnResolveResult {
	if _, ok := nodejs.Module(a.Path); ok || strings.HasPrefix(a.Path, "./") {
		return api.OnResolveResult{Path: a.Path, Namespace: nodeNamespace}
	}
	return api.OnResolveResult{Path: a.Path, External: true}
}

func loadNode(a api.OnLoadArgs) (api.OnLoadResult, error) {
	if a.Namespace == nodeRequired {
		text := fmt.Sprintf("module.exports = require(%q).default;", a.Path)
		return api.OnLoadResult{Contents: &text, Loader: api.LoaderJS}, nil
	}
	if a.Path == nodeGlobals {
		text := nodeGlobalsModule
		return api.OnLoadResult{Contents: &text, Loader: api.LoaderJS}, nil
	}
	text, err := nodejs.Source(a.Path)
	if err != nil {
		return api.OnLoadResult{}, fmt.Errorf("BUG: no module %q: %w", a.Path, err)
	}
	return api.OnLoadResult{Contents: &text, Loader: api.LoaderJS}, nil
}

// remedies say what to use in the place of modules that a sealed worker cannot have.
var remedies = map[string]string{
	"fs":     "a worker has no files; import text, JSON, .bin and .wasm files, which become part of the bundle",
	"net":    "a worker has no sockets; use fetch() or new WebSocket(url)",
	"http":   "use fetch(), and export default { fetch(request) } to serve",
	"zlib":   "use CompressionStream and DecompressionStream",
	"worker": "a worker is one thread; use a service binding for what shall run beside it",
	"exec":   "a worker cannot start processes",
	"vm":     "code must be part of the bundle",
	"os":     "a worker is not told about its machine",
}

// remedyFor says why there is no such module of Node.js, and what to do about it.
func remedyFor(name string) string {
	groups := map[string][]string{
		"net":    {"net", "dgram", "dns", "tls"},
		"http":   {"http", "http2", "https"},
		"worker": {"worker_threads", "cluster"},
		"exec":   {"child_process"},
		"vm":     {"vm", "module", "repl"},
	}
	for remedy, names := range groups {
		if slices.Contains(names, name) {
			return remedies[remedy]
		}
	}
	if r, ok := remedies[name]; ok {
		return r
	}
	return "use the web standard API for it, or a package that does not need Node.js"
}

// rewordExport answers an import of what a module of Node.js has there, but not here.
func rewordExport(text string) (string, bool) {
	rest, ok := strings.CutPrefix(text, `No matching export in "`+nodeNamespace+":")
	if !ok {
		return "", false
	}
	module, rest, ok := strings.Cut(rest, `" for import "`)
	return fmt.Sprintf("cannot import %q from %q: this part of the Node.js module is not served; use the web standard API for it (docs/STATUS.md lists what there is)",
		strings.TrimSuffix(rest, `"`), module), ok
}
