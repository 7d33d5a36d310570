package ipc

import (
	"bytes"
	"iter"

	"bulkhead/policy/limits"
)

// tokenLower marks the bytes of an RFC 9110 §5.6.2 token, upper-case letters excepted: flat
// headers carry names in lower case only, so that equal names are equal bytes.
var tokenLower = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") {
		t[c] = true
	}
	return t
}()

// CheckHeaders checks flattened headers ("name\nvalue\n" repeated): whole pairs, names that
// are lower-case tokens, values without NUL or CR (LF cannot occur: it separates), within
// w.HeaderBytes and w.HeaderCount. It does not allocate unless it refuses.
func CheckHeaders(flat []byte, w *limits.Wire) error {
	if len(flat) > w.HeaderBytes {
		return Violation(KindSize, 0, "headers of %d bytes, limit %d", len(flat), w.HeaderBytes)
	}
	for n := 0; len(flat) > 0; n++ {
		if n == w.HeaderCount {
			return Violation(KindSize, 0, "more than %d header fields", w.HeaderCount)
		}
		i := bytes.IndexByte(flat, '\n')
		if i <= 0 {
			return Violation(KindHeaders, 0, "field %d has no name", n)
		}
		for _, c := range flat[:i] {
			if !tokenLower[c] {
				return Violation(KindHeaders, 0, "the name of field %d is not a lower-case token", n)
			}
		}
		flat = flat[i+1:]
		i = bytes.IndexByte(flat, '\n')
		if i < 0 {
			return Violation(KindHeaders, 0, "field %d has no end", n)
		}
		value := flat[:i]
		if bytes.IndexByte(value, 0) >= 0 || bytes.IndexByte(value, '\r') >= 0 {
			return Violation(KindHeaders, 0, "the value of field %d holds NUL or CR", n)
		}
		flat = flat[i+1:]
	}
	return nil
}

// Headers yields the pairs of flattened headers that CheckHeaders has accepted. The slices
// point into flat. A malformed tail ends the sequence.
func Headers(flat []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for len(flat) > 0 {
			name, rest, ok := bytes.Cut(flat, newline)
			if !ok {
				return
			}
			value, rest, ok := bytes.Cut(rest, newline)
			if !ok || !yield(name, value) {
				return
			}
			flat = rest
		}
	}
}

var newline = []byte{'\n'}

// AppendHeader appends one pair to flattened headers. The caller answers for name and value:
// CheckHeaders on the result tells.
func AppendHeader(flat []byte, name, value string) []byte {
	flat = append(flat, name...)
	flat = append(flat, '\n')
	flat = append(flat, value...)
	return append(flat, '\n')
}
