package runtime

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
)

// maxModulus is the longest RSA key taken, bits: the cost of using one grows with its cube.
const maxModulus = 4096

var errKey = errors.New("the key data is not valid")

// curveOf knows the curves of WebCrypto by their names there.
func curveOf(name string) (elliptic.Curve, error) {
	switch name {
	case "P-256":
		return elliptic.P256(), nil
	case "P-384":
		return elliptic.P384(), nil
	case "P-521":
		return elliptic.P521(), nil
	}
	return nil, fmt.Errorf("unknown curve %.40q", name)
}

// privateKey and publicKey read what the script kept. They refuse RSA keys that are too long.
func privateKey(der []byte) (any, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errKey
	}
	if r, ok := k.(*rsa.PrivateKey); ok && (r.N.BitLen() > maxModulus || r.Validate() != nil) {
		return nil, errKey
	}
	return k, nil
}

func publicKey(der []byte) (any, error) {
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, errKey
	}
	if r, ok := k.(*rsa.PublicKey); ok && r.N.BitLen() > maxModulus {
		return nil, errKey
	}
	return k, nil
}

// kind names a key as the script does: "RSA:bits:exponent", a curve's name, "Ed25519", "X25519".
func kind(k any) (string, error) {
	switch k := k.(type) {
	case *rsa.PrivateKey:
		return kind(&k.PublicKey)
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA:%d:%s", k.N.BitLen(), hex.EncodeToString(big.NewInt(int64(k.E)).Bytes())), nil
	case *ecdsa.PrivateKey:
		return k.Params().Name, nil
	case *ecdsa.PublicKey:
		return k.Params().Name, nil
	case ed25519.PrivateKey, ed25519.PublicKey:
		return "Ed25519", nil
	case *ecdh.PrivateKey, *ecdh.PublicKey:
		return "X25519", nil
	}
	return "", errKey
}

// private and public give a key in the form the script keeps, and note what it is.
func (c *cryptoCall) private(k any) ([][]byte, error) {
	der, err1 := x509.MarshalPKCS8PrivateKey(k)
	var err2 error
	if c.note, err2 = kind(k); err1 != nil || err2 != nil {
		return nil, errKey
	}
	return one(der), nil
}

func (c *cryptoCall) public(k any) ([][]byte, error) {
	der, err1 := x509.MarshalPKIXPublicKey(k)
	var err2 error
	if c.note, err2 = kind(k); err1 != nil || err2 != nil {
		return nil, errKey
	}
	return one(der), nil
}

// pair gives the two halves of a new key.
func (c *cryptoCall) pair(private, public any) ([][]byte, error) {
	a, err := c.private(private)
	if err != nil {
		return nil, err
	}
	b, err := c.public(public)
	if err != nil {
		return nil, err
	}
	return [][]byte{a[0], b[0]}, nil
}

func generateEC(c *cryptoCall) ([][]byte, error) {
	switch c.word[0] {
	case "Ed25519":
		pub, k, err := ed25519.GenerateKey(nil)
		if err != nil {
			return nil, errOperation
		}
		return c.pair(k, pub)
	case "X25519":
		k, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			return nil, errOperation
		}
		return c.pair(k, k.PublicKey())
	}
	curve, err := curveOf(c.word[0])
	if err != nil {
		return nil, err
	}
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		return nil, errOperation
	}
	return c.pair(k, &k.PublicKey)
}

// generateRSA looks for the primes itself, one candidate after the other: rsa.GenerateKey takes a
// second for a long key and cannot be stopped. What it then makes of them is Go's, with Go's checks.
func generateRSA(c *cryptoCall) ([][]byte, error) {
	bits, err1 := c.number(0)
	exponent, err2 := c.number(1)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if bits < 1024 || bits > maxModulus || bits%8 != 0 || exponent < 3 || exponent%2 == 0 {
		return nil, fmt.Errorf("an RSA key of %d bits with the exponent %d cannot be generated: 1024 to %d bits, multiples of 8, odd exponents of 3 and more", bits, exponent, maxModulus)
	}
	e := big.NewInt(int64(exponent))
	one := big.NewInt(1)
	for {
		p, err := c.prime((bits+1)/2, e)
		if err != nil {
			return nil, err
		}
		q, err := c.prime(bits/2, e)
		if err != nil {
			return nil, err
		}
		// FIPS 186-5, A.1.3: far enough apart.
		if new(big.Int).Sub(p, q).BitLen() <= bits/2-100 {
			continue
		}
		p1, q1 := new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)
		lambda := new(big.Int).Mul(p1, q1)
		lambda.Div(lambda, new(big.Int).GCD(nil, nil, p1, q1))
		d := new(big.Int).ModInverse(e, lambda)
		n := new(big.Int).Mul(p, q)
		if d == nil || n.BitLen() != bits || d.BitLen() <= bits/2 {
			continue
		}
		k := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: exponent}, D: d, Primes: []*big.Int{p, q}}
		k.Precompute()
		if err := k.Validate(); err != nil {
			return nil, errOperation
		}
		return c.pair(k, &k.PublicKey)
	}
}

// smallPrimes is the product of the primes from 3 to 53; most candidates fall to them.
var smallPrimes = new(big.Int).SetUint64(16294579238595022365)

func (c *cryptoCall) prime(bits int, e *big.Int) (*big.Int, error) {
	b := make([]byte, bits/8)
	p, rest, one := new(big.Int), new(big.Int), big.NewInt(1)
	for {
		if c.stopped() {
			return nil, errStopped
		}
		rand.Read(b) // never fails, says crypto/rand
		b[0] |= 0xc0 // the product of two such has all its bits
		b[len(b)-1] |= 1
		p.SetBytes(b)
		if rest.GCD(nil, nil, p, smallPrimes).Cmp(one) != 0 || rest.GCD(nil, nil, rest.Sub(p, one), e).Cmp(one) != 0 {
			continue
		}
		// One round first: it ends nearly all that are composite.
		if p.ProbablyPrime(1) && !c.stopped() && p.ProbablyPrime(10) {
			return p, nil
		}
	}
}

// importDER takes key data and gives the form the script keeps. With "raw" the data is a public key.
func importDER(c *cryptoCall) ([][]byte, error) {
	switch c.word[1] {
	case "pkcs8":
		k, err := c.privateKey(0)
		if err != nil {
			return nil, err
		}
		return c.private(k)
	case "spki":
		c.field[0] = uncompressedSPKI(c.word[0], c.field[0])
		k, err := c.publicKey(0)
		if err != nil {
			return nil, err
		}
		return c.public(k)
	case "raw":
		return c.importPublic(c.word[0], c.field[0])
	}
	return nil, fmt.Errorf("unknown key format %.40q", c.word[1])
}

func (c *cryptoCall) importPublic(name string, b []byte) ([][]byte, error) {
	switch name {
	case "Ed25519":
		if len(b) != ed25519.PublicKeySize {
			return nil, errKey
		}
		return c.public(ed25519.PublicKey(b))
	case "X25519":
		k, err := ecdh.X25519().NewPublicKey(b)
		if err != nil {
			return nil, errKey
		}
		return c.public(k)
	}
	curve, err := curveOf(name)
	if err != nil {
		return nil, err
	}
	k, err := ecdsa.ParseUncompressedPublicKey(curve, uncompressed(curve, b))
	if err != nil {
		return nil, errKey
	}
	return c.public(k)
}

// uncompressed gives a compressed point (SEC 1, section 2.3.4) in full; what is none is left as it is.
func uncompressed(curve elliptic.Curve, b []byte) []byte {
	if len(b) == 0 || b[0] == 4 {
		return b
	}
	x, y := elliptic.UnmarshalCompressed(curve, b)
	if x == nil {
		return b
	}
	size := (curve.Params().BitSize + 7) / 8
	out := make([]byte, 1+2*size)
	out[0] = 4
	x.FillBytes(out[1 : 1+size])
	y.FillBytes(out[1+size:])
	return out
}

// uncompressedSPKI does so inside a SubjectPublicKeyInfo: crypto/x509 reads only points in full.
func uncompressedSPKI(name string, der []byte) []byte {
	curve, err := curveOf(name)
	if err != nil {
		return der
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if rest, err := asn1.Unmarshal(der, &info); err != nil || len(rest) > 0 || info.Key.BitLength%8 != 0 {
		return der
	}
	full := uncompressed(curve, info.Key.Bytes)
	if len(full) == len(info.Key.Bytes) {
		return der
	}
	info.Key = asn1.BitString{Bytes: full, BitLength: 8 * len(full)}
	if out, err := asn1.Marshal(info); err == nil {
		return out
	}
	return der
}

// importEC takes the parts of a JWK of type EC or OKP. With d it is a private key, whose public part
// must be the given one.
func importEC(c *cryptoCall) ([][]byte, error) {
	name, x, y, d := c.word[0], c.field[0], c.field[1], c.field[2]
	var pub []byte
	if name == "Ed25519" || name == "X25519" {
		pub = x
	} else {
		curve, err := curveOf(name)
		if err != nil {
			return nil, err
		}
		size := (curve.Params().BitSize + 7) / 8
		if len(x) != size || len(y) != size {
			return nil, errKey
		}
		pub = append(append([]byte{4}, x...), y...)
	}
	out, err := c.importPublic(name, pub)
	if err != nil || len(d) == 0 {
		return out, err
	}
	switch name {
	case "Ed25519":
		if len(d) != ed25519.SeedSize {
			return nil, errKey
		}
		k := ed25519.NewKeyFromSeed(d)
		if !k.Public().(ed25519.PublicKey).Equal(ed25519.PublicKey(x)) {
			return nil, errKey
		}
		return c.private(k)
	case "X25519":
		k, err := ecdh.X25519().NewPrivateKey(d)
		if err != nil || string(k.PublicKey().Bytes()) != string(x) {
			return nil, errKey
		}
		return c.private(k)
	}
	curve, _ := curveOf(name)
	if len(d) != (curve.Params().BitSize+7)/8 {
		return nil, errKey
	}
	k, err := ecdsa.ParseRawPrivateKey(curve, d)
	if err != nil {
		return nil, errKey
	}
	if b, err := k.PublicKey.Bytes(); err != nil || string(b) != string(pub) {
		return nil, errKey
	}
	return c.private(k)
}

// importRSA takes the parts of a JWK of type RSA.
func importRSA(c *cryptoCall) ([][]byte, error) {
	var v [8]*big.Int
	for i, f := range c.field {
		if len(f) > maxModulus/8 {
			return nil, errKey
		}
		v[i] = new(big.Int).SetBytes(f)
	}
	if !v[1].IsInt64() || v[1].Int64() > 1<<31-1 || v[1].Int64() < 3 || v[0].BitLen() < 512 {
		return nil, errKey
	}
	pub := rsa.PublicKey{N: v[0], E: int(v[1].Int64())}
	if len(c.field[2]) == 0 {
		return c.public(&pub)
	}
	if len(c.field[3]) == 0 || len(c.field[4]) == 0 {
		return nil, errors.New("the key data is not valid: a private RSA key needs its primes")
	}
	k := &rsa.PrivateKey{PublicKey: pub, D: v[2], Primes: []*big.Int{v[3], v[4]}}
	k.Precompute()
	if k.Validate() != nil {
		return nil, errKey
	}
	pre := &k.Precomputed
	if pre.Dp == nil || pre.Dp.Cmp(v[5]) != 0 || pre.Dq.Cmp(v[6]) != 0 || pre.Qinv.Cmp(v[7]) != 0 {
		return nil, errKey
	}
	return c.private(k)
}

// exportJWK gives the parts of a key in the order in which the imports take them.
func exportJWK(c *cryptoCall) ([][]byte, error) {
	if c.word[0] == "public" {
		k, err := c.publicKey(0)
		if err != nil {
			return nil, err
		}
		return publicParts(k)
	}
	k, err := c.privateKey(0)
	if err != nil {
		return nil, err
	}
	switch k := k.(type) {
	case *rsa.PrivateKey:
		if len(k.Primes) != 2 {
			return nil, errKey
		}
		k.Precompute()
		return [][]byte{k.N.Bytes(), big.NewInt(int64(k.E)).Bytes(), k.D.Bytes(), k.Primes[0].Bytes(), k.Primes[1].Bytes(),
			k.Precomputed.Dp.Bytes(), k.Precomputed.Dq.Bytes(), k.Precomputed.Qinv.Bytes()}, nil
	case *ecdsa.PrivateKey:
		parts, err1 := publicParts(&k.PublicKey)
		d, err2 := k.Bytes()
		return append(parts, d), errors.Join(err1, err2)
	case ed25519.PrivateKey:
		return [][]byte{k.Public().(ed25519.PublicKey), nil, k.Seed()}, nil
	case *ecdh.PrivateKey:
		return [][]byte{k.PublicKey().Bytes(), nil, k.Bytes()}, nil
	}
	return nil, errKey
}

func publicParts(k any) ([][]byte, error) {
	switch k := k.(type) {
	case *rsa.PublicKey:
		return [][]byte{k.N.Bytes(), big.NewInt(int64(k.E)).Bytes()}, nil
	case *ecdsa.PublicKey:
		b, err := k.Bytes()
		if err != nil {
			return nil, errKey
		}
		half := (len(b) - 1) / 2
		return [][]byte{b[1 : 1+half], b[1+half:]}, nil
	case ed25519.PublicKey:
		return [][]byte{k, nil}, nil
	case *ecdh.PublicKey:
		return [][]byte{k.Bytes(), nil}, nil
	}
	return nil, errKey
}

func exportRaw(c *cryptoCall) ([][]byte, error) {
	k, err := c.publicKey(0)
	if err != nil {
		return nil, err
	}
	switch k := k.(type) {
	case *ecdsa.PublicKey:
		b, err := k.Bytes()
		return one(b), err
	case ed25519.PublicKey:
		return one(k), nil
	case *ecdh.PublicKey:
		return one(k.Bytes()), nil
	}
	return nil, errKey
}
