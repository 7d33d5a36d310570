package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestHostAddresses(t *testing.T) {
	for _, good := range []string{
		"unix:/run/inventory/http.sock", "unix:/srv/a b/x", "http://127.0.0.1:9000", "http://localhost:9000", "http://[::1]:80/", "http://10.1.2.3:8080", "http://[fd00::1]:81",
	} {
		if _, err := ParseHostAddress(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "unix:", "unix:x.sock", "unix:/", "unix:/x.sock", "unix:/run/x.sock", "unix:/tmp/x.sock", "unix:/var/lib/x", "unix:/srv/../run/x.sock", "unix:/srv/a//b", "unix:/srv/a/", "unix:@abstract",
		"unix:/srv/a/\x00b", "unix:/srv/a/" + strings.Repeat("x", 81),
		"http://127.0.0.1", "http://127.0.0.1:0", "http://127.0.0.1:99999", "http://8.8.8.8:80", "http://0.0.0.0:80", "http://169.254.169.254:80", "http://[::ffff:127.0.0.1]:80", "http://[fe80::1%eth0]:80",
		"http://api.example:80", "http://127.0.0.1:80/path", "http://u@127.0.0.1:80", "https://127.0.0.1:443", "tcp:127.0.0.1:80", "http://evil.localhost:80", "http://127.1:80",
	} {
		if a, err := ParseHostAddress(bad); err == nil {
			t.Errorf("%q was taken as %+v", bad, a)
		}
	}
}

const hostAPIDoc = `hostApis:
  inventory: {address: "unix:/run/inventory/http.sock", concurrent: 5}
  billing: {address: "http://127.0.0.1:9000", timeout: 2s}
labels: {premium: [shop]}
tenants:
  "acme-*": {hostApis: [inventory]}
  label:premium: {hostApis: [billing, inventory]}
  acme-none: {hostApis: []}
`

func TestHostAPIs(t *testing.T) {
	p, err := Parse("p.yaml", []byte(hostAPIDoc))
	if err != nil {
		t.Fatal(err)
	}
	for tenant, want := range map[string][]string{"acme-1": {"inventory"}, "shop": {"billing", "inventory"}, "acme-none": nil, "other": nil} {
		var got []string
		for _, name := range []string{"billing", "inventory", "missing"} {
			if _, ok := p.HostAPIFor(tenant, name); ok {
				got = append(got, name)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s may use %v, want %v", tenant, got, want)
		}
	}
	if a, _ := p.HostAPIFor("acme-1", "inventory"); a.Concurrent != 5 || a.Timeout != 30e9 {
		t.Errorf("%+v", a)
	}
	if d := p.SocketDirs(); !slices.Equal(d, []string{"/run/inventory"}) {
		t.Errorf("socket directories %v", d)
	}
	again, err := Parse("again.yaml", p.YAML())
	if err != nil || again.Hash() != p.Hash() {
		t.Errorf("written and read again: %v\n%s", err, p.YAML())
	}
	values := map[string]Value{}
	for _, v := range p.Explain("acme-1") {
		values[v.Key] = v
	}
	if v := values["hostApis"]; v.Value != `["inventory"]` || v.From != "p.yaml:6, tenants.acme-*" {
		t.Errorf("%+v", v)
	}
	if v := values["hostApis.inventory.address"]; v.Value != `"unix:/run/inventory/http.sock"` || v.From != "p.yaml:2, hostApis.inventory.address" {
		t.Errorf("%+v", v)
	}
	without, err := Parse("p.yaml", []byte(strings.Replace(hostAPIDoc, "[inventory]", "[]", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if d := p.Diff(without, "acme-1"); len(d.Changes) != 1 || d.Changes[0].Key != "hostApis" || d.Renewed {
		t.Errorf("%+v", d)
	}
	other, err := Parse("p.yaml", []byte(strings.Replace(hostAPIDoc, "9000", "9001", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if d := p.DiffHost(other); len(d) != 1 || d[0].Key != "hostApis.billing.address" || other.Hash() == p.Hash() {
		t.Errorf("%+v", d)
	}
}

func TestHostAPIMistakes(t *testing.T) {
	for doc, want := range map[string]string{
		"hostApis: {a: {}}":                                "p.yaml:1:12: hostApis.a has no address",
		"hostApis: {a: {address: 'unix:/run/x.sock'}}":     "give the socket a directory of its own",
		"hostApis: {a: {address: 5}}":                      "must be unix:/PATH or http://IP:PORT",
		"hostApis: {a: {url: x}}":                          `"hostApis.a" has no key "url"`,
		"hostApis: {A_B: {address: 'unix:/run/x/x.sock'}}": "cannot be a name",
		"tenants: {t: {hostApis: [inventory]}}":            "declare it at the top",
		"hostApis: {billing: {address: 'http://[::1]:1'}}\ntenants: {t: {hostApis: [biling]}}":                                                                        `"billing"`,
		"hostApis: {a: {address: 'unix:/a/1/s'}, b: {address: 'unix:/a/2/s'}, c: {address: 'unix:/a/3/s'}, d: {address: 'unix:/a/4/s'}, e: {address: 'unix:/a/5/s'}}": "sockets in 5 directories",
	} {
		if _, err := Parse("p.yaml", []byte(doc)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", doc, err, want)
		}
	}
}
