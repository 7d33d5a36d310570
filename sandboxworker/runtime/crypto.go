package runtime

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// Operations of WebCrypto (https://w3c.github.io/webcrypto/). The script has checked what the standard
// calls types, usages and names; here are the sums. Keys come as bytes: raw secrets, PKCS #8, SPKI.
//
// Each takes words and fields and gives fields, their lengths in the answer's meta.
type cryptoOp struct {
	words, fields int
	do            func(c *cryptoCall) ([][]byte, error)
}

// cryptoCall is one operation. What it holds is the tenant's word.
type cryptoCall struct {
	word  []string
	field [][]byte
	alive func() bool // asked now and then by what takes long; nil: no limit
	keys  *keyCache   // nil: none is kept
	note  string      // added to the answer's meta, without spaces
}

var (
	errOperation = errors.New("the operation failed")
	errStopped   = errors.New("the operation was stopped: the CPU limit was reached")
)

var cryptoOps = map[string]cryptoOp{
	"aes-cbc-encrypt": {0, 3, aesCBCEncrypt}, // key, iv, data
	"aes-cbc-decrypt": {0, 3, aesCBCDecrypt},
	"aes-ctr":         {1, 3, aesCTR},        // counter bits; key, counter, data
	"aes-gcm-encrypt": {1, 4, aesGCMEncrypt}, // tag bits; key, iv, additional data, data
	"aes-gcm-decrypt": {1, 4, aesGCMDecrypt},
	"aes-kw-wrap":     {0, 2, aesKWWrap}, // key, data
	"aes-kw-unwrap":   {0, 2, aesKWUnwrap},
	"hkdf":            {2, 3, deriveHKDF},   // hash, bits; key, salt, info
	"pbkdf2":          {3, 2, derivePBKDF2}, // hash, iterations, bits; password, salt
	"ecdh":            {0, 2, agree},        // private key, public key
	"sign":            {3, 2, sign},         // name, hash, salt length; private key, data
	"verify":          {3, 3, verify},       // the same; public key, signature, data
	"oaep-encrypt":    {1, 3, oaepEncrypt},  // hash; public key, label, data
	"oaep-decrypt":    {1, 3, oaepDecrypt},
	"generate-rsa":    {2, 0, generateRSA}, // bits, exponent
	"generate-ec":     {1, 0, generateEC},  // curve, Ed25519 and X25519 among them
	"import":          {2, 1, importDER},   // kind, "pkcs8" or "spki" or "raw"
	"import-rsa":      {0, 8, importRSA},   // n e d p q dp dq qi, empty for none
	"import-ec":       {1, 3, importEC},    // curve; x y d
	"export-jwk":      {1, 1, exportJWK},   // "private" or "public"; key
	"export-raw":      {0, 1, exportRaw},   // public key
}

// doCrypto runs one: meta is the words, the last of them the lengths of the fields that data is.
func doCrypto(meta string, data []byte, alive func() bool, keys *keyCache) (ok bool, resMeta string, res []byte) {
	word := strings.Split(meta, " ")
	op, known := cryptoOps[word[0]]
	if !known || len(word) != op.words+2 {
		return false, fmt.Sprintf("unknown operation %.40q", meta), nil
	}
	c := &cryptoCall{word: word[1 : len(word)-1], alive: alive, keys: keys}
	if op.fields > 0 {
		lengths := strings.Split(word[len(word)-1], ":")
		if len(lengths) != op.fields {
			return false, fmt.Sprintf("malformed operation: %d lengths, want %d", len(lengths), op.fields), nil
		}
		for _, s := range lengths {
			n, err := strconv.ParseUint(s, 10, 32)
			if err != nil || n > uint64(len(data)) {
				return false, fmt.Sprintf("malformed operation: field length %.40q", s), nil
			}
			c.field, data = append(c.field, data[:n:n]), data[n:]
		}
	}
	out, err := op.do(c)
	if err != nil {
		return false, err.Error(), nil
	}
	lengths := make([]string, len(out))
	for i, f := range out {
		lengths[i] = strconv.Itoa(len(f))
	}
	resMeta = strings.Join(lengths, ":")
	if c.note != "" {
		resMeta += " " + c.note
	}
	return true, resMeta, bytes.Join(out, nil)
}

func (c *cryptoCall) number(i int) (int, error) {
	n, err := strconv.ParseUint(c.word[i], 10, 31)
	if err != nil {
		return 0, fmt.Errorf("malformed operation: number %.40q", c.word[i])
	}
	return int(n), nil
}

func (c *cryptoCall) hash(i int) (crypto.Hash, error) {
	h, known := hashOf(c.word[i])
	if !known {
		return 0, fmt.Errorf("unknown hash %.40q", c.word[i])
	}
	return h, nil
}

func (c *cryptoCall) stopped() bool { return c.alive != nil && !c.alive() }

func one(b []byte) [][]byte { return [][]byte{b} }

func aesCBCEncrypt(c *cryptoCall) ([][]byte, error) {
	b, err := aes.NewCipher(c.field[0])
	if err != nil || len(c.field[1]) != aes.BlockSize {
		return nil, errOperation
	}
	pad := aes.BlockSize - len(c.field[2])%aes.BlockSize
	out := append(append(make([]byte, 0, len(c.field[2])+pad), c.field[2]...), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(b, c.field[1]).CryptBlocks(out, out)
	return one(out), nil
}

func aesCBCDecrypt(c *cryptoCall) ([][]byte, error) {
	b, err := aes.NewCipher(c.field[0])
	n := len(c.field[2])
	if err != nil || len(c.field[1]) != aes.BlockSize || n == 0 || n%aes.BlockSize != 0 {
		return nil, errOperation
	}
	out := make([]byte, n)
	cipher.NewCBCDecrypter(b, c.field[1]).CryptBlocks(out, c.field[2])
	pad := int(out[n-1])
	if pad == 0 || pad > aes.BlockSize || !bytes.Equal(out[n-pad:], bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, errOperation
	}
	return one(out[:n-pad]), nil
}

// aesCTR counts in the low bits of the counter block only, as the standard wants; Go's counts in all.
func aesCTR(c *cryptoCall) ([][]byte, error) {
	bits, err := c.number(0)
	if err != nil {
		return nil, err
	}
	b, err := aes.NewCipher(c.field[0])
	if err != nil || len(c.field[1]) != aes.BlockSize || bits < 1 || bits > 128 {
		return nil, errOperation
	}
	data := c.field[2]
	size := new(big.Int).Lsh(big.NewInt(1), uint(bits))
	counter := new(big.Int).SetBytes(c.field[1])
	low := new(big.Int).Mod(counter, size)
	blocks := big.NewInt(int64((len(data) + aes.BlockSize - 1) / aes.BlockSize))
	if blocks.Cmp(size) > 0 {
		return nil, errOperation // the counter would repeat
	}
	out := make([]byte, len(data))
	left := new(big.Int).Sub(size, low) // blocks until it wraps
	first := len(data)
	if left.Cmp(blocks) < 0 {
		first = int(left.Int64()) * aes.BlockSize
	}
	cipher.NewCTR(b, c.field[1]).XORKeyStream(out[:first], data[:first])
	if first < len(data) {
		start := counter.Sub(counter, low).FillBytes(make([]byte, aes.BlockSize))
		cipher.NewCTR(b, start).XORKeyStream(out[first:], data[first:])
	}
	return one(out), nil
}

func (c *cryptoCall) gcm() (cipher.AEAD, int, error) {
	bits, err := c.number(0)
	if err != nil {
		return nil, 0, err
	}
	b, err := aes.NewCipher(c.field[0])
	if err != nil || len(c.field[1]) == 0 || bits < 32 || bits > 128 || bits%8 != 0 {
		return nil, 0, errOperation
	}
	g, err := cipher.NewGCMWithNonceSize(b, len(c.field[1]))
	return g, bits / 8, err
}

func aesGCMEncrypt(c *cryptoCall) ([][]byte, error) {
	g, tag, err := c.gcm()
	if err != nil {
		return nil, err
	}
	out := g.Seal(nil, c.field[1], c.field[3], c.field[2])
	return one(out[:len(out)-g.Overhead()+tag]), nil
}

// aesGCMDecrypt makes its own comparison of short tags, which Go does not offer: the text behind the
// keystream is sealed again, and what comes out must begin as what came in.
func aesGCMDecrypt(c *cryptoCall) ([][]byte, error) {
	g, tag, err := c.gcm()
	if err != nil {
		return nil, err
	}
	data := c.field[3]
	if len(data) < tag {
		return nil, errOperation
	}
	if tag == g.Overhead() {
		out, err := g.Open(nil, c.field[1], data, c.field[2])
		if err != nil {
			return nil, errOperation
		}
		return one(out), nil
	}
	n := len(data) - tag
	text := g.Seal(nil, c.field[1], data[:n], nil)[:n]
	again := g.Seal(nil, c.field[1], text, c.field[2])
	if subtle.ConstantTimeCompare(again[n:n+tag], data[n:]) != 1 {
		return nil, errOperation
	}
	return one(text), nil
}

// kwInitial is RFC 3394's constant, section 2.2.3.1.
const kwInitial = 0xa6a6a6a6a6a6a6a6

func aesKWWrap(c *cryptoCall) ([][]byte, error) {
	b, err := aes.NewCipher(c.field[0])
	n := len(c.field[1]) / 8
	if err != nil || len(c.field[1])%8 != 0 || n < 2 {
		return nil, errOperation
	}
	out := append(binary.BigEndian.AppendUint64(nil, kwInitial), c.field[1]...)
	var block [16]byte
	for j := range 6 {
		for i := 1; i <= n; i++ {
			copy(block[:8], out[:8])
			copy(block[8:], out[8*i:])
			b.Encrypt(block[:], block[:])
			binary.BigEndian.PutUint64(out, binary.BigEndian.Uint64(block[:8])^uint64(n*j+i))
			copy(out[8*i:], block[8:])
		}
	}
	return one(out), nil
}

func aesKWUnwrap(c *cryptoCall) ([][]byte, error) {
	b, err := aes.NewCipher(c.field[0])
	n := len(c.field[1])/8 - 1
	if err != nil || len(c.field[1])%8 != 0 || n < 2 {
		return nil, errOperation
	}
	out := bytes.Clone(c.field[1])
	var block [16]byte
	for j := 5; j >= 0; j-- {
		for i := n; i >= 1; i-- {
			binary.BigEndian.PutUint64(block[:8], binary.BigEndian.Uint64(out[:8])^uint64(n*j+i))
			copy(block[8:], out[8*i:8*i+8])
			b.Decrypt(block[:], block[:])
			copy(out[:8], block[:8])
			copy(out[8*i:], block[8:])
		}
	}
	if subtle.ConstantTimeCompare(out[:8], binary.BigEndian.AppendUint64(nil, kwInitial)) != 1 {
		return nil, errOperation
	}
	return one(out[8:]), nil
}

// maxDerived bounds what a key derivation gives, bytes. HKDF ends at 255 hashes by itself.
const maxDerived = 1 << 20

func deriveHKDF(c *cryptoCall) ([][]byte, error) {
	h, err := c.hash(0)
	if err != nil {
		return nil, err
	}
	bits, err := c.number(1)
	if err != nil {
		return nil, err
	}
	out, err := hkdf.Key(h.New, c.field[0], c.field[1], string(c.field[2]), bits/8)
	if err != nil {
		return nil, errOperation
	}
	return one(out), nil
}

// derivePBKDF2 is RFC 8018, section 5.2, over Go's HMAC. Go's own cannot be stopped, and how long it
// takes is the tenant's choice.
func derivePBKDF2(c *cryptoCall) ([][]byte, error) {
	h, err := c.hash(0)
	if err != nil {
		return nil, err
	}
	iterations, err1 := c.number(1)
	bits, err2 := c.number(2)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if iterations == 0 || bits/8 > maxDerived {
		return nil, errOperation
	}
	mac := hmac.New(h.New, c.field[0])
	out := make([]byte, 0, bits/8+h.Size())
	u := make([]byte, 0, h.Size())
	for block := uint32(1); len(out) < bits/8; block++ {
		mac.Reset()
		mac.Write(c.field[1])
		mac.Write(binary.BigEndian.AppendUint32(nil, block))
		u = mac.Sum(u[:0])
		at := len(out)
		out = append(out, u...)
		for i := 1; i < iterations; i++ {
			if i%256 == 0 && c.stopped() {
				return nil, errStopped
			}
			mac.Reset()
			mac.Write(u)
			u = mac.Sum(u[:0])
			subtle.XORBytes(out[at:], out[at:], u)
		}
		if c.stopped() {
			return nil, errStopped
		}
	}
	return one(out[:bits/8]), nil
}
