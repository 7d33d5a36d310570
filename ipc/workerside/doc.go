// Package workerside is the worker's end of its two channels to the gateway.
//
// Duty: read frames from the data socket in batches, gather frames to write and write them in
// batches, and serve Cap'n Proto RPC on the control socket.
//
// Trust: the gateway is trusted to follow the protocol and to read what it asked for, so
// plain blocking calls do; its bytes are decoded within the same limits all the same.
//
// Invariants: after the seal the only system calls made here are read(2) and write(2), on
// blocking descriptors; frames leave in the order in which they were added, whichever thread
// flushes them.
package workerside
