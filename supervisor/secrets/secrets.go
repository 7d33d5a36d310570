// Package secrets keeps tenants' secrets, encrypted, until a shard that hosts the tenant needs them.
//
// Duty: store what operators set as age files (https://age-encryption.org/v1), list names, and open the
// secrets of one tenant at the moment of a load.
//
// Trust: the key is the operator's. Ciphertexts come from whoever may use the admin API; they are opened
// once when they are stored, so that what cannot be used is refused while somebody looks.
//
// Invariants:
//   - Values are on disk encrypted and nowhere else. In this process they exist from Open to the end of the
//     Load that hands them over; whoever calls Open wipes what it gave. What age keeps of them is wiped here.
//   - No error and no listing holds a value. Names are not secret.
package secrets

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"filippo.io/age"

	"bulkhead/policy"
)

// Bounds.
const (
	MaxValue   = 32 << 10 // bytes of one secret; below age's chunk, so that one buffer holds all of it
	MaxSecrets = 64       // of one tenant
	maxName    = 128
	// MaxCipher is the most that a secret has encrypted to one key: age's header and tags come on top.
	MaxCipher = MaxValue + 8<<10
	maxKey    = 64 << 10
)

// Errors for who asks. Test with errors.Is.
var (
	ErrNoKey   = errors.New("this host has no key for secrets: make one with `bulkhead secret key FILE` and start with --secrets-key FILE")
	ErrMissing = errors.New("no such secret")
)

// Secret is a name and a value. The value is to be wiped.
type Secret struct {
	Name  string
	Value []byte
}

// Info is a secret as it is listed.
type Info struct {
	Name    string    `json:"name"`
	Changed time.Time `json:"changed"`
}

// Store holds the secrets of all tenants of a host. Safe for concurrent use.
type Store struct {
	dir string
	key *age.X25519Identity

	mu sync.RWMutex // one change at a time
}

// Open makes a store over a directory of its own. key is the text of an age identity file with one X25519
// identity; it is wiped. An empty one gives a nil store, whose methods answer with ErrNoKey or nothing.
func Open(dir string, key []byte) (*Store, error) {
	if len(key) == 0 {
		return nil, nil
	}
	defer clear(key)
	if dir == "" {
		return nil, errors.New("secrets need the data directory, which the gateway cannot write here")
	}
	// What age says of a bad file may quote it.
	ids, err := age.ParseIdentities(io.LimitReader(bytes.NewReader(key), maxKey))
	if err != nil || len(ids) != 1 {
		return nil, errors.New("--secrets-key: not an age identity file with one key (AGE-SECRET-KEY-1…); `bulkhead secret key FILE` makes one")
	}
	id, ok := ids[0].(*age.X25519Identity)
	if !ok {
		return nil, errors.New("--secrets-key: only X25519 keys (AGE-SECRET-KEY-1…)")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	return &Store{dir: dir, key: id}, nil
}

// ValidName says whether a secret can be named so: an identifier of at most 128 bytes.
func ValidName(s string) bool {
	for i, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', c >= '0' && c <= '9' && i > 0:
		default:
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

// Recipient is the public key: what is encrypted to it, this store can open.
func (s *Store) Recipient() (string, error) {
	if s == nil {
		return "", ErrNoKey
	}
	return s.key.Recipient().String(), nil
}

func (s *Store) path(tenant, name string) (string, error) {
	switch {
	case s == nil:
		return "", ErrNoKey
	case !policy.ValidTenantID(tenant):
		return "", fmt.Errorf("%q cannot be a tenant id", tenant)
	case !ValidName(name):
		return "", fmt.Errorf("%q cannot be the name of a secret: letters, digits and _, not beginning with a digit, at most %d", name, maxName)
	}
	return filepath.Join(s.dir, tenant, name+".age"), nil
}

// Put stores a ciphertext.
func (s *Store) Put(tenant, name string, cipher []byte) error {
	path, err := s.path(tenant, name)
	if err != nil {
		return err
	}
	value, err := s.open(cipher)
	if err == nil && !utf8.Valid(value) {
		err = errors.New("a secret is text in UTF-8; encode other bytes, in base64 perhaps")
	}
	clear(value)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := s.list(tenant)
	if err != nil {
		return err
	}
	if len(list) >= MaxSecrets && !slices.ContainsFunc(list, func(i Info) bool { return i.Name == name }) {
		return fmt.Errorf("%s has %d secrets already; remove one", tenant, len(list))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	_, err = f.Write(cipher)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("secrets: %w", err)
	}
	return nil
}

// Remove forgets a secret.
func (s *Store) Remove(tenant, name string) error {
	path, err := s.path(tenant, name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch err := os.Remove(path); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s of %s", ErrMissing, name, tenant)
	case err != nil:
		return fmt.Errorf("secrets: %w", err)
	}
	return nil
}

// List names the secrets of a tenant.
func (s *Store) List(tenant string) ([]Info, error) {
	if s == nil {
		return nil, ErrNoKey
	}
	if !policy.ValidTenantID(tenant) {
		return nil, fmt.Errorf("%q cannot be a tenant id", tenant)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.list(tenant)
}

// list is List. Caller holds mu.
func (s *Store) list(tenant string) ([]Info, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, tenant))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	out := []Info{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".age")
		if !ok || !ValidName(name) {
			continue
		}
		if i, err := e.Info(); err == nil && i.Mode().IsRegular() {
			out = append(out, Info{Name: name, Changed: i.ModTime().UTC()})
		}
	}
	return out, nil
}

// Digest changes with the tenant's secrets and tells nothing of them; "" without any.
func (s *Store) Digest(tenant string) string {
	if s == nil {
		return ""
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	list, err := s.list(tenant)
	if err != nil || len(list) == 0 {
		return ""
	}
	h := sha256.New()
	for _, i := range list {
		c, err := s.read(tenant, i.Name)
		fmt.Fprintf(h, "%s %d %v\n", i.Name, len(c), err != nil)
		h.Write(c)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (s *Store) read(tenant, name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(s.dir, tenant, name+".age"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxCipher+1))
}

// Reveal opens the secrets of one tenant. The caller wipes the values.
func (s *Store) Reveal(tenant string) (out []Secret, err error) {
	if s == nil {
		return nil, nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	defer func() {
		if err != nil {
			Wipe(out)
			out = nil
		}
	}()
	list, err := s.list(tenant)
	if err != nil {
		return nil, err
	}
	for _, i := range list[:min(len(list), MaxSecrets)] {
		c, err := s.read(tenant, i.Name)
		if err != nil {
			return out, fmt.Errorf("secret %s of %s cannot be read", i.Name, tenant)
		}
		v, err := s.open(c)
		if err != nil {
			return out, fmt.Errorf("secret %s of %s: %w", i.Name, tenant, err)
		}
		out = append(out, Secret{Name: i.Name, Value: v})
	}
	return out, nil
}

// Wipe overwrites the values.
func Wipe(list []Secret) {
	for i := range list {
		clear(list[i].Value)
	}
}

// open decrypts into a buffer that never grows: nothing of the value is left behind by append.
func (s *Store) open(cipher []byte) ([]byte, error) {
	if len(cipher) > MaxCipher {
		return nil, fmt.Errorf("a secret has at most %d bytes", MaxValue)
	}
	r, err := age.Decrypt(bytes.NewReader(cipher), s.key)
	if err != nil {
		return nil, errors.New("it is not encrypted to this host's key; set it again with `bulkhead secret set`")
	}
	wipe, err := inside(r)
	if err != nil {
		return nil, err
	}
	defer wipe()
	value := make([]byte, MaxValue+1)
	n, err := io.ReadFull(r, value)
	switch {
	case err == nil:
		clear(value)
		return nil, fmt.Errorf("a secret has at most %d bytes", MaxValue)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return value[:n:n], nil
	}
	clear(value)
	return nil, errors.New("it is damaged; set it again with `bulkhead secret set`")
}

// Seal encrypts a value to a recipient.
func Seal(recipient string, value []byte) ([]byte, error) {
	to, err := age.ParseX25519Recipient(recipient)
	if err != nil {
		return nil, fmt.Errorf("the host's public key is not understood: %w", err)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err == nil {
		_, err = w.Write(value)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return out.Bytes(), nil
}

// NewKey makes an identity file's text and its public key.
func NewKey() (text []byte, recipient string, err error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, "", err
	}
	recipient = id.Recipient().String()
	return fmt.Appendf(nil, "# bulkhead's key for tenants' secrets; public key: %s\n%s\n", recipient, id), recipient, nil
}
