package observe

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Script is the code of a tenant as it was given to a process, kept because an incident or a measure names the
// tenant: a folder changes, and whoever looks into what happened wants what ran. Values of variables are left
// out, they may be secret; so are secrets. The JSON names are a contract.
type Script struct {
	Tenant   string    `json:"tenant"`
	Version  string    `json:"version"`  // hash of code, variables, limits and profile
	Policy   string    `json:"policy"`   // hash of the policy that was in force
	Incident string    `json:"incident"` // kind of what it was first kept for
	Time     time.Time `json:"time"`
	Env      []string  `json:"env"` // names of variables and bindings
	Main     string    `json:"main"`
	Modules  []Module  `json:"modules"`
}

// Module is one module of a script: Text, or Bytes where it is not text (Wasm, data).
type Module struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	Text  string `json:"text,omitempty"`
	Bytes []byte `json:"bytes,omitempty"`
}

// Bounds of what is kept. The oldest goes first.
const (
	scriptsMost  = 256
	scriptsBytes = 256 << 20 // of all files
	scriptBytes  = 64 << 20  // of one, as JSON
)

// ScriptsDir is the name of the directory beside the event log.
const ScriptsDir = "scripts"

// Scripts keeps scripts as files TENANT.VERSION.json in a directory. Safe for concurrent use.
type Scripts struct {
	dir   string
	most  int
	bytes int64
	mu    sync.Mutex // held while files are written and dropped
}

// OpenScripts keeps scripts in dir, which is made if it is not there.
func OpenScripts(dir string) (*Scripts, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &Scripts{dir: dir, most: scriptsMost, bytes: scriptsBytes}, nil
}

// scriptName is what files are called: tenants' ids have no dots.
var scriptName = regexp.MustCompile(`^([a-z0-9][a-z0-9-]{0,62})\.([0-9a-f]{8,64})\.json$`)

// File is the name of a script's file, as incidents show it.
func (s *Scripts) File(tenant, version string) string { return tenant + "." + version + ".json" }

// Has says whether a script is kept.
func (s *Scripts) Has(tenant, version string) bool {
	_, err := os.Stat(filepath.Join(s.dir, s.File(tenant, version)))
	return err == nil
}

// Keep writes a script, and drops the oldest beyond the bounds.
func (s *Scripts) Keep(sc *Script) error {
	name := s.File(sc.Tenant, sc.Version)
	if !scriptName.MatchString(name) {
		return fmt.Errorf("%q cannot be the name of a kept script", name)
	}
	text, err := json.MarshalIndent(sc, "", " ")
	if err != nil {
		return err
	}
	if len(text) > scriptBytes {
		return fmt.Errorf("the script of %s has %d bytes, %d are kept at most", sc.Tenant, len(text), scriptBytes)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	tmp := filepath.Join(s.dir, ".new")
	if err := os.WriteFile(tmp, append(text, '\n'), 0o600); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(s.dir, name)); err != nil {
		return err
	}
	return s.prune()
}

// prune drops what is beyond the bounds. Caller holds mu.
func (s *Scripts) prune() error {
	list, err := s.files()
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b fs.FileInfo) int {
		return cmp.Or(b.ModTime().Compare(a.ModTime()), cmp.Compare(a.Name(), b.Name()))
	})
	total := int64(0)
	for i, f := range list {
		if total += f.Size(); i >= s.most || total > s.bytes && i > 0 {
			err = errors.Join(err, os.Remove(filepath.Join(s.dir, f.Name())))
		}
	}
	return err
}

func (s *Scripts) files() (list []fs.FileInfo, err error) {
	all, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range all {
		if f, err := e.Info(); err == nil && f.Mode().IsRegular() && scriptName.MatchString(e.Name()) {
			list = append(list, f)
		}
	}
	return list, nil
}

// ErrNoScript: no script of that hash is kept.
var ErrNoScript = errors.New("no script of that hash is kept: it was dropped for newer ones, or no incident names it")

// Read returns the file of the script with this hash, or with the only one that begins so (8 digits at least).
func (s *Scripts) Read(hash string) ([]byte, error) {
	if len(hash) < 8 || strings.Trim(hash, "0123456789abcdef") != "" {
		return nil, fmt.Errorf("%q is no hash of a version: at least 8 hexadecimal digits", hash)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := s.files()
	if err != nil {
		return nil, err
	}
	found := ""
	for _, f := range list {
		if m := scriptName.FindStringSubmatch(f.Name()); strings.HasPrefix(m[2], hash) {
			if found != "" {
				return nil, fmt.Errorf("%s begins the hashes of several kept scripts: give more of it", hash)
			}
			found = f.Name()
		}
	}
	if found == "" {
		return nil, ErrNoScript
	}
	return os.ReadFile(filepath.Join(s.dir, found))
}
