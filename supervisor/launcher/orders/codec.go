// Package orders is the narrow door between the gateway and the launcher.
//
// The gateway asks with orders of 128 bytes, the launcher tells with reports of 256 bytes, both
// over one SOCK_SEQPACKET socketpair, so a message is whole or absent and nothing of variable
// length is ever parsed by the privileged side. File descriptors travel from the launcher to
// the gateway only (SCM_RIGHTS); the launcher receives with a buffer that has no room for
// control data, so whatever a hostile gateway attaches is dropped by the kernel.
//
// Trust: the launcher believes nothing in an order that it cannot check against its own argv
// (see the order table in package launcher). The gateway trusts the launcher.
//
// All integers are little-endian. The layouts stand beside the encoders below.
package orders

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"bulkhead/policy/seccomp"
)

// Sizes of the two messages in bytes.
const (
	OrderSize  = 128
	ReportSize = 256
)

const (
	orderMagic  = 0x31726f62 // "bor1"
	reportMagic = 0x31706562 // "bep1"

	// TenantMax is the longest tenant id, DESIGN: [a-z0-9][a-z0-9-]{0,62}.
	TenantMax = 63

	stepMax   = 80
	detailMax = 136
)

// Kind of an order.
type Kind uint8

// The orders a gateway can give. There are no others.
const (
	KindReady        Kind = 1 // the gateway serves; once
	KindHeartbeat    Kind = 2 // the gateway's main loop turns
	KindSpawnShard   Kind = 3 // Profile, Memory
	KindSpawnBundler Kind = 4 // Root, Tenant
	KindKill         Kind = 5 // Child
	KindLook         Kind = 6 // Child, Seq: what is it doing?
	KindConfig       Kind = 7 // Seq: the policy document as it is now
)

// String names the order for logs.
func (k Kind) String() string {
	switch k {
	case KindReady:
		return "ready"
	case KindHeartbeat:
		return "heartbeat"
	case KindSpawnShard:
		return "spawn-shard"
	case KindSpawnBundler:
		return "spawn-bundler"
	case KindKill:
		return "kill"
	case KindLook:
		return "look"
	case KindConfig:
		return "config"
	}
	return fmt.Sprintf("order(%d)", uint8(k))
}

// Order is one request of the gateway. Fields that a kind does not use are zero on the wire.
type Order struct {
	Kind    Kind
	Profile seccomp.Profile // spawn-shard
	Seq     uint64          // echoed in the answer; chosen by the gateway, zero only for a ready, a heartbeat and a kill
	Memory  uint64          // spawn-shard: bytes
	Root    uint32          // spawn-bundler: index of a --tenants directory
	Child   uint32          // kill, look: Report.Child of the spawn
	Tenant  string          // spawn-bundler: tenant id
}

// Order layout: 0 magic u32 | 4 kind u8 | 5 profile u8 | 6 tenant length u8 | 7 zero |
// 8 seq u64 | 16 memory u64 | 24 root u32 | 28 child u32 | 32 tenant [64] | 96 zero [32].

// Encode returns the wire form. It fails only for a tenant id that does not fit.
func (o Order) Encode() ([OrderSize]byte, error) {
	var b [OrderSize]byte
	if len(o.Tenant) > TenantMax {
		return b, fmt.Errorf("order %v: tenant id of %d bytes, at most %d", o.Kind, len(o.Tenant), TenantMax)
	}
	binary.LittleEndian.PutUint32(b[0:], orderMagic)
	b[4], b[5], b[6] = byte(o.Kind), byte(o.Profile), byte(len(o.Tenant))
	binary.LittleEndian.PutUint64(b[8:], o.Seq)
	binary.LittleEndian.PutUint64(b[16:], o.Memory)
	binary.LittleEndian.PutUint32(b[24:], o.Root)
	binary.LittleEndian.PutUint32(b[28:], o.Child)
	copy(b[32:96], o.Tenant)
	return b, nil
}

// ErrMalformed is wrapped by every decoding error: the peer is broken or hostile.
var ErrMalformed = errors.New("malformed message")

// DecodeOrder reads one order. Each order has exactly one encoding: padding and unused fields
// must be zero, so there is no second spelling to slip past a check.
func DecodeOrder(b []byte) (Order, error) {
	if len(b) != OrderSize {
		return Order{}, fmt.Errorf("%w: order of %d bytes, want %d", ErrMalformed, len(b), OrderSize)
	}
	if m := binary.LittleEndian.Uint32(b); m != orderMagic {
		return Order{}, fmt.Errorf("%w: order magic %#x", ErrMalformed, m)
	}
	n := int(b[6])
	if n > TenantMax {
		return Order{}, fmt.Errorf("%w: tenant length %d", ErrMalformed, n)
	}
	o := Order{
		Kind:    Kind(b[4]),
		Profile: seccomp.Profile(b[5]),
		Seq:     binary.LittleEndian.Uint64(b[8:]),
		Memory:  binary.LittleEndian.Uint64(b[16:]),
		Root:    binary.LittleEndian.Uint32(b[24:]),
		Child:   binary.LittleEndian.Uint32(b[28:]),
		Tenant:  string(b[32 : 32+n]),
	}
	if again, err := o.Encode(); err != nil || !bytes.Equal(again[:], b) {
		return Order{}, fmt.Errorf("%w: order %v has bytes outside its fields", ErrMalformed, o.Kind)
	}
	return o, nil
}

// ReportKind of a report.
type ReportKind uint8

// The reports a launcher sends.
const (
	ReportSpawned   ReportKind = 1 // Seq, Child, PID; fds as FDs says
	ReportRefused   ReportKind = 2 // Seq, Step, Errno, Detail
	ReportExited    ReportKind = 3 // Child, Code, Signal, Syscall, Stopped, Step (reason), Detail
	ReportAdminConn ReportKind = 4 // UID; one fd
	ReportDrain     ReportKind = 5 // stop accepting, finish, exit
	ReportUsage     ReportKind = 6 // Child; Seq is its resident memory in bytes. After a heartbeat, some at a time
	ReportLook      ReportKind = 7 // Child, Seq of the order; CPUMillis, DelayMillis, Runnable
	ReportConfig    ReportKind = 8 // Seq of the order; one fd, read-only
)

// Flags of a report.
const flagStopped = 1

// Report is one message of the launcher.
type Report struct {
	Kind    ReportKind
	Profile seccomp.Profile // spawned shard
	Seq     uint64
	Child   uint32
	PID     int32 // as the launcher's pid namespace sees it
	UID     uint32
	FDs     uint8          // how many descriptors ride along
	Code    int32          // exited: exit code, -1 if killed by a signal
	Signal  syscall.Signal // exited: the true signal, 0 if it exited
	Syscall int32          // exited by SIGSYS: the syscall number, -1 with Step as the reason
	Errno   syscall.Errno  // refused
	Stopped bool           // exited: found stopped and killed for it
	Step    string         // refused: the step that failed; exited: why Syscall is -1
	Detail  string         // text for people, cut to what fits

	// Of a look, summed over the child's threads, or zero if it is gone.
	CPUMillis   uint32 // processor time had
	DelayMillis uint32 // time spent waiting for a processor
	Runnable    uint32 // threads that run or wait for a processor
}

// Report layout: 0 magic u32 | 4 kind u8 | 5 profile u8 | 6 fds u8 | 7 flags u8 | 8 seq u64 |
// 16 child u32 | 20 pid i32 | 24 uid u32 | 28 code i32 | 32 signal u16 | 34 step length u8 |
// 35 detail length u8 | 36 syscall i32 | 40 step [80] | 120 detail [136]. Errno shares the place
// of code: a refusal has no exit code. A look has its three numbers in the places of uid, code and
// syscall.

// Encode returns the wire form; over-long texts are cut.
func (r Report) Encode() [ReportSize]byte {
	var b [ReportSize]byte
	binary.LittleEndian.PutUint32(b[0:], reportMagic)
	b[4], b[5], b[6] = byte(r.Kind), byte(r.Profile), r.FDs
	if r.Stopped {
		b[7] = flagStopped
	}
	code := r.Code
	if r.Kind == ReportRefused {
		code = int32(r.Errno)
	}
	uid, call := r.UID, uint32(r.Syscall)
	if r.Kind == ReportLook {
		uid, code, call = r.CPUMillis, int32(r.DelayMillis), r.Runnable
	}
	binary.LittleEndian.PutUint64(b[8:], r.Seq)
	binary.LittleEndian.PutUint32(b[16:], r.Child)
	binary.LittleEndian.PutUint32(b[20:], uint32(r.PID))
	binary.LittleEndian.PutUint32(b[24:], uid)
	binary.LittleEndian.PutUint32(b[28:], uint32(code))
	binary.LittleEndian.PutUint16(b[32:], uint16(r.Signal))
	b[34] = byte(copy(b[40:40+stepMax], r.Step))
	b[35] = byte(copy(b[120:120+detailMax], r.Detail))
	binary.LittleEndian.PutUint32(b[36:], call)
	return b
}

// DecodeReport reads one report.
func DecodeReport(b []byte) (Report, error) {
	if len(b) != ReportSize {
		return Report{}, fmt.Errorf("%w: report of %d bytes, want %d", ErrMalformed, len(b), ReportSize)
	}
	if m := binary.LittleEndian.Uint32(b); m != reportMagic {
		return Report{}, fmt.Errorf("%w: report magic %#x", ErrMalformed, m)
	}
	step, detail := int(b[34]), int(b[35])
	if step > stepMax || detail > detailMax {
		return Report{}, fmt.Errorf("%w: report text of %d and %d bytes", ErrMalformed, step, detail)
	}
	r := Report{
		Kind:    ReportKind(b[4]),
		Profile: seccomp.Profile(b[5]),
		FDs:     b[6],
		Stopped: b[7]&flagStopped != 0,
		Seq:     binary.LittleEndian.Uint64(b[8:]),
		Child:   binary.LittleEndian.Uint32(b[16:]),
		PID:     int32(binary.LittleEndian.Uint32(b[20:])),
		UID:     binary.LittleEndian.Uint32(b[24:]),
		Code:    int32(binary.LittleEndian.Uint32(b[28:])),
		Signal:  syscall.Signal(binary.LittleEndian.Uint16(b[32:])),
		Syscall: int32(binary.LittleEndian.Uint32(b[36:])),
		Step:    string(b[40 : 40+step]),
		Detail:  string(b[120 : 120+detail]),
	}
	switch r.Kind {
	case ReportRefused:
		r.Code, r.Errno = 0, syscall.Errno(uint32(r.Code))
	case ReportLook:
		r.CPUMillis, r.DelayMillis, r.Runnable = r.UID, uint32(r.Code), uint32(r.Syscall)
		r.UID, r.Code, r.Syscall = 0, 0, 0
	}
	return r, nil
}
