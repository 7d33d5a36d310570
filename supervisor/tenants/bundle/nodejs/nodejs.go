// Package nodejs holds the modules of Node.js that a worker may import, as JavaScript that goes into the
// worker's bundle like its own.
//
// Duty: which names there are, and their text. It is made at build time, of the npm packages that
// package-lock.json pins and of src/, by gen/; `make setup` does that. dist/ is not in the repository.
//
// Trust: the text runs in the tenant's isolate, with the tenant's rights and at its cost. A worker that
// imports none of it has none of it. It reaches nothing that the worker could not reach by itself.
package nodejs

import (
	"embed"
	"io/fs"
	"path"
	"strings"
)

//go:embed dist
var dist embed.FS

// Module says what a name is served as: "node:buffer" for "node:buffer" and for "buffer".
func Module(spec string) (name string, ok bool) {
	name = strings.TrimPrefix(spec, "node:")
	if strings.ContainsAny(name, `.\-`) || !fs.ValidPath(name) {
		return "", false // nothing of Node.js, or a chunk
	}
	if _, err := fs.Stat(dist, "dist/"+file(name)); err != nil {
		return "", false
	}
	return "node:" + name, true
}

// file is where a module stands: "stream.web.js" holds node:stream/web.
func file(name string) string { return strings.ReplaceAll(name, "/", ".") + ".js" }

// Source is the text of a module ("node:buffer"), or of a part that several share, by the path by which
// one imports the other ("./chunk-ABC.js").
func Source(name string) (text string, err error) {
	at := path.Base(name)
	if m, ok := strings.CutPrefix(name, "node:"); ok {
		at = file(m)
	}
	b, err := dist.ReadFile("dist/" + at)
	return string(b), err
}
