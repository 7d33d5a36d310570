//go:build asan

package engine

// underASan: AddressSanitizer keeps freed memory in quarantine, so the process only grows.
const underASan = true
