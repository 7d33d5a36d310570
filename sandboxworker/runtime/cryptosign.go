package runtime

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"math/big"
)

// params reads name, hash and salt length; the hash is 0 for Ed25519, the salt length counts for PSS.
func (c *cryptoCall) params() (name string, h crypto.Hash, digest []byte, pss *rsa.PSSOptions, err error) {
	name = c.word[0]
	if name == "Ed25519" {
		return
	}
	if h, err = c.hash(1); err != nil {
		return
	}
	digest = sum(h.New(), c.field[len(c.field)-1])
	salt, err := c.number(2)
	pss = &rsa.PSSOptions{SaltLength: salt, Hash: h}
	return
}

// noSalt: what rsa.PSSOptions takes for "as long as possible" is a salt of no bytes here (cryptopss.go).
const noSalt = rsa.PSSSaltLengthAuto

func sign(c *cryptoCall) ([][]byte, error) {
	name, h, digest, pss, err := c.params()
	if err != nil {
		return nil, err
	}
	k, err := c.privateKey(0)
	if err != nil {
		return nil, err
	}
	var out []byte
	switch k := k.(type) {
	case ed25519.PrivateKey:
		return one(ed25519.Sign(k, c.field[1])), nil
	case *ecdsa.PrivateKey:
		if out, err = ecdsa.SignASN1(rand.Reader, k, digest); err == nil {
			out, err = fixedSignature(out, (k.Params().N.BitLen()+7)/8)
		}
	case *rsa.PrivateKey:
		if name == "RSA-PSS" {
			if pss.SaltLength == noSalt {
				out, err = signNoSalt(k, h, digest)
			} else {
				out, err = rsa.SignPSS(rand.Reader, k, h, digest, pss)
			}
		} else {
			out, err = rsa.SignPKCS1v15(nil, k, h, digest)
		}
	default:
		return nil, errKey
	}
	if err != nil {
		return nil, errOperation
	}
	return one(out), nil
}

// fixedSignature makes of Go's signature the one of the standard: both numbers, each of n bytes.
func fixedSignature(der []byte, n int) ([]byte, error) {
	var s struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &s); err != nil {
		return nil, err
	}
	out := make([]byte, 2*n)
	s.R.FillBytes(out[:n])
	s.S.FillBytes(out[n:])
	return out, nil
}

func verify(c *cryptoCall) ([][]byte, error) {
	name, h, digest, pss, err := c.params()
	if err != nil {
		return nil, err
	}
	k, err := c.publicKey(0)
	if err != nil {
		return nil, err
	}
	sig, good := c.field[1], false
	switch k := k.(type) {
	case ed25519.PublicKey:
		good = len(sig) == ed25519.SignatureSize && !smallOrder(k) && !smallOrder(sig[:32]) && ed25519.Verify(k, c.field[2], sig)
	case *ecdsa.PublicKey:
		if n := (k.Params().N.BitLen() + 7) / 8; len(sig) == 2*n {
			der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig[:n]), new(big.Int).SetBytes(sig[n:])})
			good = err == nil && ecdsa.VerifyASN1(k, digest, der)
		}
	case *rsa.PublicKey:
		if name == "RSA-PSS" {
			if pss.SaltLength == noSalt {
				good = verifyNoSalt(k, h, digest, sig)
			} else {
				good = rsa.VerifyPSS(k, h, digest, sig, pss) == nil
			}
		} else {
			good = rsa.VerifyPKCS1v15(k, h, digest, sig) == nil
		}
	default:
		return nil, errKey
	}
	if good {
		c.note = "1"
	} else {
		c.note = "0"
	}
	return nil, nil
}

// smallOrders are the points of small order of edwards25519 as they may be encoded, without the sign:
// each signs for many messages, or for all, and WebCrypto has them refused (https://w3c.github.io/webcrypto/#ed25519-operations-verify).
var smallOrders = func() (all [][]byte) {
	for _, s := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p-1, p and p+1
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		b, _ := hex.DecodeString(s)
		all = append(all, b)
	}
	return
}()

func smallOrder(point []byte) bool {
	for _, s := range smallOrders {
		if bytes.Equal(point[:31], s[:31]) && point[31]&0x7f == s[31] {
			return true
		}
	}
	return false
}

func oaepEncrypt(c *cryptoCall) ([][]byte, error) {
	h, err := c.hash(0)
	if err != nil {
		return nil, err
	}
	k, err := c.publicKey(0)
	if err != nil {
		return nil, err
	}
	r, ok := k.(*rsa.PublicKey)
	if !ok {
		return nil, errKey
	}
	out, err := rsa.EncryptOAEP(h.New(), rand.Reader, r, c.field[2], c.field[1])
	if err != nil {
		return nil, errOperation
	}
	return one(out), nil
}

func oaepDecrypt(c *cryptoCall) ([][]byte, error) {
	h, err := c.hash(0)
	if err != nil {
		return nil, err
	}
	k, err := c.privateKey(0)
	if err != nil {
		return nil, err
	}
	r, ok := k.(*rsa.PrivateKey)
	if !ok {
		return nil, errKey
	}
	out, err := rsa.DecryptOAEP(h.New(), nil, r, c.field[2], c.field[1])
	if err != nil {
		return nil, errOperation
	}
	return one(out), nil
}

// agree is ECDH and X25519: the shared secret of a private and a public key on one curve.
func agree(c *cryptoCall) ([][]byte, error) {
	k, err1 := c.privateKey(0)
	p, err2 := c.publicKey(1)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	var private *ecdh.PrivateKey
	var public *ecdh.PublicKey
	switch k := k.(type) {
	case *ecdsa.PrivateKey:
		private, err1 = k.ECDH()
	case *ecdh.PrivateKey:
		private = k
	}
	switch p := p.(type) {
	case *ecdsa.PublicKey:
		public, err2 = p.ECDH()
	case *ecdh.PublicKey:
		public = p
	}
	if private == nil || public == nil || err1 != nil || err2 != nil || private.Curve() != public.Curve() {
		return nil, errKey
	}
	out, err := private.ECDH(public)
	if err != nil {
		return nil, errOperation // a point of low order
	}
	return one(out), nil
}
