// Package ipc is what both ends of a shard's two channels share: framing, limits, the
// closed set of errors, and the decoders that read a peer's bytes.
//
// Duty: turn a byte stream into frames of schema/frame.capnp and back, in batches, without
// an allocation per frame where go-capnp allows it; move Cap'n Proto RPC messages over a
// plain file descriptor within a size limit; lay out the black box.
//
// Trust: none in the bytes. Every length is checked against policy/limits.Wire before
// anything is read behind it, every message has exactly one segment (so that no pointer can
// leave it), a traversal limit of a few times its own size and a depth limit. What a decoder
// hands out points into the scanner's buffer and is valid until the next call of Next or
// Free; whoever keeps it copies it.
//
// Invariants: a frame is either taken whole or refused with a *ViolationError; after a
// ViolationError the stream has no known position and must be closed. State (which frame may
// follow which, windows, ids) is not judged here but in ipc/gatewayside, which alone knows
// what a shard was given.
package ipc
