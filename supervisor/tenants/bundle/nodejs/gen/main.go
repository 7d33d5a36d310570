// Command gen makes dist/ of the npm packages in node_modules and of src/: a file for each module of
// Node.js, and chunks of what several share, so that a Buffer is the same Buffer to all of them.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/evanw/esbuild/pkg/api"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gen FOLDER, the one with package.json, src and node_modules")
		os.Exit(2)
	}
	if err := generate(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func generate(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	entries, err := filepath.Glob(filepath.Join(dir, "src", "*.js"))
	if err != nil {
		return err
	}
	dist := filepath.Join(dir, "dist")
	if err := os.RemoveAll(dist); err != nil { // what an older version had
		return err
	}
	src := func(name string) string { return filepath.Join(dir, "src", name) }
	res := api.Build(api.BuildOptions{
		EntryPoints: entries, AbsWorkingDir: dir, Outdir: dist, Bundle: true, Splitting: true, Write: true,
		Format: api.FormatESModule, Target: api.ESNext, Platform: api.PlatformNeutral, Charset: api.CharsetASCII,
		MainFields: []string{"browser", "module", "main"}, LegalComments: api.LegalCommentsNone, LogLevel: api.LogLevelWarning,
		Define:   map[string]string{"process.env.NODE_ENV": `"production"`, "global": "globalThis"},
		Inject:   []string{src("inject.js")},
		Plugins:  []api.Plugin{{Name: "ours", Setup: ours(src)}},
		External: []string{"node:internal/env", "node:async_hooks"}, // the runtime's own (sandboxworker/runtime/js/node)
	})
	if len(res.Errors) > 0 {
		return fmt.Errorf("%d errors; is node_modules what package-lock.json says? (npm ci --ignore-scripts)", len(res.Errors))
	}
	for _, f := range res.OutputFiles {
		if strings.HasSuffix(f.Path, "inject.js") {
			return os.Remove(f.Path)
		}
	}
	return nil
}

// ours has the packages take from each other what src/ makes of it: one Buffer for all, and a nextTick
// that does not wait for a timer.
func ours(src func(string) string) func(api.PluginBuild) {
	return func(build api.PluginBuild) {
		build.OnResolve(api.OnResolveOptions{Filter: `^(buffer|util|process/)$`}, func(a api.OnResolveArgs) (api.OnResolveResult, error) {
			return api.OnResolveResult{Path: src(strings.TrimSuffix(a.Path, "/") + ".js")}, nil
		})
	}
}
