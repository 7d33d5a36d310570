package runtime

import (
	"crypto"
	"crypto/hmac"
	_ "crypto/sha1" // WebCrypto has SHA-1, for old protocols
	_ "crypto/sha256"
	_ "crypto/sha512"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"time"
)

// Operation codes: what host.op asks for. The script's copies are in js/invoke/ops.js.
const (
	OpDigest     uint32 = 1 // meta: hash; data: message. Answer: digest
	OpHMACSign   uint32 = 2 // meta: hash ":" key length; data: key, message. Answer: MAC
	OpHMACVerify uint32 = 3 // meta: hash ":" key length ":" MAC length; data: key, MAC, message. Answer: meta "1" or "0"
	OpCrypto     uint32 = 4 // meta: words of cryptoOps and the lengths of the fields in data; see crypto.go
	OpDeflate    uint32 = 5 // compress a piece; see deflate
	OpInflate    uint32 = 6 // a step of a decompression; see Host.inflate
	OpHTML       uint32 = 7 // tell the tokens of a piece of HTML apart; see tokenizeHTML
	// OpFetch is not for Do: it starts a subrequest, see ParseFetch. Its id has the highest bit set
	// and names the subrequest, in the place of an invocation, wherever its bodies are spoken of.
	OpFetch uint32 = 16
)

// hashOf knows the digests of WebCrypto (https://w3c.github.io/webcrypto/#sha) by their names there.
func hashOf(name string) (crypto.Hash, bool) {
	switch name {
	case "SHA-1":
		return crypto.SHA1, true
	case "SHA-256":
		return crypto.SHA256, true
	case "SHA-384":
		return crypto.SHA384, true
	case "SHA-512":
		return crypto.SHA512, true
	}
	return 0, false
}

// Host is what the operations of one isolate have beyond their arguments. The zero value sets no limit
// and measures nothing. One goroutine uses it at a time.
type Host struct {
	Alive func() bool          // may a long operation go on?
	CPU   func() time.Duration // CPU clock of the calling thread, whichever that is
	Inv   uint32               // on whose behalf
	// Elsewhere is the CPU that operations used on other threads than the caller's; they add to it.
	Elsewhere time.Duration

	inflaters map[uint32]*inflater
	keys      keyCache
}

// Forget drops what operations keep for an invocation that has ended.
func (h *Host) Forget(inv uint32) {
	for id, f := range h.inflaters {
		if f.inv == inv {
			f.stop()
			delete(h.inflaters, id)
		}
	}
}

// Close drops everything that is kept: the isolate is gone.
func (h *Host) Close() {
	for _, f := range h.inflaters {
		f.stop()
	}
	h.inflaters = nil
	h.keys.drop()
}

// Rest drops what can be made again: the isolate is idle.
func (h *Host) Rest() { h.keys.drop() }

// Do performs one operation of a tenant. Its cost is linear in len(data), but for public-key operations, of
// milliseconds, for decompression, which is bounded by maxInflated, and for what takes as long as the tenant
// likes: that asks Alive every millisecond or so and ends without a result when it may not go on. With ok
// false, resMeta is a message for the tenant. It never panics, whatever meta and data are, and keeps no
// reference to data.
func (h *Host) Do(code uint32, meta string, data []byte) (ok bool, resMeta string, res []byte) {
	switch code {
	case OpCrypto:
		return doCrypto(meta, data, h.Alive, &h.keys)
	case OpDeflate, OpInflate, OpHTML:
		f := deflate
		switch code {
		case OpInflate:
			f = h.inflate
		case OpHTML:
			f = tokenizeHTML
		}
		resMeta, res, err := f(meta, data)
		if err != nil {
			return false, err.Error(), nil
		}
		return true, resMeta, res
	case OpDigest:
		h, known := hashOf(meta)
		if !known {
			return false, fmt.Sprintf("unknown hash %q", meta), nil
		}
		return true, "", sum(h.New(), data)
	case OpHMACSign, OpHMACVerify:
		name, lengths, _ := strings.Cut(meta, ":")
		h, known := hashOf(name)
		if !known {
			return false, fmt.Sprintf("unknown hash %q", name), nil
		}
		parts := 1
		if code == OpHMACVerify {
			parts = 2
		}
		fields, message, err := split(lengths, parts, data)
		if err != nil {
			return false, err.Error(), nil
		}
		mac := sum(hmac.New(h.New, fields[0]), message)
		if code == OpHMACSign {
			return true, "", mac
		}
		if hmac.Equal(mac, fields[1]) { // constant time
			return true, "1", nil
		}
		return true, "0", nil
	}
	return false, fmt.Sprintf("unknown operation %d", code), nil
}

func sum(h hash.Hash, data []byte) []byte {
	h.Write(data) // never fails, says hash.Hash
	return h.Sum(nil)
}

// split cuts n leading fields, their lengths given as "a:b:...", off data.
func split(lengths string, n int, data []byte) (fields [2][]byte, rest []byte, err error) {
	list := strings.Split(lengths, ":")
	if len(list) != n {
		return fields, nil, fmt.Errorf("malformed operation: %d lengths, want %d", len(list), n)
	}
	for i, s := range list {
		length, err := strconv.ParseUint(s, 10, 32)
		if err != nil || length > uint64(len(data)) {
			return fields, nil, fmt.Errorf("malformed operation: field length %q", s)
		}
		fields[i], data = data[:length], data[length:]
	}
	return fields, data, nil
}
