//go:debug containermaxprocs=0
//go:debug decoratemappings=0
//go:debug updatemaxprocs=0

// Command seat is the attacker's seat of the security suites (installed as bulkhead-securityseat).
//
// As a worker of the real launcher it starts V8 and seals itself by the very code of bulkhead-worker
// (package sandboxworker/start) and then does what hostile native code would: whatever system call,
// memory access or flood the suite names, line by line, on its control channel.
//
// It is inert: in a process that bulkhead-launcher did not make as a worker it says so and ends, and no
// launcher starts it unless its argv names it as --worker. No build that serves tenants contains it
// (securitytests/arrows).
package main

import (
	"fmt"
	"os"

	"bulkhead/policy/namespaces"
	"bulkhead/sandboxworker/lockdown"
	"bulkhead/sandboxworker/start"
)

func main() {
	if len(os.Args) == 2 && os.Args[0] == probeName {
		probe(os.Args[1])
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bulkhead-securityseat:", err)
		os.Exit(1)
	}
}

func run() error {
	if lockdown.Role() != namespaces.Worker {
		return fmt.Errorf("this is the attacker's seat of `bulkhead securitytest`: it does nothing unless bulkhead-launcher starts it as --worker")
	}
	// No isolates in stock: V8 is up by the first one, from which every worker makes its code cache, and nothing
	// of the seal depends on how many there are. The suites start seats by the thousand.
	w, err := start.Sealed(-1)
	if err != nil {
		return err
	}
	return (&attacker{box: w.BlackBox}).run(start.FDControl)
}
