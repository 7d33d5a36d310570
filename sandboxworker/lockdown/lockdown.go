// Package lockdown is the child's half of the seal: of a worker, of the gateway, of a bundler.
//
// Importing it (cgo) links a C constructor that runs before the Go runtime. In a process that
// bulkhead-launcher made, recognised by a constant argv[0], it maps the setup struct found on
// fd 7 and takes the steps of lockdown.c in their order, ending the process with status 70 and
// "lockdown: step NAME: ..." on fd 2 if one fails. In any other process it does nothing.
//
// Seal installs the seccomp filter when the process has everything it will ever open. Trust: the
// launcher believes none of this; it looks from outside (package supervisor/launcher). Nothing
// here may depend on tenant code, which comes only after the launcher looked.
package lockdown

/*
#cgo CFLAGS: -std=gnu11 -Wall -Wextra -Werror -O2
#cgo bulkhead_sabotage CFLAGS: -DBULKHEAD_SABOTAGE
#include <stdlib.h>
#include "setup.h"

enum {
	offset_names = offsetof(struct setup, hostname),
	offset_rlimits = offsetof(struct setup, rlimit),
	offset_mounts = offsetof(struct setup, mount),
	offset_program = offsetof(struct setup, program),
};
*/
import "C"

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"bulkhead/policy/namespaces"
	"bulkhead/policy/seccomp"
)

// ErrNotAChild is returned by Seal in a process that the launcher did not make.
var ErrNotAChild = errors.New("not started by bulkhead-launcher, or sealed already")

// Role returns what the launcher made this process, 0 if it did not.
func Role() namespaces.Role { return namespaces.Role(C.lockdown_role()) }

// Profile returns the worker's profile; 0 for other roles.
func Profile() seccomp.Profile { return seccomp.Profile(C.lockdown_profile()) }

// LeftOut reports whether this is a test build (tag bulkhead_sabotage) that the file beside its binary
// tells to leave out a layer that is not the constructor's: "scrub", "clock". Otherwise it is false.
func LeftOut(layer string) bool {
	name := C.CString(layer)
	defer C.free(unsafe.Pointer(name))
	return C.lockdown_left_out(name) != 0
}

// Seal puts all threads of the process under the filter the launcher handed over
// (SECCOMP_FILTER_FLAG_TSYNC, seccomp(2)) and returns when the launcher has verified the seal
// from outside; if it finds anything amiss, Seal never returns. Call it once, when V8 is up and
// before any descriptor is opened, used or closed: the fd table must be as the launcher left it.
// What the filter does not allow ends the process from then on. Other goroutines should rest:
// the verification wants to see the same threads twice.
func Seal() error {
	var thread C.int
	switch errno := syscall.Errno(C.lockdown_seal(&thread)); {
	case errno == 0:
		return nil
	case errno == syscall.EPERM && Role() == 0:
		return fmt.Errorf("seal: %w", ErrNotAChild)
	case thread != 0:
		return fmt.Errorf("seal: thread %d runs under another filter", int(thread))
	default:
		return fmt.Errorf("seal: seccomp: %w", errno)
	}
}

// layout is setup.h as the compiler sees it, for the test.
func layout() map[string]int {
	return map[string]int{
		"names":   C.offset_names,
		"rlimits": C.offset_rlimits,
		"mounts":  C.offset_mounts,
		"program": C.offset_program,
		"rlimit":  C.sizeof_struct_setup_rlimit,
		"mount":   C.sizeof_struct_setup_mount,
		"used":    C.sizeof_struct_setup,
	}
}

// stepNames are the constructor's, for the test.
func stepNames() (names []string) {
	for i := C.size_t(0); C.lockdown_step_name(i) != nil; i++ {
		names = append(names, C.GoString(C.lockdown_step_name(i)))
	}
	return names
}
