package runtime

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"math/big"
)

// RSA-PSS with a salt of no bytes (RFC 8017, section 8.1). crypto/rsa cannot be asked for it: a SaltLength
// of 0 means "as long as possible" there. Without a salt the encoding of a hash is one and the same, so a
// signature is verified by making it again.

var errTooLong = errors.New("the RSA key is too short for this hash")

// encodeNoSalt is EMSA-PSS-ENCODE (section 9.1.1) with sLen = 0.
func encodeNoSalt(h crypto.Hash, digest []byte, bits int) ([]byte, error) {
	n := (bits + 7) / 8
	size := h.Size()
	if n < size+2 {
		return nil, errTooLong
	}
	em := make([]byte, n)
	db, mark := em[:n-size-1], em[n-size-1:n-1]
	db[len(db)-1] = 1
	em[n-1] = 0xbc
	copy(mark, sum(h.New(), append(make([]byte, 8, 8+len(digest)), digest...)))
	for at, counter := 0, uint32(0); at < len(db); counter++ { // MGF1, section B.2.1
		mask := sum(h.New(), binary.BigEndian.AppendUint32(append(make([]byte, 0, size+4), mark...), counter))
		at += subtle.XORBytes(db[at:], db[at:], mask)
	}
	db[0] &= 0xff >> (8*n - bits)
	return em, nil
}

// signNoSalt is blinded: big.Int takes a time that depends on its operands, and whoever gives the data to be
// signed must not learn the key from it. The result is checked, as a fault in one half of the Chinese
// remainders would give the primes away.
func signNoSalt(k *rsa.PrivateKey, h crypto.Hash, digest []byte) ([]byte, error) {
	em, err := encodeNoSalt(h, digest, k.N.BitLen()-1)
	if err != nil {
		return nil, err
	}
	if len(k.Primes) != 2 {
		return nil, errKey
	}
	k.Precompute()
	e := big.NewInt(int64(k.E))
	message := new(big.Int).SetBytes(em)
	var r, back *big.Int
	for back == nil {
		if r, err = rand.Int(rand.Reader, k.N); err != nil {
			return nil, errOperation
		}
		back = new(big.Int).ModInverse(r, k.N) // nil for 0 and for a multiple of a prime
	}
	c := new(big.Int).Exp(r, e, k.N)
	c.Mul(c, message).Mod(c, k.N)
	p, q := k.Primes[0], k.Primes[1]
	m := new(big.Int).Exp(c, k.Precomputed.Dp, p)
	m2 := new(big.Int).Exp(c, k.Precomputed.Dq, q)
	m.Sub(m, m2).Mul(m, k.Precomputed.Qinv).Mod(m, p).Mul(m, q).Add(m, m2)
	m.Mul(m, back).Mod(m, k.N)
	if new(big.Int).Exp(m, e, k.N).Cmp(message) != 0 {
		return nil, errOperation
	}
	return m.FillBytes(make([]byte, k.Size())), nil
}

func verifyNoSalt(k *rsa.PublicKey, h crypto.Hash, digest, sig []byte) bool {
	s := new(big.Int).SetBytes(sig)
	if len(sig) != k.Size() || s.Cmp(k.N) >= 0 {
		return false
	}
	want, err := encodeNoSalt(h, digest, k.N.BitLen()-1)
	if err != nil {
		return false
	}
	got := s.Exp(s, big.NewInt(int64(k.E)), k.N)
	return got.BitLen() <= 8*len(want) && subtle.ConstantTimeCompare(got.FillBytes(make([]byte, len(want))), want) == 1
}
