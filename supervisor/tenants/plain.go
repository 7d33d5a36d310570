package tenants

import (
	"bytes"
	"path"
	"unicode/utf8"

	"bulkhead/schema/gen"
	"bulkhead/supervisor/tenants/manifest"
)

// maxPlain is how large a file may be that is served as it is, bytes.
const maxPlain = 1 << 20

// plain takes an entry that is a whole bundle by itself: one file of JavaScript that names no
// other. A sealed bundler costs some 27 ms of processor time, nearly all of it for the process and
// its seal, and gives such a file back with other white space. Where there are so many tenants that
// they are built at their first request, that time is most of what the first request takes.
//
// Nothing is parsed here. The file is looked at for byte sequences without which it can have no
// part that a bundler would have to turn into something else (imports, CommonJS, JSX, decorators,
// process.env); one that holds any of them, if only in a comment, goes to the bundler. What is not
// JavaScript at all fails in the shard, which is made for that.
func plain(read func(name string) ([]byte, error), m *manifest.Manifest) (BundleOutput, bool) {
	name := "/" + m.Main
	if ext := path.Ext(m.Main); ext != ".js" && ext != ".mjs" || !validModuleName(name) {
		return BundleOutput{}, false
	}
	src, err := read(m.Main)
	if err != nil || !isPlain(src) {
		return BundleOutput{}, false // the bundler says what is wrong
	}
	return BundleOutput{Main: name, Modules: []Module{{Name: name, Kind: gen.Module_Kind_esm, Code: src}}}, true
}

func isPlain(src []byte) bool {
	// Without an export it may be a script or CommonJS, whose `this` and `return` mean other things.
	if !bytes.Contains(src, []byte("export default")) && !bytes.Contains(src, []byte("export {")) || !utf8.Valid(src) {
		return false
	}
	for _, part := range []string{"</", "/>", "@", "sourceMappingURL"} { // JSX, decorators
		if bytes.Contains(src, []byte(part)) {
			return false
		}
	}
	for i := 0; i < len(src); i++ {
		if !identifier(src[i]) {
			continue
		}
		begin := i
		for i < len(src) && identifier(src[i]) {
			i++
		}
		switch string(src[begin:i]) {
		case "import", "require", "module", "exports": // another file, or CommonJS
			return false
		case "process", "accessor": // what the bundler replaces
			return false
		case "from":
			if next := bytes.TrimLeft(src[i:], " \t\r\n"); len(next) > 0 && (next[0] == '"' || next[0] == '\'' || next[0] == '/' || next[0] >= utf8.RuneSelf) {
				return false // export * from "another file"
			}
		}
	}
	return true
}

// identifier says whether a byte can be part of a keyword. What is beyond ASCII cannot: some of it
// is white space to JavaScript.
func identifier(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '$'
}
