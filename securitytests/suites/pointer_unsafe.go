package suites

import "unsafe"

// pointerTo is for a system call that writes through it before it returns.
func pointerTo[T any](p *T) unsafe.Pointer { return unsafe.Pointer(p) }
