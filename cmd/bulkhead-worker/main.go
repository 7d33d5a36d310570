//go:debug containermaxprocs=0
//go:debug decoratemappings=0
//go:debug updatemaxprocs=0

// Command bulkhead-worker is a shard: it hosts isolates of tenants inside the room and behind the
// seal that bulkhead-launcher made. It is not started by hand, takes no arguments and reads no
// files; everything it knows comes through the descriptors it inherits.
package main

import (
	"fmt"
	"os"

	"bulkhead/ipc/workerside"
	"bulkhead/sandboxworker/start"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bulkhead-worker:", err)
		os.Exit(1)
	}
}

func run() error {
	w, err := start.Sealed(0)
	if err != nil {
		return err
	}
	workerside.ServeControl(start.FDControl, w.Scheduler.Shard())
	return w.Scheduler.Run()
}
