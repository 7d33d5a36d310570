package main

/*
#cgo CFLAGS: -std=gnu11 -Wall -Wextra -Werror -O2
#cgo LDFLAGS: -lpthread
#include "native.h"
*/
import "C"

import (
	"encoding/hex"
	"fmt"
	"unsafe"
)

// probeName is argv[0] under which the seat, once executed by itself, tells what it got by that.
const probeName = "bulkhead-probe"

// pointer makes an address of what is a number to the suite. An attacker has no types.
func pointer(n uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&n)) }

// int80 enters the kernel as a program of i386 would. The result is the call's, negative errno.
func int80(v []uintptr) int {
	return int(C.seat_int80(C.long(v[0]), C.long(v[1]), C.long(v[2]), C.long(v[3]), C.long(v[4]), C.long(v[5]), C.long(v[6])))
}

// threads makes up to n threads that sleep for ever and tells how many it got.
func threads(n int) int { return int(C.seat_threads(C.int(n))) }

// codeAddress is where some code of this program lies.
func codeAddress() uintptr { return uintptr(C.seat_code()) }

// readChild forks and reads the child's memory; "read", or why not.
func readChild() string {
	switch n := C.seat_read_child(); {
	case n == 0:
		return "read"
	case n < 0:
		return "fork failed"
	default:
		return fmt.Sprintf("errno %d", int(n))
	}
}

// runProgram executes args[0] (hexadecimal) under the probe's name with one argument and returns
// what it printed, hexadecimal, or an errno.
func runProgram(args []string) string {
	path, err := hex.DecodeString(args[0])
	if err != nil || len(args) != 2 {
		return "bad program"
	}
	p, name, arg := C.CString(string(path)), C.CString(probeName), C.CString(args[1])
	defer C.free(unsafe.Pointer(p))
	defer C.free(unsafe.Pointer(name))
	defer C.free(unsafe.Pointer(arg))
	var out [256]C.char
	n := C.seat_run(p, name, arg, &out[0], C.int(len(out)))
	if n < 0 {
		return fmt.Sprintf("errno %d", -int(n))
	}
	return "printed " + hex.EncodeToString(C.GoBytes(unsafe.Pointer(&out[0]), n))
}

// probe is what the executed seat does: it tells its effective capabilities.
func probe(string) {
	fmt.Printf("%016x", uint64(C.seat_capabilities()))
}
