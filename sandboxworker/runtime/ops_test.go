package runtime_test

import (
	"encoding/hex"
	"testing"

	"bulkhead/sandboxworker/runtime"
)

func TestDo(t *testing.T) {
	key, msg := "key", "The quick brown fox jumps over the lazy dog"
	mac, _ := hex.DecodeString("f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8")
	for _, c := range []struct {
		name string
		code uint32
		meta string
		data string
		ok   bool
		res  string // meta of the answer, or hex of its bytes
	}{
		{"SHA-1", runtime.OpDigest, "SHA-1", "abc", true, "a9993e364706816aba3e25717850c26c9cd0d89d"},
		{"SHA-256", runtime.OpDigest, "SHA-256", "", true, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{"unknown hash", runtime.OpDigest, "MD5", "abc", false, `unknown hash "MD5"`},
		{"sign", runtime.OpHMACSign, "SHA-256:3", key + msg, true, hex.EncodeToString(mac)},
		{"verify", runtime.OpHMACVerify, "SHA-256:3:32", key + string(mac) + msg, true, "1"},
		{"verify, cut", runtime.OpHMACVerify, "SHA-256:3:31", key + string(mac[:31]) + msg, true, "0"},
		{"verify, wrong", runtime.OpHMACVerify, "SHA-256:3:0", key + msg, true, "0"},
		{"length beyond the data", runtime.OpHMACSign, "SHA-256:99", "abc", false, `malformed operation: field length "99"`},
		{"huge length", runtime.OpHMACSign, "SHA-256:18446744073709551616", "abc", false, `malformed operation: field length "18446744073709551616"`},
		{"negative length", runtime.OpHMACSign, "SHA-256:-1", "abc", false, `malformed operation: field length "-1"`},
		{"no length", runtime.OpHMACSign, "SHA-256", "abc", false, `malformed operation: field length ""`},
		{"unknown operation", 99, "", "", false, "unknown operation 99"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ok, meta, res := new(runtime.Host).Do(c.code, c.meta, []byte(c.data))
			got := meta
			if res != nil {
				got = hex.EncodeToString(res)
			}
			if ok != c.ok || got != c.res {
				t.Errorf("got %v %q, want %v %q", ok, got, c.ok, c.res)
			}
		})
	}
}

// Metadata and bytes are the tenant's.
func FuzzDo(f *testing.F) {
	f.Add(uint32(2), "SHA-256:3", []byte("keymessage"))
	f.Add(uint32(3), "SHA-512:1:2", []byte("kmmx"))
	f.Add(uint32(4), "aes-ctr 64 16:16:3", []byte("0123456789abcdef0123456789abcdefxyz"))
	f.Add(uint32(4), "pbkdf2 SHA-1 5 160 2:2", []byte("pwsa"))
	f.Add(uint32(4), "import-ec P-256 32:32:0", make([]byte, 64))
	f.Add(uint32(5), "gzip 0 1 0", []byte("text"))
	f.Add(uint32(6), "1 deflate-raw end", []byte("\x03\x00"))
	f.Fuzz(func(t *testing.T, code uint32, meta string, data []byte) {
		h := &runtime.Host{Alive: func() bool { return false }}
		defer h.Close()
		if ok, text, _ := h.Do(code, meta, data); !ok && text == "" {
			t.Error("refused without a reason")
		}
	})
}

// What a script says of a subrequest is the tenant's word: it parses or not, and headers stay bytes.
func FuzzParseFetch(f *testing.F) {
	f.Add("GET\nhttp://a/\n0\n0\n0\n\n0\na\nb\n")
	f.Add("POST\nhttp://a/\n2\n1\nx\n\u00e9\n")
	f.Add("\n\n\n\n")
	f.Fuzz(func(t *testing.T, meta string) {
		r, err := runtime.ParseFetch(meta)
		if err == nil && len(r.Method)+len(r.URL)+len(r.Headers) > len(meta) {
			t.Error("more came out than went in")
		}
	})
}
