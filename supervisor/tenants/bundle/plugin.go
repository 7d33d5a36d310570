package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/evanw/esbuild/pkg/api"

	"bulkhead/policy/doctree"
	"bulkhead/schema/gen"
	"bulkhead/supervisor/tenants/manifest"
)

// asset is a file that stays a module of its own.
type asset struct {
	kind gen.Module_Kind
	data []byte
}

// plugin is what esbuild calls back into, from several goroutines.
type plugin struct {
	mu     sync.Mutex
	assets map[string]*asset // guarded by mu: module name → file
	files  int               // guarded by mu
	bytes  int64             // guarded by mu
	node   bool              // guarded by mu: a module of Node.js was imported
}

// checked marks a resolution that asks esbuild itself, so that it does not come back to us.
type checked struct{}

func (b *bundler) setup(build api.PluginBuild) {
	build.OnResolve(api.OnResolveOptions{Filter: ".*"}, func(a api.OnResolveArgs) (api.OnResolveResult, error) {
		if _, ours := a.PluginData.(checked); ours || a.Kind == api.ResolveEntryPoint && a.Path != nodeGlobals {
			return api.OnResolveResult{}, nil
		}
		return b.resolve(build, a)
	})
	build.OnLoad(api.OnLoadOptions{Filter: ".*"}, func(a api.OnLoadArgs) (api.OnLoadResult, error) {
		if a.Namespace == hostNamespace {
			return loadHost(a.Path)
		}
		if a.Namespace == nodeNamespace || a.Namespace == nodeRequired {
			return loadNode(a)
		}
		if a.Namespace == servedRequire {
			text := fmt.Sprintf("export * from %q;", a.Path)
			return api.OnLoadResult{Contents: &text}, nil
		}
		if a.Namespace != "file" {
			return api.OnLoadResult{}, nil // "(disabled):" modules are empty
		}
		if err := b.checkFile(a.Path); err != nil {
			return api.OnLoadResult{}, fmt.Errorf("%s %w", b.relative(a.Path), err)
		}
		if filepath.Ext(a.Path) == ".map" {
			return api.OnLoadResult{}, errors.New("source maps cannot be imported")
		}
		return api.OnLoadResult{}, nil
	})
}

// servedRequire is the namespace of modules that pass a module of the runtime's on to a require().
const servedRequire = "bulkhead-require"

// served says whether a worker's runtime has a module of this name, and what it is called there
// (sandboxworker/runtime/js/node/builtin.js).
func served(name string) (string, bool) {
	switch name {
	case "node:async_hooks", "async_hooks":
		return "node:async_hooks", true
	}
	return "", false
}

// resolve lets esbuild find an import, if it is one that may be looked for, and refuses what it
// found if that is outside the folder.
func (b *bundler) resolve(build api.PluginBuild, a api.OnResolveArgs) (api.OnResolveResult, error) {
	if hostModule(a.Path) {
		return api.OnResolveResult{Path: a.Path, Namespace: hostNamespace}, nil
	}
	if name, ok := served(a.Path); ok {
		if a.Kind == api.ResolveJSRequireCall {
			return api.OnResolveResult{Path: name, Namespace: servedRequire}, nil
		}
		return api.OnResolveResult{Path: name, External: true}, nil
	}
	if a.Path == nodeGlobals && a.Kind == api.ResolveEntryPoint {
		return api.OnResolveResult{Path: a.Path, Namespace: nodeNamespace, SideEffects: api.SideEffectsFalse}, nil
	}
	if a.Namespace == nodeNamespace || a.Namespace == nodeRequired {
		return withinNode(a), nil
	}
	spec := strings.TrimSuffix(a.Path, "?module") // how other hosts spell the import of a .wasm file
	if why := b.leaves(spec, a.ResolveDir); why != "" {
		return refusal(a.Path, why), nil
	}
	res := build.Resolve(spec, api.ResolveOptions{
		Importer: a.Importer, Namespace: a.Namespace, ResolveDir: a.ResolveDir, Kind: a.Kind, With: a.With, PluginData: checked{},
	})
	if len(res.Errors) > 0 {
		if node, ok := nodeModule(spec, a.Kind); ok {
			b.mu.Lock()
			b.node = true
			b.mu.Unlock()
			return node, nil
		}
	}
	if len(res.Errors) > 0 || res.Path == "" || res.Namespace != "file" {
		// esbuild then says it in its own words, with the place, and as a warning where a
		// require() stands in a try block.
		return api.OnResolveResult{}, nil
	}
	if !b.inside(res.Path) {
		return refusal(a.Path, "it is found outside the tenant's folder (through a symbolic link, or in a node_modules above it)"), nil
	}
	kind, separate := assetKind(res.Path)
	if !separate {
		// Not res itself: esbuild forgets which tsconfig.json applies to a path a plugin gave it
		// (JSX settings would be lost). It resolves again, and checkFile looks at what it loads.
		return api.OnResolveResult{}, nil
	}
	name, err := b.keep(res.Path, kind)
	if err != nil {
		return refusal(a.Path, err.Error()), nil
	}
	if a.Kind == api.ResolveJSRequireCall {
		return refusal(a.Path, "a "+filepath.Ext(res.Path)+" file cannot be required, only imported"), nil
	}
	return api.OnResolveResult{Path: name, External: true}, nil
}

func refusal(spec, why string) api.OnResolveResult {
	text := fmt.Sprintf("import %q is refused: %s. A worker is made only of what is in its own folder: copy the file there, or install the package there", doctree.Printable(spec), why)
	return api.OnResolveResult{Errors: []api.Message{{Text: text}}}
}

// leaves says why a specifier cannot stay in the folder, by its text alone, or "".
func (b *bundler) leaves(spec, from string) string {
	lower := strings.ToLower(spec)
	switch {
	case strings.ContainsRune(spec, 0):
		return "it holds a NUL character"
	case strings.HasPrefix(spec, "/") || strings.HasPrefix(spec, `\`) || filepath.IsAbs(spec):
		return "it is an absolute path"
	case strings.HasPrefix(lower, "file:"), strings.HasPrefix(lower, "http:"), strings.HasPrefix(lower, "https:"), strings.HasPrefix(lower, "data:"):
		return "it is a URL"
	case spec == ".." || spec == "." || strings.HasPrefix(spec, "./") || strings.HasPrefix(spec, "../"):
		if !b.inside(filepath.Join(from, filepath.FromSlash(spec))) {
			return "it leads out of the tenant's folder"
		}
	}
	return ""
}

// inside says whether a path is the folder or lies within it, by its text. What esbuild has
// resolved is free of symbolic links already; checkFile looks again before anything is read.
func (b *bundler) inside(p string) bool {
	rel, err := filepath.Rel(b.dir, p)
	return err == nil && (rel == "." || filepath.IsLocal(rel))
}

// checkFile refuses to have a file read that is not a plain one within the folder and the limits.
// The error continues a sentence that began with the file's name.
func (b *bundler) checkFile(p string) error {
	rel, err := filepath.Rel(b.dir, p)
	if err != nil || !filepath.IsLocal(rel) {
		return errors.New("is outside the tenant's folder")
	}
	st, err := b.root.Stat(rel) // follows links, but not out of the folder
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return errors.New("does not exist")
		}
		if manifest.IsEscape(err) {
			return errors.New("is behind a symbolic link that leaves the tenant's folder; put the file itself there")
		}
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return fmt.Errorf("cannot be read: %w", err)
	}
	switch {
	case st.IsDir():
		return errors.New("is a directory")
	case !st.Mode().IsRegular():
		return fmt.Errorf("is not a regular file (%s); put a plain file there", st.Mode().Type())
	case st.Size() > b.lim.FileBytes:
		return fmt.Errorf("has %d bytes, the limit for one file is %d", st.Size(), b.lim.FileBytes)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.files++
	b.bytes += st.Size()
	if b.files > b.lim.Files {
		return fmt.Errorf("is one file too many: the limit is %d", b.lim.Files)
	}
	if b.bytes > b.lim.InputBytes {
		return fmt.Errorf("is too much: all files together may have %d bytes", b.lim.InputBytes)
	}
	return nil
}

// assetKind says which files stay modules of their own.
func assetKind(p string) (gen.Module_Kind, bool) {
	switch strings.ToLower(filepath.Ext(p)) {
	case ".wasm":
		return gen.Module_Kind_wasm, true
	case ".bin":
		return gen.Module_Kind_data, true
	}
	return 0, false
}

// keep reads a file that stays a module of its own and names it. The name begins with a hash of
// the content, so that two files of one name do not meet, and ends with what people know it by.
func (b *bundler) keep(p string, kind gen.Module_Kind) (string, error) {
	if err := b.checkFile(p); err != nil {
		return "", fmt.Errorf("it %w", err)
	}
	rel, err := filepath.Rel(b.dir, p)
	if err != nil {
		return "", err
	}
	data, err := manifest.ReadFile(b.root, rel, b.lim.FileBytes)
	if err != nil {
		return "", fmt.Errorf("it %w", err)
	}
	sum := sha256.Sum256(data)
	name := "/assets/" + hex.EncodeToString(sum[:8]) + "-" + plain(path.Base(filepath.ToSlash(p)))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.assets[name] = &asset{kind: kind, data: data}
	return name, nil
}

// plain keeps of a file name what needs no quoting anywhere.
func plain(s string) string {
	if len(s) > 100 {
		s = s[len(s)-100:]
	}
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, s)
}

// scan walks the folder before esbuild does. esbuild reads package.json and tsconfig.json by
// itself, wherever it passes one, without asking a plugin: a FIFO of that name would hold it
// until the deadline, and a symbolic link would be followed.
func (b *bundler) scan() error {
	entries := 0
	return fs.WalkDir(b.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // not readable; if it is needed, its import fails with the reason
		}
		if entries++; entries > b.lim.ScanEntries {
			return fmt.Errorf("the folder has more than %d files; remove what the worker does not need", b.lim.ScanEntries)
		}
		if d.IsDir() {
			if strings.Count(p, "/") >= b.lim.Depth {
				return &doctree.Error{File: p, Message: fmt.Sprintf("directories are nested more than %d deep", b.lim.Depth)}
			}
			if d.Name() == ".git" {
				return fs.SkipDir
			}
			return nil
		}
		name := d.Name()
		if name != "package.json" && !(strings.HasPrefix(name, "tsconfig") || strings.HasPrefix(name, "jsconfig")) || !strings.HasSuffix(name, ".json") {
			return nil
		}
		st, err := b.root.Stat(filepath.FromSlash(p))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // a dangling link is as good as nothing
		case err != nil:
			return &doctree.Error{File: p, Message: "is a symbolic link that leaves the folder; put the file itself there"}
		case !st.Mode().IsRegular() && !st.IsDir():
			return &doctree.Error{File: p, Message: fmt.Sprintf("is not a regular file (%s); put a plain file there", st.Mode().Type())}
		case st.Size() > b.lim.FileBytes:
			return &doctree.Error{File: p, Message: fmt.Sprintf("has %d bytes, the limit for one file is %d", st.Size(), b.lim.FileBytes)}
		}
		return nil
	})
}
