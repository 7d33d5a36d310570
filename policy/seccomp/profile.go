package seccomp

import "fmt"

// Profile says what native code a worker may create after its seal.
type Profile uint8

// The profiles of a worker. Zero is no profile and is refused everywhere.
const (
	// Jitless interprets: no page of the process is ever writable and executable, no Wasm.
	Jitless Profile = 1
	// JIT compiles JavaScript into the code range that V8 mapped before the seal; no new
	// executable mapping can be made after it, so no Wasm.
	JIT Profile = 2
	// JITWasm may also make pages executable after the seal, which V8 needs for Wasm modules.
	JITWasm Profile = 3
)

// Profiles lists every profile in order of rising trust.
func Profiles() []Profile { return []Profile{Jitless, JIT, JITWasm} }

// String returns the name used in policy, flags and listings.
func (p Profile) String() string {
	switch p {
	case Jitless:
		return "jitless"
	case JIT:
		return "jit"
	case JITWasm:
		return "jit+wasm"
	}
	return fmt.Sprintf("profile(%d)", uint8(p))
}

// Valid reports whether p is one of the profiles above.
func (p Profile) Valid() bool { return p >= Jitless && p <= JITWasm }

// ParseProfile is the inverse of String.
func ParseProfile(name string) (Profile, error) {
	for _, p := range Profiles() {
		if p.String() == name {
			return p, nil
		}
	}
	return 0, fmt.Errorf("unknown profile %q: one of jitless, jit, jit+wasm", name)
}
