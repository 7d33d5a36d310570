// Command bulkhead is what people type: it starts a host, asks a running one, checks policies.
//
// Under the name bulkhead-bundler, which only the launcher gives it, it is a sealed child that
// bundles one tenant's folder and ends.
//
// The debug settings: a bundler's seal allows no reading of cgroup files; for people it changes
// nothing.
//
//go:debug containermaxprocs=0
//go:debug decoratemappings=0
//go:debug updatemaxprocs=0
package main

import (
	"os"

	"bulkhead/cmd/bulkhead/cli"
	"bulkhead/policy/namespaces"
	"bulkhead/sandboxworker/lockdown"
)

// version is set by the linker.
var version = "unknown"

func main() {
	if lockdown.Role() == namespaces.Bundler || os.Args[0] == "bulkhead-bundler" {
		os.Exit(cli.Bundler())
	}
	os.Exit(cli.Main(version, os.Args[1:], os.Stdout, os.Stderr))
}
