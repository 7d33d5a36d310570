package runtime

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
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
	if salt == 0 {
		pss.SaltLength = noSalt
	}
	return
}

// noSalt: in rsa.PSSOptions 0 means "as long as possible". A salt of no bytes cannot be asked for when
// signing; verifying finds its length by itself and it is compared there.
const noSalt = rsa.PSSSaltLengthAuto

var errNoSalt = errors.New("RSA-PSS without a salt is not supported")

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
				return nil, errNoSalt
			}
			out, err = rsa.SignPSS(rand.Reader, k, h, digest, pss)
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
		good = len(sig) == ed25519.SignatureSize && ed25519.Verify(k, c.field[2], sig)
	case *ecdsa.PublicKey:
		if n := (k.Params().N.BitLen() + 7) / 8; len(sig) == 2*n {
			der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig[:n]), new(big.Int).SetBytes(sig[n:])})
			good = err == nil && ecdsa.VerifyASN1(k, digest, der)
		}
	case *rsa.PublicKey:
		if name == "RSA-PSS" {
			if pss.SaltLength == noSalt {
				return nil, errNoSalt
			}
			good = rsa.VerifyPSS(k, h, digest, sig, pss) == nil
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
