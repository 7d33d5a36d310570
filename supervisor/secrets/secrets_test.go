package secrets

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"filippo.io/age"
)

func newStore(t *testing.T) (*Store, string) {
	t.Helper()
	text, recipient, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(filepath.Join(t.TempDir(), "secrets"), text)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, make([]byte, len(text))) {
		t.Error("the key's text was not wiped")
	}
	if r, err := s.Recipient(); r != recipient || err != nil {
		t.Errorf("%s %v", r, err)
	}
	return s, recipient
}

func seal(t *testing.T, to, value string) []byte {
	t.Helper()
	c, err := Seal(to, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSecretsComeBack(t *testing.T) {
	s, to := newStore(t)
	large := strings.Repeat("x", MaxValue)
	empty := s.Digest("shop")
	for name, value := range map[string]string{"TOKEN": "hunter2", "_L": large, "E": ""} {
		if err := s.Put("shop", name, seal(t, to, value)); err != nil {
			t.Fatal(err)
		}
	}
	digest := s.Digest("shop")
	got, err := s.Reveal("shop")
	if err != nil || len(got) != 3 || got[1].Name != "TOKEN" || string(got[1].Value) != "hunter2" || string(got[2].Value) != large {
		t.Fatalf("%v: %d secrets", err, len(got))
	}
	Wipe(got)
	if !bytes.Equal(got[1].Value, make([]byte, 7)) {
		t.Error("not wiped")
	}
	if err := s.Put("shop", "TOKEN", seal(t, to, "hunter3")); err != nil || s.Digest("shop") == digest || digest == empty || empty != "" {
		t.Errorf("%v: the digest does not change with the secrets", err)
	}
	if other, err := s.Reveal("other"); len(other) > 0 || err != nil {
		t.Errorf("%v %v", other, err)
	}
	if err := s.Remove("shop", "TOKEN"); err != nil {
		t.Error(err)
	}
	if err := s.Remove("shop", "TOKEN"); !errors.Is(err, ErrMissing) {
		t.Error(err)
	}
	if list, err := s.List("shop"); err != nil || len(list) != 2 {
		t.Errorf("%v %v", list, err)
	}
	st, err := os.Stat(filepath.Join(s.dir, "shop", "_L.age"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
}

// What is refused is refused without a word of what it was.
func TestWhatCannotBeASecret(t *testing.T) {
	s, to := newStore(t)
	_, stranger := newStore(t)
	flipped := seal(t, to, "hunter2")
	flipped[len(flipped)-1] ^= 1
	for what, c := range map[string]struct {
		tenant, name string
		cipher       []byte
	}{
		"plain text":        {"a", "N", []byte("hunter2")},
		"another's key":     {"a", "N", seal(t, stranger, "hunter2")},
		"damaged":           {"a", "N", flipped},
		"cut":               {"a", "N", seal(t, to, "hunter2")[:150]},
		"too large":         {"a", "N", seal(t, to, "hunter2"+strings.Repeat("x", MaxValue))},
		"no text":           {"a", "N", seal(t, to, "hunter2\xff")},
		"a path":            {"a", "../N", seal(t, to, "hunter2")},
		"a path for tenant": {"..", "N", seal(t, to, "hunter2")},
		"no name":           {"a", "", seal(t, to, "hunter2")},
		"a number":          {"a", "1", seal(t, to, "hunter2")},
		"a long name":       {"a", strings.Repeat("N", 129), seal(t, to, "hunter2")},
	} {
		if err := s.Put(c.tenant, c.name, c.cipher); err == nil || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if list, err := s.List("a"); err != nil || len(list) > 0 {
		t.Errorf("%v %v", list, err)
	}
	for i := range MaxSecrets {
		if err := s.Put("a", "N"+strings.Repeat("x", i), seal(t, to, "v")); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Put("a", "M", seal(t, to, "v")); err == nil {
		t.Error("one too many")
	}
	for _, bad := range []string{"x", "AGE-SECRET-KEY-1QQQ", "age1xxx", strings.Repeat("#", maxKey+10)} {
		if _, err := Open(t.TempDir(), []byte(bad)); err == nil || strings.Contains(err.Error(), bad+"\"") {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
	none, err := Open("", nil)
	if err != nil || none.Digest("a") != "" || !errors.Is(none.Put("a", "N", nil), ErrNoKey) {
		t.Error("a store without a key")
	}
}

// Age's reader keeps what it decrypted; open wipes it. With another version of age this test says where to
// look.
func TestNothingIsLeftInAge(t *testing.T) {
	s, to := newStore(t)
	r, err := age.Decrypt(bytes.NewReader(seal(t, to, "hunter2hunter2")), s.key)
	if err != nil {
		t.Fatal(err)
	}
	wipe, err := inside(r)
	if err != nil {
		t.Fatal(err)
	}
	r.Read(make([]byte, 100))
	held := func() bool {
		return bytes.Contains(reflect.ValueOf(r).Elem().FieldByName("buf").Slice(0, 64).Bytes(), []byte("hunter2"))
	}
	if !held() {
		t.Error("the plaintext is not where it is wiped")
	}
	wipe()
	if held() {
		t.Error("it is still there")
	}
	if _, err := inside(strings.NewReader("x")); err == nil {
		t.Error("a reader without such a buffer was taken")
	}
}
