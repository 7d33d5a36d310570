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
)

// Operation codes: what host.op asks for. The script's copies are in js/invoke/ops.js.
const (
	OpDigest     uint32 = 1 // meta: hash; data: message. Answer: digest
	OpHMACSign   uint32 = 2 // meta: hash ":" key length; data: key, message. Answer: MAC
	OpHMACVerify uint32 = 3 // meta: hash ":" key length ":" MAC length; data: key, MAC, message. Answer: meta "1" or "0"
	OpCrypto     uint32 = 4 // meta: words of cryptoOps and the lengths of the fields in data; see crypto.go
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

// Do performs one operation of a tenant. Its cost is linear in len(data), but for public-key
// operations, of milliseconds, and for what takes as long as the tenant likes: that asks alive (nil: for
// ever) every millisecond or so and ends without a result when it may not go on. With ok false, resMeta
// is a message for the tenant. It never panics, whatever meta and data are, and keeps no reference to
// data.
func Do(code uint32, meta string, data []byte, alive func() bool) (ok bool, resMeta string, res []byte) {
	switch code {
	case OpCrypto:
		return doCrypto(meta, data, alive)
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
