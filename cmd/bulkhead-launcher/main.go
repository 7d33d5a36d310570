// Command bulkhead-launcher is the privileged half of the supervisor: see package
// supervisor/launcher. It is started by `bulkhead serve` or by the service manager.
//
// Exit status: 0 after an orderly stop, 1 failed, 2 bad usage.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"bulkhead/supervisor/launcher"
)

func main() {
	opt, err := launcher.ParseArgs(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bulkhead-launcher:", err)
		os.Exit(2)
	}
	if err := launcher.Run(opt); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
