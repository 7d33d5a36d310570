package policy

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"bulkhead/policy/doctree"
)

// HostAPI is one web API of the operator's own platform that workers may call as env.NAME.fetch().
type HostAPI struct {
	// Address is where it listens: unix:/PATH or http://IP:PORT; see ParseHostAddress.
	Address    string
	Concurrent int           // requests of one tenant open at once
	Timeout    time.Duration // from a request's last byte to the head of its response
}

// HostAddress is a parsed HostAPI.Address: one of the two is set.
type HostAddress struct {
	Unix string         // absolute path of a socket
	TCP  netip.AddrPort // loopback or private
}

// MaxSocketDirs bounds the directories in which unix sockets of host APIs may lie: each is a mount in the
// gateway's room.
const MaxSocketDirs = 4

// maxSocketName keeps the socket's path inside the gateway's room below sun_path (108 bytes, unix(7)).
const maxSocketName = 80

// sharedDirs hold other things than one service's sockets. The gateway is shown the whole directory,
// because a service that starts again makes its socket anew.
var sharedDirs = [...]string{"/", "/run", "/var/run", "/tmp", "/var/tmp", "/dev", "/dev/shm", "/var", "/etc", "/home", "/root", "/var/lib", "/run/user"}

// ParseHostAddress reads the address of a host API. It is dialled as it stands: names are not resolved, so
// nobody who answers for names has a say in it. TCP is for this machine and its private networks, since
// what is said there is not encrypted.
func ParseHostAddress(s string) (HostAddress, error) {
	if p, ok := strings.CutPrefix(s, "unix:"); ok {
		dir, name := path.Split(p)
		switch {
		case !strings.HasPrefix(p, "/") || path.Clean(p) != p || strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return HostAddress{}, fmt.Errorf("%q is no absolute path of a socket, such as unix:/run/inventory/http.sock", doctree.Printable(s))
		case slices.Contains(sharedDirs[:], path.Clean(dir)):
			return HostAddress{}, fmt.Errorf("%q lies in a directory of other things, which the gateway would be shown as well; give the socket a directory of its own, such as unix:/run/inventory/http.sock", doctree.Printable(s))
		case len(name) > maxSocketName:
			return HostAddress{}, fmt.Errorf("the socket's name has %d bytes, at most %d", len(name), maxSocketName)
		}
		return HostAddress{Unix: p}, nil
	}
	rest, ok := strings.CutPrefix(s, "http://")
	if !ok {
		return HostAddress{}, fmt.Errorf("%q is no address of a host API: unix:/PATH or http://IP:PORT", doctree.Printable(s))
	}
	ap, err := netip.ParseAddrPort(strings.Replace(strings.TrimSuffix(rest, "/"), "localhost:", "127.0.0.1:", 1))
	if a := ap.Addr(); err != nil || ap.Port() == 0 || a.Zone() != "" || a.Is4In6() || !a.IsLoopback() && !a.IsPrivate() {
		return HostAddress{}, fmt.Errorf("%q must be http://IP:PORT with an address of this machine or of a private network, such as http://127.0.0.1:9000: what is sent there is not encrypted and says who the tenant is", doctree.Printable(s))
	}
	return HostAddress{TCP: ap}, nil
}

// HostAPIFor returns the API of this name if the tenant is permitted to use it.
func (p *Policy) HostAPIFor(tenant, name string) (HostAPI, bool) {
	api, ok := p.HostAPIs[name]
	return api, ok && slices.Contains(p.settings(tenant).hostAPIs, name)
}

// SocketDirs lists the directories of host APIs' sockets, sorted.
func (p *Policy) SocketDirs() []string {
	var dirs []string
	for _, api := range p.HostAPIs {
		if a, err := ParseHostAddress(api.Address); err == nil && a.Unix != "" {
			dirs = append(dirs, path.Dir(a.Unix))
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

func (r *reader) hostAPI(a *HostAPI) []field {
	address := rule{schema: map[string]any{"type": "string", "pattern": `^(unix:/|http://)`}, show: func() string { return strconv.Quote(a.Address) }}
	address.set = func(name string, n *doctree.Node) {
		if n.Kind != doctree.String {
			r.fail(n.Pos, "%s must be unix:/PATH or http://IP:PORT, not %s", name, n.Kind)
			return
		}
		if _, err := ParseHostAddress(n.Text); err != nil {
			r.fail(n.Pos, "%s: %v", name, err)
			return
		}
		a.Address = n.Text
	}
	return []field{
		{"address", address},
		{"concurrent", r.count(&a.Concurrent, 1, 1024)},
		{"timeout", r.duration(&a.Timeout, time.Millisecond, time.Hour)},
	}
}

func (r *reader) hostAPIs(n *doctree.Node) {
	r.named(n, "hostApis", func(key string, f doctree.Field) {
		before := len(r.errs)
		a := HostAPI{Concurrent: 64, Timeout: 30 * time.Second}
		r.fields(key, f.Value, r.hostAPI(&a))
		if a.Address == "" && len(r.errs) == before {
			r.fail(f.Pos, "%s has no address: unix:/PATH or http://IP:PORT of the service", key)
		}
		if r.p.HostAPIs == nil {
			r.p.HostAPIs = map[string]HostAPI{}
		}
		r.p.HostAPIs[f.Key] = a
	})
	if dirs := r.p.SocketDirs(); len(dirs) > MaxSocketDirs {
		r.fail(n.Pos, "hostApis: sockets in %d directories, at most %d; put several into one", len(dirs), MaxSocketDirs)
	}
}

// hostAPINames reads which of the declared APIs tenants may use.
func (r *reader) hostAPINames(dst *[]string) rule {
	schema := list(map[string]any{"type": "string"})
	return rule{schema: schema, show: func() string { return quoted(*dst) }, set: func(name string, n *doctree.Node) {
		var list []string
		if r.texts(name, n, "names that hostApis declares", func(at doctree.Pos, s string) {
			if _, ok := r.p.HostAPIs[s]; !ok {
				known := make([]string, 0, len(r.p.HostAPIs))
				for k := range r.p.HostAPIs {
					known = append(known, k)
				}
				slices.Sort(known)
				hint := doctree.Suggest(s, known)
				if hint == "" {
					hint = "; declare it at the top: hostApis: {" + doctree.Printable(s) + ": {address: unix:/PATH}}"
				}
				r.fail(at, "%s: no host API %q%s", name, doctree.Printable(s), hint)
			} else if !slices.Contains(list, s) {
				list = append(list, s)
			}
		}) {
			slices.Sort(list)
			*dst = list
		}
	}}
}
