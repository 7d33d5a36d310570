package egress

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	rules "bulkhead/policy/egress"
)

// hostile destinations: each is asked for directly and by a redirect of an allowed upstream. PORT is a
// canary's on 127.0.0.1, which counts who comes.
var hostile = []struct{ url, message string }{
	// Loopback, by every notation.
	{"http://127.0.0.1:PORT/", "a loopback address"},
	{"http://127.0.0.1:PORT", "a loopback address"},
	{"http://127.1.2.3:PORT/", "a loopback address"},
	{"http://127.255.255.254/", "a loopback address"},
	{"http://localhost:PORT/", "a loopback address"},
	{"http://LOCALHOST:PORT/", "a loopback address"},
	{"http://localhost.:PORT/", "localhost"},
	{"http://127.1:PORT/", "no host name or address"},
	{"http://127.0.1:PORT/", "no host name or address"},
	{"http://2130706433:PORT/", "no host name or address"},
	{"http://017700000001:PORT/", "no host name or address"},
	{"http://0177.0.0.1:PORT/", "no host name or address"},
	{"http://0177.0.0.01:PORT/", "no host name or address"},
	{"http://0x7f000001:PORT/", "no host name or address"},
	{"http://0x7f.1:PORT/", "no host name or address"},
	{"http://0x7F.0x0.0x0.0x1:PORT/", "no host name or address"},
	{"http://127.0.0.1.:PORT/", "127.0.0.1"},
	{"http://127.0.0.01:PORT/", "no host name or address"},
	{"http://0:PORT/", "no host name or address"},
	{"http://0.0.0.0:PORT/", "the unspecified address"},
	{"http://0.1.2.3:PORT/", "the unspecified address"},
	{"http://[::1]:PORT/", "a loopback address"},
	{"http://[0:0:0:0:0:0:0:1]:PORT/", "a loopback address"},
	{"http://[::]:PORT/", "the unspecified address"},
	{"http://[::ffff:127.0.0.1]:PORT/", "an IPv4-mapped address"},
	{"http://[::ffff:7f00:1]:PORT/", "an IPv4-mapped address"},
	{"http://[0:0:0:0:0:FFFF:7F00:0001]:PORT/", "an IPv4-mapped address"},
	{"http://[::ffff:0:127.0.0.1]:PORT/", "an IPv4-translated address"},
	{"http://[::127.0.0.1]:PORT/", "an IPv4-compatible address"},
	{"http://[64:ff9b::127.0.0.1]:PORT/", "a NAT64 address"},
	{"http://[64:ff9b:1::7f00:1]:PORT/", "a NAT64 address"},
	{"http://[2002:7f00:1::]:PORT/", "a 6to4 address"},
	{"http://[2001:0:7f00:1::]:PORT/", "a Teredo address"},
	{"http://[fe80::1%25lo]:PORT/", "no URL"},
	{"http://[fe80::1]:PORT/", "a link-local address"},
	// Inside.
	{"http://10.0.0.1/", "10.0.0.1:80 is a private address (egress rule: public only)"},
	{"http://172.16.0.1/", "a private address"},
	{"http://172.31.255.255/", "a private address"},
	{"http://192.168.1.1:8080/", "a private address"},
	{"https://10.0.0.1/", "10.0.0.1:443 is a private address"},
	{"http://167772161/", "no host name or address"},
	{"http://[fd00::1]/", "a unique local address"},
	{"http://[fec0::1]/", "a site-local address"},
	{"http://[::ffff:10.0.0.1]/", "an IPv4-mapped address"},
	{"http://[::ffff:8.8.8.8]/", "an IPv4-mapped address"},
	{"http://[64:ff9b::8.8.8.8]/", "a NAT64 address"},
	{"http://[2002:808:808::1]/", "a 6to4 address"},
	// Metadata services.
	{"http://169.254.169.254/latest/meta-data/", "a link-local address"},
	{"http://[::ffff:169.254.169.254]/", "an IPv4-mapped address"},
	{"http://[fd00:ec2::254]/", "a unique local address"},
	{"http://100.100.100.200/", "a shared address"},
	{"http://168.63.129.16/", "metadata service"},
	{"http://192.0.0.192/", "an address of protocol assignments"},
	{"http://2852039166/", "no host name or address"},
	{"http://0xA9FEA9FE/", "no host name or address"},
	{"http://metadata.test/", "metadata.test resolves to a link-local address"},
	// Other ranges.
	{"http://100.64.0.1/", "a shared address"},
	{"http://198.18.0.1/", "a benchmarking address"},
	{"http://192.0.2.1/", "a documentation address"},
	{"http://192.88.99.1/", "6to4 relays"},
	{"http://224.0.0.1/", "a multicast address"},
	{"http://240.0.0.1/", "a reserved address"},
	{"http://255.255.255.255/", "the broadcast address"},
	{"http://[ff02::1]/", "a multicast address"},
	{"http://[100::1]/", "a discard-only address"},
	{"http://[2001:db8::1]/", "a documentation address"},
	{"http://[4000::1]/", "a reserved address"},
	// Names.
	{"http://loop.test:PORT/", "loop.test resolves to a loopback address"},
	{"http://loop6.test:PORT/", "a loopback address"},
	{"http://mapped.test:PORT/", "a loopback address"},
	{"http://private.test/", "private.test resolves to a private address"},
	{"http://mixed.test:PORT/", "mixed.test resolves to a"},
	{"http://many.test:PORT/", "a loopback address"},
	{"http://PRIVATE.TEST./", "resolves to a private address"},
	{"http://nat64.test/", "a NAT64 address"},
	{"http://xn--fiqs8s.test/", "no such host"},
	{"http://127.0.0.1.nip.test:PORT/", "a loopback address"},
	// Ports and forms.
	{"http://ok.test:22/", "on port 22"},
	{"http://1.1.1.1:25/", "on port 25"},
	{"http://1.1.1.1:6667/", "on port 6667"},
	{"http://1.1.1.1:81/", "on port 81"},
	{"http://1.1.1.1:0/", "no URL"},
	{"http://1.1.1.1:65616/", "no URL"},
	{"http://1.1.1.1:-80/", "no URL"},
	{"http://127.0.0.1:PORT\\@ok.test/", "a loopback address"},
	{"http://ok.test%2f@127.0.0.1/", "no URL"},
	{"http://%31%32%37.0.0.1:PORT/", "no URL"},
	{"http://127.0.0.1%00.ok.test/", "no URL"},
	{"http://[::1/", "no URL"},
	{"http://[::1]x:PORT/", "no URL"},
	{"http://denied.test/", "denied.test is a denied upstream (egress rule: deny)"},
	{"http://sub.denied.test/", "a denied upstream"},
	{"http://deniedaddr.test/", "a denied address"},
}

func TestHostileDestinations(t *testing.T) {
	var visits atomic.Int32
	canary := serve(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) { visits.Add(1) })
	_, port, _ := net.SplitHostPort(canary)
	w := newWorld(t, func(r *rules.Rules) {
		r.Deny = []string{"denied.test", "*.denied.test", "127.0.0.9"}
		r.Allow = append(r.Allow, "127.0.0.9")
	}, Options{})
	w.dns.set("loop.test", "127.0.0.1")
	w.dns.set("loop6.test", "::1")
	w.dns.set("mapped.test", "::ffff:127.0.0.1")
	w.dns.set("private.test", "10.1.2.3")
	w.dns.set("mixed.test", "10.1.2.3", "192.168.0.1", "fd00::1", "::1")
	w.dns.set("many.test", "127.0.0.1", "127.0.0.1", "127.0.0.3", "127.0.0.4", "::1")
	w.dns.set("metadata.test", "169.254.169.254")
	w.dns.set("nat64.test", "64:ff9b::a00:1")
	w.dns.set("127.0.0.1.nip.test", "127.0.0.1")
	w.dns.set("ok.test", "1.1.1.1")
	w.dns.set("denied.test", good)
	w.dns.set("sub.denied.test", good)
	w.dns.set("deniedaddr.test", "127.0.0.9")
	var location atomic.Pointer[string]
	redirector := serve(t, good, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Location"] = []string{*location.Load()}
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	if len(hostile) < 60 {
		t.Fatalf("only %d destinations", len(hostile))
	}
	check := func(how, url, want string, x *exchange) {
		t.Helper()
		if x.answer != nil || x.failed == "" {
			t.Errorf("%s %s was answered: %+v", how, url, x.answer)
		} else if !strings.Contains(x.failed, want) && !(how == "redirect" && strings.Contains(x.failed, "redirects to")) {
			t.Errorf("%s %s: %q, want %q", how, url, x.failed, want)
		}
	}
	for _, h := range hostile {
		url := strings.ReplaceAll(h.url, "PORT", port)
		check("direct", url, h.message, w.get(url))
		location.Store(&url)
		check("redirect", url, h.message, w.get("http://"+redirector+"/"))
	}
	for _, url := range []string{"ftp://ok.test/", "file:///etc/passwd", "unix:///run/x.sock", "http+unix://x/", "javascript:1", "//127.0.0.1:" + port + "/", "http://u:p@127.0.0.1:" + port + "/", "gopher://ok.test/"} {
		location.Store(&url)
		if x := w.get("http://" + redirector + "/"); x.answer != nil || x.failed == "" {
			t.Errorf("redirect to %s was answered", url)
		}
	}
	if n := visits.Load(); n != 0 {
		t.Errorf("%d requests reached what was refused", n)
	}
	if !strings.Contains(w.log.String(), `egress refused`) || !strings.Contains(w.log.String(), "127.0.0.1:"+port) {
		t.Error("the operator was not told")
	}
	t.Logf("%d destinations refused, each directly and through a redirect; the canary had %d visits", len(hostile), visits.Load())
}

// A name server that answers with an allowed address first and with a refused one the next time.
func TestRebinding(t *testing.T) {
	var visits, allowed atomic.Int32
	canary := serve(t, "127.0.0.1", func(http.ResponseWriter, *http.Request) { visits.Add(1) })
	_, port, _ := net.SplitHostPort(canary)
	l, err := net.Listen("tcp", net.JoinHostPort(good, port))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { allowed.Add(1); w.Header().Set("Connection", "close") })}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	w := newWorld(t, nil, Options{})
	w.dns.setFunc("rebind.test", func(asked int) []netip.Addr {
		if asked%2 == 0 {
			return []netip.Addr{netip.MustParseAddr(good)}
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	})
	w.dns.setFunc("both.test", func(asked int) []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr(good)}
	})
	for i := range 10 {
		x := w.get(fmt.Sprintf("http://rebind.test:%s/", port))
		if (i%2 == 0) != (x.answer != nil) {
			t.Errorf("request %d: %+v %q", i, x.answer, x.failed)
		}
		if x := w.get(fmt.Sprintf("http://both.test:%s/", port)); x.answer == nil {
			t.Errorf("the allowed one of two addresses was not tried: %q", x.failed)
		}
	}
	if visits.Load() != 0 || allowed.Load() != 15 {
		t.Errorf("%d visits to the refused address, %d to the allowed one", visits.Load(), allowed.Load())
	}
}

// A connection that an old policy allowed is not used under a new one that does not.
func TestNewPolicyNewConnections(t *testing.T) {
	addr := serve(t, good, func(http.ResponseWriter, *http.Request) {})
	w := newWorld(t, nil, Options{})
	if x := w.get("http://" + addr + "/"); x.answer == nil {
		t.Fatal(x.failed)
	}
	w.setRules(func(r *rules.Rules) { r.Allow = nil })
	if x := w.get("http://" + addr + "/"); x.answer != nil || !strings.Contains(x.failed, "loopback") {
		t.Errorf("%+v %q", x.answer, x.failed)
	}
}

// Tenants share no connection, and a tenant reuses its own.
func TestConnectionsArePartitioned(t *testing.T) {
	var conns atomic.Int32
	l, err := net.Listen("tcp", good+":0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	w := newWorld(t, nil, Options{})
	for range 5 {
		for _, tenant := range []string{"a", "b", "c"} {
			x := &exchange{ctx: t.Context()}
			w.Serve(tenant, Request{Method: "GET", URL: "http://" + l.Addr().String() + "/"}, x)
			if x.answer == nil {
				t.Fatal(x.failed)
			}
		}
	}
	if n := conns.Load(); n != 3 {
		t.Errorf("%d connections for 3 tenants of 5 requests each", n)
	}
}

func TestProxiesOfTheEnvironment(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1/")
	t.Setenv("http_proxy", "http://127.0.0.1:1/")
	t.Setenv("ALL_PROXY", "socks5://127.0.0.1:1/")
	addr := serve(t, good, func(http.ResponseWriter, *http.Request) {})
	w := newWorld(t, nil, Options{})
	if x := w.get("http://" + addr + "/"); x.answer == nil {
		t.Error(x.failed)
	}
}
