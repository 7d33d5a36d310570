// Package manifest reads what a tenant's folder says about itself: where the code begins, which
// variables it wants in `env`, which routes it answers.
//
// Duty: bulkhead.yaml, wrangler.toml, wrangler.json and wrangler.jsonc, or, without any of them,
// the well-known names of an entry file. Both the gateway's registry (env, routes) and the sealed
// bundler (entry) read folders through this package, so they cannot disagree.
//
// Trust: every byte is the tenant's. Files are opened through os.Root, which cannot leave the
// folder by a symlink, without blocking on a FIFO, and only regular ones are read, up to a size.
// A manifest can ask for routes and variables; it cannot ask for limits, profiles or another
// tenant's name.
//
// Invariants: reads only; the same folder gives the same Manifest or the same error.
package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"bulkhead/policy/cron"
	"bulkhead/policy/doctree"
)

// Bounds on one manifest, beside those of doctree.
const (
	MaxVars   = 256
	MaxRoutes = 64
	maxName   = 256 // bytes of a variable's name
)

// Manifest is what a folder says.
type Manifest struct {
	File     string // the configuration file, "" when the entry was found by its name
	Main     string // the entry, slash-separated and relative to the folder
	Env      []Var  // in the order of the file
	Routes   []Route
	Callers  []string         // tenants that may bind to this one; "*" for all
	Crons    []cron.Expr      // when its scheduled handler runs
	Warnings []*doctree.Error // what was understood but is not served
}

// Var is one variable of `env`.
type Var struct {
	Name  string
	JSON  bool   // Value is JSON text to be parsed; otherwise it is the string itself
	Value string //
	// Service is the tenant a service binding leads to; then Value is its props, a JSON object, or "".
	Service    string
	Entrypoint string // of Service; "" for its default export
	// HostAPI is the operator's API a binding leads to; then it has no value.
	HostAPI string
}

// Configs are the configuration files in the order of precedence.
func Configs() []string {
	return []string{"bulkhead.yaml", "wrangler.jsonc", "wrangler.json", "wrangler.toml"}
}

// entries are the names that begin a worker without a configuration, in order of precedence.
func entries() []string {
	return []string{
		"worker.ts", "worker.js", "worker.mjs", "worker.tsx", "worker.jsx",
		"src/index.ts", "src/index.js", "src/index.mjs", "src/index.tsx", "src/index.jsx",
	}
}

// Read reads the manifest of a folder. The error is a *doctree.Error, or several joined.
func Read(root *os.Root) (*Manifest, error) {
	m := &Manifest{}
	var ignored []string
	for _, name := range Configs() {
		_, err := root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if m.File != "" {
			ignored = append(ignored, name)
			continue
		}
		m.File = name
	}
	if m.File == "" {
		return m, m.findEntry(root)
	}
	src, err := ReadFile(root, m.File, doctree.MaxBytes)
	if err != nil {
		return nil, &doctree.Error{File: m.File, Message: err.Error()}
	}
	if err := m.parse(src); err != nil {
		return nil, err
	}
	for _, name := range ignored {
		m.Warnings = append(m.Warnings, &doctree.Error{File: name, Message: "ignored, because " + m.File + " is there too; delete one of them"})
	}
	if m.Main == "" {
		return m, m.findEntry(root)
	}
	return m, nil
}

// ReadFile reads a regular file of the folder, at most limit bytes. The error is for people and
// names the remedy, not the path.
func ReadFile(root *os.Root, name string, limit int64) ([]byte, error) {
	// O_NONBLOCK: opening a FIFO for reading would wait for a writer that never comes.
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		if IsEscape(err) {
			return nil, errors.New("is a symbolic link that leaves the folder; put the file itself there")
		}
		return nil, fmt.Errorf("cannot be opened: %w", errors.Unwrap(err))
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot be examined: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("is not a regular file (%s); put a plain file there", st.Mode().Type())
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("is larger than %d bytes", limit)
	}
	return b, nil
}

// IsEscape recognises os.Root's refusal to leave the folder; the os package exports no value for it.
func IsEscape(err error) bool {
	var pe *fs.PathError
	return errors.As(err, &pe) && strings.Contains(pe.Err.Error(), "escapes")
}

// findEntry looks for the well-known names.
func (m *Manifest) findEntry(root *os.Root) error {
	for _, name := range entries() {
		st, err := root.Lstat(name)
		if err == nil && (st.Mode().IsRegular() || st.Mode()&fs.ModeSymlink != 0) {
			m.Main = name
			return nil
		}
	}
	if m.File != "" {
		return &doctree.Error{File: m.File, Message: `names no entry and there is no worker.ts, worker.js, worker.mjs or src/index.*; add "main"`}
	}
	return &doctree.Error{File: ".", Message: "no worker here: add worker.js, worker.ts, src/index.ts, or a bulkhead.yaml or wrangler.toml with main"}
}

func (m *Manifest) parse(src []byte) error {
	var doc *doctree.Doc
	var err error
	switch path.Ext(m.File) {
	case ".yaml":
		doc, err = doctree.YAML(m.File, src)
	case ".toml":
		doc, err = doctree.TOML(m.File, src)
	default:
		doc, err = doctree.JSONC(m.File, src)
	}
	if err != nil {
		return err
	}
	r := &reader{m: m, doc: doc, wrangler: m.File != "bulkhead.yaml"}
	r.top(doc.Root)
	return errors.Join(r.errs...)
}

type reader struct {
	m        *Manifest
	doc      *doctree.Doc
	wrangler bool
	errs     []error
}

const maxReports = 20

func (r *reader) fail(at doctree.Pos, format string, args ...any) {
	if len(r.errs) < maxReports {
		r.errs = append(r.errs, r.doc.Errorf(at, format, args...))
	}
}

func (r *reader) warn(at doctree.Pos, format string, args ...any) {
	if len(r.m.Warnings) < maxReports {
		r.m.Warnings = append(r.m.Warnings, r.doc.Errorf(at, format, args...))
	}
}

func (r *reader) top(n *doctree.Node) {
	if n.Kind == doctree.Null {
		return
	}
	if n.Kind != doctree.Map {
		r.fail(n.Pos, "the file must be a mapping of keys to values, not %s", n.Kind)
		return
	}
	for _, f := range n.Fields {
		switch f.Key {
		case "main":
			r.main(f.Value)
		case "vars":
			r.vars(f.Value)
		case "routes":
			r.routes(f.Value)
		case "route":
			r.route(f.Value)
		case "services":
			r.services(f.Value)
		case "hostApis":
			r.hostAPIs(f.Value)
		case "triggers":
			r.triggers(f.Value)
		case "callers":
			if r.wrangler {
				r.other(f)
			} else {
				r.callers(f.Value)
			}
		case "compatibility_date", "compatibilityDate":
			r.date(f)
		default:
			r.other(f)
		}
	}
}

// other handles what has no meaning here: quietly when nothing is lost, with a warning when the
// worker would miss it, with an error when the file is ours and the key is not.
func (r *reader) other(f doctree.Field) {
	if !r.wrangler {
		known := []string{"main", "vars", "routes", "services", "hostApis", "callers", "triggers", "compatibility_date"}
		hint := doctree.Suggest(f.Key, known)
		if hint == "" {
			hint = "; it takes " + strings.Join(known, ", ") + ". Limits and profiles are the operator's, in the policy"
		}
		r.fail(f.Pos, "bulkhead.yaml has no key %q%s", doctree.Printable(f.Key), hint)
		return
	}
	switch {
	case slices.Contains(harmless(), f.Key):
	case slices.Contains(unserved(), f.Key):
		if !empty(f.Value) {
			r.warn(f.Pos, "%s is not served by this version: %s", f.Key, consequence(f.Key))
		}
	default:
		r.warn(f.Pos, "unknown key %q, ignored%s", doctree.Printable(f.Key), doctree.Suggest(f.Key, slices.Concat([]string{"main", "vars", "routes", "route", "services", "hostApis", "triggers", "compatibility_date"}, harmless(), unserved())))
	}
}

func empty(n *doctree.Node) bool {
	return n.Kind == doctree.Null || (n.Kind == doctree.List && len(n.Items) == 0) || (n.Kind == doctree.Map && len(n.Fields) == 0)
}

// harmless are keys of wrangler's configuration that change nothing about how a worker runs here.
func harmless() []string {
	return []string{
		"$schema", "name", "account_id", "workers_dev", "preview_urls", "compatibility_flags", "minify", "dev", "logpush",
		"observability", "placement", "usage_model", "keep_vars", "send_metrics", "upload_source_maps", "keep_names",
		"type", "zone_id", "tsconfig", "limits", "no_bundle", "first_party_worker", "legacy_env", "node_compat",
	}
}

// unserved are keys whose absence a worker may notice.
func unserved() []string {
	return []string{
		"kv_namespaces", "r2_buckets", "d1_databases", "durable_objects", "migrations", "queues",
		"ai", "ai_search", "browser", "vectorize", "hyperdrive", "analytics_engine_datasets", "dispatch_namespaces", "mtls_certificates",
		"send_email", "workflows", "pipelines", "assets", "site", "tail_consumers", "logfwdr", "unsafe", "version_metadata",
		"images", "containers", "secrets_store_secrets", "unsafe_hello_world", "ratelimits", "env", "define", "alias", "rules", "build",
		"wasm_modules", "text_blobs", "data_blobs", "find_additional_modules", "base_dir", "preserve_file_names", "jsx_factory", "jsx_fragment",
		"worker_loaders", "vpc_services", "streaming_tail_consumers", "media",
	}
}

func consequence(key string) string {
	switch key {
	case "env":
		return "only the top level of the file is used; copy what you need there"
	case "assets", "site":
		return "only the worker answers; import files as text or data modules"
	case "build":
		return "no build command is run; put the built worker into the folder and name it in main"
	case "define", "alias", "rules", "find_additional_modules", "base_dir", "preserve_file_names", "jsx_factory", "jsx_fragment":
		return "the bundler uses its defaults; settings for JSX belong into tsconfig.json"
	case "wasm_modules", "text_blobs", "data_blobs":
		return "import the file from the worker instead"
	case "tail_consumers", "logfwdr", "streaming_tail_consumers":
		return "logs go to the operator's log only"
	case "migrations":
		return "there are no durable objects to migrate"
	}
	return "its binding will be missing in env"
}

func (r *reader) main(n *doctree.Node) {
	if n.Kind != doctree.String {
		r.fail(n.Pos, "main must be the path of the entry file, not %s", n.Kind)
		return
	}
	p := path.Clean(n.Text)
	switch {
	case n.Text == "" || p == ".":
		r.fail(n.Pos, "main is empty; name the entry file, such as src/index.ts")
	case strings.HasPrefix(n.Text, "/") || strings.Contains(n.Text, `\`):
		r.fail(n.Pos, "main must be relative to the folder, with forward slashes: %q is not", doctree.Printable(n.Text))
	case p == ".." || strings.HasPrefix(p, "../"):
		r.fail(n.Pos, "main leaves the folder: %q; a worker is made of what is in its own folder", doctree.Printable(n.Text))
	case len(p) > 1024:
		r.fail(n.Pos, "main is too long")
	default:
		r.m.Main = p
	}
}

func (r *reader) vars(n *doctree.Node) {
	if n.Kind == doctree.Null {
		return
	}
	if n.Kind != doctree.Map {
		r.fail(n.Pos, "vars must be a mapping of names to values, not %s", n.Kind)
		return
	}
	for _, f := range n.Fields {
		switch {
		case len(r.m.Env) == MaxVars:
			r.fail(f.Pos, "more than %d vars", MaxVars)
			return
		case f.Key == "" || len(f.Key) > maxName:
			r.fail(f.Pos, "the name of a var must have 1 to %d bytes", maxName)
		case f.Value.Kind == doctree.String:
			r.m.Env = append(r.m.Env, Var{Name: f.Key, Value: f.Value.Text})
		default:
			r.m.Env = append(r.m.Env, Var{Name: f.Key, JSON: true, Value: string(appendJSON(nil, f.Value))})
		}
	}
}

// appendJSON writes a node as JSON text, keys in the order of the document.
func appendJSON(b []byte, n *doctree.Node) []byte {
	switch n.Kind {
	case doctree.Bool:
		return strconv.AppendBool(b, n.Bool)
	case doctree.Int:
		return strconv.AppendInt(b, n.Int, 10)
	case doctree.Float:
		return strconv.AppendFloat(b, n.Float, 'g', -1, 64)
	case doctree.String:
		return appendString(b, n.Text)
	case doctree.List:
		b = append(b, '[')
		for i, item := range n.Items {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSON(b, item)
		}
		return append(b, ']')
	case doctree.Map:
		b = append(b, '{')
		for i, f := range n.Fields {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, f.Key), ':')
			b = appendJSON(b, f.Value)
		}
		return append(b, '}')
	}
	return append(b, "null"...)
}

func appendString(b []byte, s string) []byte {
	q, err := json.Marshal(s)
	if err != nil {
		panic("BUG: a string cannot be encoded: " + err.Error())
	}
	return append(b, q...)
}

func (r *reader) date(f doctree.Field) {
	s, ok := f.Value.Text, f.Value.Kind == doctree.String
	if ok && len(s) == 10 && s[4] == '-' && s[7] == '-' {
		return
	}
	r.fail(f.Value.Pos, "%s must be a date such as \"2025-06-01\"", f.Key)
}
