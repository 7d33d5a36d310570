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
	"runtime"
	"syscall"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/workerside"
	"bulkhead/policy/limits"
	"bulkhead/policy/namespaces"
	"bulkhead/sandboxworker/engine"
	"bulkhead/sandboxworker/lockdown"
	jsruntime "bulkhead/sandboxworker/runtime"
	"bulkhead/sandboxworker/scheduler"
)

// Descriptors a worker inherits.
const (
	fdControl  = 3
	fdData     = 4
	fdBlackBox = 5
)

// heapMax bounds one isolate's JavaScript heap while a turn runs; tenants' own limits are
// checked between turns and cannot be larger.
const heapMax = 128 << 20

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bulkhead-worker:", err)
		os.Exit(1)
	}
}

func run() error {
	if lockdown.Role() != namespaces.Worker {
		return fmt.Errorf("not started by bulkhead-launcher: run `bulkhead serve`")
	}
	// Fixed: Go would otherwise look at cgroup files now and then, which the seal forbids. Two
	// more than cores, so that a thread that comes back from JavaScript finds a processor; bounded,
	// because each may need a thread and those are counted (limits.DefaultShard).
	runtime.GOMAXPROCS(min(runtime.NumCPU(), ipc.BlackBoxSlots) + 2)
	eng, err := engine.Init(engine.Config{Profile: lockdown.Profile(), Source: jsruntime.Source(), HeapMaxBytes: heapMax})
	if err != nil {
		return err
	}
	if err := engine.HandleFaults(); err != nil {
		return err
	}
	for _, fd := range []int{fdControl, fdData} {
		if err := syscall.SetNonblock(fd, false); err != nil {
			return fmt.Errorf("make descriptor %d blocking: %w", fd, err)
		}
	}
	box, err := syscall.Mmap(fdBlackBox, 0, ipc.BlackBoxBytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the black box: %w", err)
	}
	wire := limits.DefaultWire()
	s, err := scheduler.New(eng, workerside.NewData(fdData, &wire), scheduler.Options{Wire: wire, BlackBox: box})
	if err != nil {
		return err
	}
	// Go makes its epoll and event descriptors for the first timer: after the seal it could not.
	time.Sleep(time.Millisecond)

	if err := lockdown.Seal(); err != nil {
		return err
	}
	workerside.ServeControl(fdControl, s.Shard())
	return s.Run()
}
