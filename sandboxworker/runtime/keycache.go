package runtime

// keptKeys is how many parsed keys of each half an isolate's operations keep. To parse one costs more than to
// use it: of ECDSA's, the curve's arithmetic checks that both halves belong together. A parsed RSA key of 4096
// bits takes some 15 KB, which is nobody's memory limit's: hence so few.
const keptKeys = 4

// keyCache holds parsed keys by their DER, for one tenant and until its isolate rests or goes. What a key is
// follows from its bytes alone, so that a kept one answers as a fresh one does. The zero value keeps nothing
// yet; a nil cache never does.
type keyCache struct{ private, public map[string]any }

// get gives what parse makes of der, from the cache if it is there.
func (*keyCache) get(m *map[string]any, der []byte, parse func([]byte) (any, error)) (any, error) {
	if k, ok := (*m)[string(der)]; ok {
		return k, nil
	}
	k, err := parse(der)
	if err != nil {
		return nil, err
	}
	if len(*m) >= keptKeys || *m == nil {
		*m = make(map[string]any, keptKeys) // who uses more keys in turn gains nothing, and loses little
	}
	(*m)[string(der)] = k
	return k, nil
}

// privateKey and publicKey read a field of the call. Callers do not change what they get.
func (c *cryptoCall) privateKey(field int) (any, error) {
	if c.keys == nil {
		return privateKey(c.field[field])
	}
	return c.keys.get(&c.keys.private, c.field[field], privateKey)
}

func (c *cryptoCall) publicKey(field int) (any, error) {
	if c.keys == nil {
		return publicKey(c.field[field])
	}
	return c.keys.get(&c.keys.public, c.field[field], publicKey)
}

func (k *keyCache) drop() { *k = keyCache{} }
