// Package bundle makes one ES module (and the files it cannot contain) of a tenant's folder.
//
// Duty: TypeScript, JSX and npm packages by esbuild; text, data, JSON and WebAssembly as modules
// a worker can import; diagnostics with file, line and excerpt for everything that is wrong.
//
// Trust: every file is the tenant's and hostile, esbuild is a large program that reads them. So
// this runs in a sealed child (cmd/bulkhead as bulkhead-bundler) that sees this one folder,
// read-only, and has no network, no other process and bounded memory. The checks here are the
// first wall and the one that explains itself: they refuse what would leave the folder and name
// the import. The seal is the wall that holds.
//
// Invariants: Run is a function of the folder; it writes nothing. Input and output are bounded by
// Limits. Outside a seal esbuild looks for package.json and tsconfig.json in the folders above,
// too; what they say can change how names are resolved, not what may be loaded.
package bundle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"unicode/utf16"

	"github.com/evanw/esbuild/pkg/api"

	"bulkhead/policy/doctree"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/tenants"
	"bulkhead/supervisor/tenants/manifest"
)

// Limits bound one bundle.
type Limits struct {
	FileBytes   int64 // one file
	Files       int   // files loaded
	InputBytes  int64 // files together
	OutputBytes int   // code of all modules, without source maps
	MapBytes    int   // source map; a larger one is left out with a warning
	ScanEntries int   // directory entries looked at before esbuild may
	Depth       int   // directories within directories, node_modules included
}

// DefaultLimits are what a sealed bundler works with.
func DefaultLimits() Limits {
	return Limits{
		FileBytes:   16 << 20,
		Files:       20_000,
		InputBytes:  64 << 20,
		OutputBytes: 32 << 20,
		MapBytes:    32 << 20,
		ScanEntries: 200_000,
		Depth:       64,
	}
}

// entryName is the module that esbuild's output becomes. Not a name that a tenant's own file is
// likely to have: places within the bundle must be told from places that were mapped already.
const entryName = "/worker.bundle.js"

// Run bundles the folder at dir. What is wrong with the folder is in the output's Errors.
func Run(dir string, lim Limits) tenants.BundleOutput {
	b := &bundler{lim: lim, plugin: plugin{assets: map[string]*asset{}}}
	if err := b.open(dir); err != nil {
		return failed(err)
	}
	defer b.root.Close()
	m, err := manifest.Read(b.root)
	if err != nil {
		return failed(err)
	}
	if err := b.scan(); err != nil {
		return failed(err)
	}
	entry := filepath.Join(b.dir, filepath.FromSlash(m.Main))
	if err := b.checkFile(entry); err != nil {
		at := m.File
		if at == "" {
			at = m.Main
		}
		return failed(&doctree.Error{File: at, Message: fmt.Sprintf("the entry %s %v", m.Main, err)})
	}
	return b.build(entry)
}

func failed(err error) tenants.BundleOutput {
	var out tenants.BundleOutput
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		for _, e := range joined.Unwrap() {
			out.Errors = append(out.Errors, failed(e).Errors...)
		}
		return out
	}
	d := tenants.Diagnostic{Message: err.Error()}
	var de *doctree.Error
	if errors.As(err, &de) {
		d = tenants.Diagnostic{File: de.File, Line: de.Pos.Line, Column: de.Pos.Column, Excerpt: de.Excerpt, Message: de.Message}
	}
	out.Errors = append(out.Errors, d)
	return out
}

// bundler is one run.
type bundler struct {
	lim  Limits
	dir  string // real path of the folder
	root *os.Root

	plugin
}

func (b *bundler) open(dir string) (err error) {
	if b.dir, err = filepath.EvalSymlinks(dir); err == nil {
		b.dir, err = filepath.Abs(b.dir)
	}
	if err == nil {
		b.root, err = os.OpenRoot(b.dir)
	}
	if err != nil {
		return fmt.Errorf("cannot open the folder: %w", err)
	}
	return nil
}

// build runs esbuild and collects what it made.
func (b *bundler) build(entry string) tenants.BundleOutput {
	opts := b.options(entry)
	res := api.Build(opts)
	if b.node && len(res.Errors) == 0 {
		b.plugin = plugin{assets: map[string]*asset{}}
		res = api.Build(withNodeGlobals(opts))
	}
	var out tenants.BundleOutput
	for _, m := range res.Errors {
		out.Errors = append(out.Errors, b.diagnostic(m))
	}
	for _, m := range res.Warnings {
		out.Warnings = append(out.Warnings, b.diagnostic(m))
	}
	if len(out.Errors) > 0 {
		return out
	}
	main := tenants.Module{Name: entryName, Kind: gen.Module_Kind_esm}
	for _, f := range res.OutputFiles {
		if strings.HasSuffix(f.Path, ".map") {
			main.SourceMap = f.Contents
		} else if strings.HasSuffix(f.Path, ".js") {
			main.Code = f.Contents
		}
	}
	if len(main.SourceMap) > b.lim.MapBytes {
		main.SourceMap = nil
		out.Warnings = append(out.Warnings, tenants.Diagnostic{Message: "the source map is too large and was left out: errors will name places in the bundle"})
	}
	out.Main = main.Name
	out.Modules = append(out.Modules, main)
	names := make([]string, 0, len(b.assets))
	for name := range b.assets {
		names = append(names, name)
	}
	sort.Strings(names)
	total := len(main.Code)
	for _, name := range names {
		a := b.assets[name]
		out.Modules = append(out.Modules, tenants.Module{Name: name, Kind: a.kind, Code: a.data})
		total += len(a.data)
	}
	if total > b.lim.OutputBytes {
		return tenants.BundleOutput{Errors: []tenants.Diagnostic{{
			Message: fmt.Sprintf("the bundle has %d bytes, a bundler's limit is %d; import less", total, b.lim.OutputBytes),
		}}}
	}
	return out
}

func (b *bundler) options(entry string) api.BuildOptions {
	return api.BuildOptions{
		EntryPoints:    []string{entry},
		AbsWorkingDir:  b.dir,
		Bundle:         true,
		Write:          false,
		Outfile:        filepath.Join(b.dir, strings.TrimPrefix(entryName, "/")),
		AllowOverwrite: true, // nothing is written
		Format:         api.FormatESModule,
		Target:         api.ESNext,
		Platform:       api.PlatformNeutral,
		// What Workers bundlers agree on, so that packages choose their build for them.
		Conditions: []string{"workerd", "worker", "browser"},
		MainFields: []string{"browser", "module", "main"},
		// V8 13.6 has everything of ES2025 and explicit resource management, but no decorators.
		Supported:     map[string]bool{"decorators": false},
		Define:        map[string]string{"process.env.NODE_ENV": `"production"`},
		TreeShaking:   api.TreeShakingTrue,
		KeepNames:     true,
		Charset:       api.CharsetUTF8,
		LegalComments: api.LegalCommentsNone,
		Sourcemap:     api.SourceMapExternal,
		// The excerpt of an error is read from the file; the map need not carry every source.
		SourcesContent: api.SourcesContentExclude,
		LogLevel:       api.LogLevelSilent,
		LogLimit:       50,
		Loader: map[string]api.Loader{
			".js": api.LoaderJSX, ".mjs": api.LoaderJSX, ".cjs": api.LoaderJSX,
			".txt": api.LoaderText, ".html": api.LoaderText, ".sql": api.LoaderText, ".md": api.LoaderText,
			".css": api.LoaderText, ".svg": api.LoaderText,
		},
		Plugins: []api.Plugin{{Name: "bulkhead", Setup: b.setup}},
	}
}

// diagnostic turns esbuild's message into ours, with our words where it gives advice that does
// not hold here.
func (b *bundler) diagnostic(m api.Message) tenants.Diagnostic {
	d := tenants.Diagnostic{Message: reword(m)}
	loc := m.Location
	if loc == nil {
		return d
	}
	d.File = b.relative(loc.File)
	d.Line = loc.Line
	column := max(0, min(loc.Column, len(loc.LineText)))
	d.Column = len(utf16.Encode([]rune(loc.LineText[:column]))) + 1
	d.Excerpt, _ = doctree.Window(loc.LineText, column)
	return d
}

// relative makes a path that esbuild reports relative to the folder.
func (b *bundler) relative(p string) string {
	if !filepath.IsAbs(p) {
		return filepath.ToSlash(p)
	}
	if rel, err := filepath.Rel(b.dir, p); err == nil && filepath.IsLocal(rel) {
		return filepath.ToSlash(rel)
	}
	return filepath.Base(p)
}

// reword answers the two most common failures with what to do about them here.
func reword(m api.Message) string {
	if text, ok := rewordExport(m.Text); ok {
		return text
	}
	name, isResolve := strings.CutPrefix(m.Text, `Could not resolve "`)
	name, isWhole := strings.CutSuffix(name, `"`)
	if !isResolve || !isWhole {
		return m.Text
	}
	bare := strings.TrimPrefix(name, "node:")
	top, _, _ := strings.Cut(bare, "/")
	switch {
	case strings.HasPrefix(name, "cloudflare:"):
		return fmt.Sprintf("cannot import %q: modules of this name are not served yet; use the global classes and the arguments of the handler", name)
	case strings.HasPrefix(name, "node:") || builtin(top):
		return fmt.Sprintf("cannot import %q: this Node.js module is not served; %s", name, remedyFor(top))
	case strings.HasPrefix(name, "."):
		return fmt.Sprintf("cannot find %q; check the spelling, and that the file is in the tenant's folder", name)
	default:
		pkg := name
		if parts := strings.SplitN(name, "/", 3); strings.HasPrefix(name, "@") && len(parts) > 1 {
			pkg = parts[0] + "/" + parts[1]
		} else if !strings.HasPrefix(name, "@") {
			pkg = parts[0]
		}
		return fmt.Sprintf("cannot find the package %q; run `npm install %s` in the tenant's folder (packages must be inside it)", name, pkg)
	}
}

// builtin says whether Node.js has a module of this name.
func builtin(name string) bool {
	switch name {
	case "assert", "async_hooks", "buffer", "child_process", "cluster", "console", "constants", "crypto", "dgram",
		"diagnostics_channel", "dns", "domain", "events", "fs", "http", "http2", "https", "inspector", "module", "net",
		"os", "path", "perf_hooks", "process", "punycode", "querystring", "readline", "repl", "stream", "string_decoder",
		"sys", "timers", "tls", "trace_events", "tty", "url", "util", "v8", "vm", "wasi", "worker_threads", "zlib":
		return true
	}
	return false
}
