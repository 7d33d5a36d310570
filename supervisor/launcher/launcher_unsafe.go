package launcher

import "unsafe"

// pointer is for system calls whose argument x/sys types too narrowly.
func pointer[T any](p *T) unsafe.Pointer { return unsafe.Pointer(p) }
