package cli

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"bulkhead/policy/namespaces"
	"bulkhead/sandboxworker/lockdown"
	"bulkhead/supervisor/tenants/bundle"
)

// The bundler's room, see package policy/namespaces.
const (
	bundlerSource = "/src"
	bundlerOutput = 3 // fd
)

// Bundler is the whole life of a sealed bundler. The constructor of package lockdown has run
// already. It returns the exit code: 0 also for a folder that cannot be bundled, since that is
// an answer.
func Bundler() int {
	if lockdown.Role() != namespaces.Bundler {
		fmt.Fprintln(os.Stderr, "bulkhead-bundler: started by bulkhead-launcher only")
		return ExitUsage
	}
	// Two threads: a bundle should not take the machine away from those being served.
	runtime.GOMAXPROCS(2)
	// Below the launcher's limit, so that a large folder makes the collector work before it makes
	// the kernel kill.
	debug.SetMemoryLimit(namespaces.BundlerMemory * 3 / 4)
	out := os.NewFile(bundlerOutput, "output")
	if err := lockdown.Seal(); err != nil {
		fmt.Fprintln(os.Stderr, "bulkhead-bundler:", err)
		return ExitFailed
	}
	if err := bundleTo(out, bundlerSource); err != nil {
		fmt.Fprintln(os.Stderr, "bulkhead-bundler:", err)
		return ExitFailed
	}
	return ExitDone
}

func bundleTo(w io.Writer, dir string) error {
	return bundle.Write(w, bundle.Run(dir, bundle.DefaultLimits()))
}
