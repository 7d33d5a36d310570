// Command bulkhead is what people type: it starts a host, asks a running one, checks policies.
//
// Under the name bulkhead-bundler, which only the launcher gives it, it is a sealed child that
// bundles one tenant's folder and ends. As the gateway of the launcher that `bulkhead securitytest`
// starts, it is that suite's conductor.
//
// The debug settings: a bundler's seal allows no reading of cgroup files; for people it changes
// nothing.
//
//go:debug containermaxprocs=0
//go:debug decoratemappings=0
//go:debug updatemaxprocs=0
package main

import (
	"fmt"
	"os"

	"bulkhead/cmd/bulkhead/cli"
	"bulkhead/policy/namespaces"
	"bulkhead/sandboxworker/lockdown"
	"bulkhead/securitytests/conductor"
)

// version is set by the linker.
var version = "unknown"

func main() {
	if lockdown.Role() == namespaces.Bundler || os.Args[0] == "bulkhead-bundler" {
		os.Exit(cli.Bundler())
	}
	if lockdown.Role() == namespaces.Gateway {
		fmt.Fprintln(os.Stderr, "bulkhead:", conductor.Run())
		os.Exit(cli.ExitFailed)
	}
	os.Exit(cli.Main(version, os.Args[1:], os.Stdout, os.Stderr))
}
