package suspicion

import "bytes"

// maxTraitBytes is how much of a tenant's code is looked at.
const maxTraitBytes = 1 << 20

// TraitsOf counts what a tenant's code names that timing attacks are made of: clocks, shared memory,
// WebAssembly. Honest code names it too, and nobody has to name anything to use it: it says so little
// that it weighs next to nothing.
func TraitsOf(code []byte) (n float64) {
	code = code[:min(len(code), maxTraitBytes)]
	for _, word := range []string{"SharedArrayBuffer", "Atomics", "WebAssembly", "performance.now"} {
		if bytes.Contains(code, []byte(word)) {
			n++
		}
	}
	return n
}
