package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bulkhead/securitytests/hosttest"
)

// packagesHost serves examples/ under the policy that `make run` has, the shipped one but for Wasm.
func packagesHost(t *testing.T) *hosttest.Host {
	t.Helper()
	examples, err := filepath.Abs("../../../examples")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"packages", "packages-wasm", "nodejs"} {
		if _, err := os.Stat(filepath.Join(examples, d, "node_modules")); err != nil {
			t.Fatalf("%v: run `make examples` (make test does)", err)
		}
	}
	h := hosttest.Start(t, hosttest.Options{Args: []string{"--tenants", examples}, Quiet: true, Policy: examplesPolicy(t, examples, socketDir(t))})
	// Some thousand files are bundled at once; on a machine with other work that takes longer than a request
	// waits for it.
	for _, tenant := range []string{"packages", "packages-wasm", "nodejs"} {
		for begin := time.Now(); ; {
			req, err := http.NewRequest("GET", "http://"+tenant+".localhost/", nil)
			if err != nil {
				t.Fatal(err)
			}
			if a, err := h.Send(req); err != nil {
				t.Fatal(err)
			} else if a.Status == 200 {
				break
			} else if time.Since(begin) > 2*time.Minute {
				t.Fatalf("%s is not served: %d %.500s", tenant, a.Status, a.Body)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	return h
}

// TestPackages asks npm packages, as they come from the registry, for answers that are known.
func TestPackages(t *testing.T) {
	h := packagesHost(t)
	for _, c := range []struct {
		tenant, path string
		want         []string
	}{
		{"packages", "/itty-router/ada", []string{`{"hello":"ada"}`}},
		// The token's first two parts are given by what is signed.
		{"packages", "/jose", []string{`"token":"eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoicmVhZGVyIiwic3ViIjoiYWRhIn0.`, `"sub":"ada"`, `"forged":"refused"`}},
		{"packages", "/zod?item=tea&count=2", []string{`{"item":"tea","count":2}`}},
		{"packages", "/zod?item=&count=two", []string{`{"issues":["item","count"]}`}},
		{"packages", "/graphql", []string{`{"data":{"add":5}}`}},
		{"packages", "/graphql?query=%7Badd(a:1)%7D", []string{`"errors":[`, `argument \"b\" of type \"Int!\" is required`}},
		{"packages", "/react-dom?name=%3Cyou%3E", []string{"<!DOCTYPE html><html lang=\"en\">", "<h1>Hello, <!-- -->&lt;you&gt;</h1>"}},
		{"packages", "/marked", []string{"<h1>Tides</h1>", "<li><em>high</em></li>"}},
		{"packages", "/date-fns", []string{`{"later":"2024-02-29","days":29}`}},
		{"packages", "/uuid", []string{`{"named":"` + uuidOfExample + `","random":true}`}},
		{"packages", "/nanoid", []string{`{"length":21,"digits":true}`}},
		{"packages", "/noble-hashes", []string{
			`"sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"`, // FIPS 180-2, B.1
			`"hmac":"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"`,   // RFC 4231, 4.3
		}},
		{"packages-wasm", "/", []string{"<h1>Rendered", "<em>WebAssembly</em>"}},
	} {
		t.Run(c.tenant+c.path, func(t *testing.T) { askFor(t, h, c.tenant, c.path, c.want) })
	}
}

// TestNodeModules asks the modules of Node.js, and packages that import them, for the answers that Node.js
// itself gives to the same worker.
func TestNodeModules(t *testing.T) {
	h := packagesHost(t)
	for name, want := range map[string]string{
		"assert": `"ERR_ASSERTION"`,
		"buffer": `["w6XDpMO2","åäö","010707",16909060]`,
		"crypto": `["ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","d41d8cd98f00b204e9800998ecf8427e",` +
			`"3nybhbi3iqa8ino29wqQcBydtNk=","ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957","77d6576238657b203b19ca42c18a0497",8,36,5,true,"Error"]`,
		"events":           `["high"]`,
		"path":             `["/b/c.txt",".gz","../c"]`,
		"process":          `["Ahoy","production","none",["GREETING","NODE_ENV"]]`, // ours: Node.js has the machine's variables
		"querystring":      `[{"a":["1","2"],"b":" "},"x=1&x=2&y=%C3%A5",{"a":"1","b":"2"}]`,
		"stream":           `"TO ALL"`,
		"string_decoder":   `"€"`,
		"url":              `["a.example:8080","/a b","file:///a%20b"]`,
		"util":             `["a=1 {\"b\":2}","{ a: { b: [ 1, 'x' ] } }",true]`,
		"bl":               `"etwoth"`,
		"cookie-signature": `["tide.jRV/nVlsejcbBI6Or/s4NWV4fANrMRgD5G1SiMVIz6U","tide",false]`,
		"csv-parse":        `[{"a":"1","b":"x,\ny"}]`,
		"mime-types":       `["image/svg+xml","text/html; charset=utf-8"]`,
		"object-hash":      `"d31f3e67cf40e12762d93d93ab0bc601e2d5136d"`,
	} {
		t.Run(name, func(t *testing.T) { askFor(t, h, "nodejs", "/"+name, []string{want}) })
	}
}

// uuidOfExample is the version 5 UUID of bulkhead.example among DNS names; Python's uuid module says the same.
const uuidOfExample = "f9884b72-ccdf-5dd3-a20a-2af262a3bb03"

func askFor(t *testing.T, h *hosttest.Host, tenant, path string, want []string) {
	t.Helper()
	req, err := http.NewRequest("GET", "http://"+tenant+".localhost"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := h.Send(req)
	if err != nil || a.Status != 200 || a.Outcome != "" {
		t.Fatalf("%v: %d %s %.500s", err, a.Status, a.Outcome, a.Body)
	}
	for _, w := range want {
		if !strings.Contains(a.Body, w) {
			t.Errorf("no %s in %.500s", w, a.Body)
		}
	}
}
