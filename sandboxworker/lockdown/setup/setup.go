// Package setup is the Go side of the struct that tells a child how to lock itself down.
//
// The launcher fills it in and hands it over as a sealed memfd (fd 7); the C constructor of
// package lockdown maps it and obeys. The struct is fixed in size and layout (see setup.h,
// whose offsets a test of package lockdown compares with these), holds no pointers, and is
// never seen by tenant code: the mapping is gone when the filter is installed.
//
// It is a package of its own because the launcher must know the struct but must not link the
// constructor.
package setup

import (
	"encoding/binary"
	"fmt"
)

// Layout constants, the same as in setup.h.
const (
	Magic   = 0x70736b62 // "bksp"
	Version = 1
	Size    = 64 << 10

	MaxMounts  = 32
	MaxRlimits = 16
	MaxProgram = 2048 // BPF instructions of 8 bytes

	targetSize = 64
	sourceSize = 1024
	nameSize   = 64

	offHead    = 0
	offNames   = 64
	offRlimits = offNames + 2*nameSize
	rlimitSize = 24
	offMounts  = offRlimits + MaxRlimits*rlimitSize
	mountSize  = 32 + targetSize + sourceSize
	offProgram = offMounts + MaxMounts*mountSize
	used       = offProgram + MaxProgram*8
)

// Numbers of the descriptors that every child finds open.
const (
	FDControl  = 3 // worker; the gateway's order socket; the bundler's output
	FDData     = 4 // worker; the gateway's boot memfd
	FDBlackBox = 5 // worker
	FDReady    = 6 // to the launcher; closed when the seal is verified
	FDSetup    = 7 // this struct, closed once it is mapped
	FDListen   = 8 // the gateway's first listener

	// BlackBoxSize is the size of a worker's black box in bytes.
	BlackBoxSize = 64 << 10
)

// Flags.
const (
	FlagMDWE       = 1 << 0 // PR_SET_MDWE: no page becomes executable that was writable
	FlagLandlock   = 1 << 1
	FlagSpeculate  = 1 << 2 // force the speculation mitigations that the CPU offers
	FlagCgroupNS   = 1 << 3
	FlagPathMounts = 1 << 4 // at least one mount names a path (rootless)
	FlagInspect    = 1 << 5 // wait for the launcher's inspection before Go starts
)

// Setup is what one child is told.
type Setup struct {
	Role     uint8 // namespaces.Role
	Profile  uint8 // seccomp.Profile, 0 for a child that is no worker
	Flags    uint32
	Keep     uint32 // descriptors from this number on are closed first
	Landlock Landlock
	Hostname string // host and domain name
	Comm     string // process name, at most 15 bytes
	Rlimits  []Rlimit
	Mounts   []Mount
	Program  []byte // struct sock_filter[] (seccomp(2))
}

// Landlock masks, cut to what the kernel's ABI knows (landlock(7)).
type Landlock struct {
	HandledFS, HandledNet, Scoped uint64
	Read, Write                   uint64 // what a read-only and a writable mount allow
}

// Rlimit is soft and hard limit of one resource.
type Rlimit struct {
	Resource uint32
	Soft     uint64
	Hard     uint64
}

// Mount is one thing in the new root.
type Mount struct {
	// FD is a detached mount (open_tree(2)) to be moved into place, or -1: then Source is
	// cloned, after its device and inode were compared with Dev and Ino.
	FD       int32
	Dir      bool
	Writable bool
	Dev, Ino uint64
	Target   string // absolute in the new root
	Source   string // path on the host
}

// Encode returns the wire form, Size bytes long.
func (s *Setup) Encode() ([]byte, error) {
	switch {
	case len(s.Mounts) > MaxMounts:
		return nil, fmt.Errorf("setup: %d mounts, at most %d", len(s.Mounts), MaxMounts)
	case len(s.Rlimits) > MaxRlimits:
		return nil, fmt.Errorf("setup: %d rlimits, at most %d", len(s.Rlimits), MaxRlimits)
	case len(s.Program)%8 != 0 || len(s.Program) > MaxProgram*8 || len(s.Program) == 0:
		return nil, fmt.Errorf("setup: filter of %d bytes, want a multiple of 8 up to %d", len(s.Program), MaxProgram*8)
	}
	b := make([]byte, Size)
	le := binary.LittleEndian
	le.PutUint32(b[0:], Magic)
	le.PutUint32(b[4:], Version)
	b[8], b[9] = s.Role, s.Profile
	le.PutUint16(b[10:], uint16(len(s.Program)/8))
	le.PutUint32(b[12:], s.Flags)
	le.PutUint32(b[16:], s.Keep)
	b[20], b[21] = byte(len(s.Mounts)), byte(len(s.Rlimits))
	le.PutUint64(b[24:], s.Landlock.HandledFS)
	le.PutUint64(b[32:], s.Landlock.HandledNet)
	le.PutUint64(b[40:], s.Landlock.Scoped)
	le.PutUint64(b[48:], s.Landlock.Read)
	le.PutUint64(b[56:], s.Landlock.Write)
	if err := putString(b[offNames:], s.Hostname, nameSize, "hostname"); err != nil {
		return nil, err
	}
	if err := putString(b[offNames+nameSize:], s.Comm, 16, "process name"); err != nil {
		return nil, err
	}
	for i, r := range s.Rlimits {
		o := b[offRlimits+i*rlimitSize:]
		le.PutUint32(o, r.Resource)
		le.PutUint64(o[8:], r.Soft)
		le.PutUint64(o[16:], r.Hard)
	}
	for i, m := range s.Mounts {
		o := b[offMounts+i*mountSize:]
		le.PutUint32(o, uint32(m.FD))
		o[4], o[5] = flag(m.Dir), flag(m.Writable)
		le.PutUint64(o[8:], m.Dev)
		le.PutUint64(o[16:], m.Ino)
		if err := putString(o[32:], m.Target, targetSize, "mount target"); err != nil {
			return nil, err
		}
		if err := putString(o[32+targetSize:], m.Source, sourceSize, "mount source"); err != nil {
			return nil, err
		}
	}
	copy(b[offProgram:], s.Program)
	return b, nil
}

func flag(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// putString writes s with its terminating zero.
func putString(dst []byte, s string, size int, what string) error {
	if len(s) >= size {
		return fmt.Errorf("setup: %s %q is longer than %d bytes", what, s, size-1)
	}
	copy(dst, s)
	return nil
}

// Offsets returns where the parts begin and how large the repeated ones are, for the test that
// compares them with setup.h.
func Offsets() map[string]int {
	return map[string]int{
		"names": offNames, "rlimits": offRlimits, "mounts": offMounts, "program": offProgram,
		"rlimit": rlimitSize, "mount": mountSize, "used": used,
	}
}
