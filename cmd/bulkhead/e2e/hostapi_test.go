package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bulkhead/securitytests/hosttest"
)

// socketDir is a directory for a unix socket: t.TempDir's path may be too long for one.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bhapi")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// service listens at network and address and tells callers what it heard of them.
func service(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	if network == "unix" {
		if err := os.Chmod(address, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	s := &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
			return
		}
		body, _ := io.ReadAll(r.Body)
		ours := map[string][]string{}
		for n, v := range r.Header {
			if strings.HasPrefix(strings.ToLower(n), "bulkhead") {
				ours[n] = v
			}
		}
		json.NewEncoder(w).Encode(map[string]any{"ours": ours, "uri": r.RequestURI, "host": r.Host, "body": string(body), "mine": r.Header.Get("x-mine")})
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l
}

const asker = `export default { async fetch(request, env) {
	const u = new URL(request.url), at = u.searchParams.get("at") ?? "http://x/p?q";
	try {
		if (u.pathname === "/method") return Response.json(await env.API.items());
		if (u.pathname === "/socket") return await env.API.fetch(at, { headers: { upgrade: "websocket" } });
		const a = await env.API.fetch(at, { method: "POST", body: "hi",
			headers: { "bulkhead-tenant": "root", bulkhead_tenant: "root", "BULKHEAD-Limits": "none", "bulkhead.request-id": "x", "x-mine": "kept", ...JSON.parse(u.searchParams.get("h") ?? "{}") } });
		return new Response(a.body, a);
	} catch (e) { return new Response(e.message, { status: 418 }); }
} };`

func asks(api string) hosttest.Files {
	return hosttest.Files{"bulkhead.yaml": "main: worker.js\nhostApis: [{binding: API, api: " + api + "}]\n", "worker.js": asker}
}

// A host API is called by permitted tenants only, knows each by the gateway's word, and is dialled where
// the policy says: by unix socket and by TCP, as root and rootless.
func TestHostAPIs(t *testing.T) {
	for _, rootless := range []bool{false, true} {
		t.Run(fmt.Sprintf("rootless=%v", rootless), func(t *testing.T) {
			top, dir := t, socketDir(t)
			sock := filepath.Join(dir, "http.sock")
			l := service(t, "unix", sock)
			tcp := service(t, "tcp", "127.0.0.1:0").Addr().String()
			doc := func(forbid string) string {
				return strings.Replace("hostApis:\n  inventory: {address: \"unix:"+sock+"\"}\n  billing: {address: \"http://"+tcp+"\"}\n"+
					"tenants:\n  one: {hostApis: [inventory]}\n  two: {hostApis: [inventory]}\n  three: {hostApis: [billing]}\n", forbid, "", 1)
			}
			h := hosttest.Start(t, hosttest.Options{Rootless: rootless, Policy: doc("(nothing)"), Tenants: map[string]hosttest.Files{
				"one": asks("inventory"), "two": asks("inventory"), "three": asks("billing"), "stranger": asks("inventory"), "lost": asks("nothing"),
				"unasked": hosttest.Worker(asker),
			}})
			for tenant, host := range map[string]string{"one": "inventory", "two": "inventory", "three": tcp} {
				a := h.Get(tenant, "/?at=https://10.9.8.7/p%3fq")
				var got struct {
					Ours                  map[string][]string
					URI, Host, Body, Mine string
				}
				if err := json.Unmarshal([]byte(a.Body), &got); err != nil {
					t.Fatalf("%s: %d %s", tenant, a.Status, a.Body)
				}
				id := a.Header.Get("bulkhead-request-id")
				if len(got.Ours) != 3 || len(got.Ours["Bulkhead-Tenant"]) != 1 || got.Ours["Bulkhead-Tenant"][0] != tenant || id == "" ||
					got.Ours["Bulkhead-Request-Id"][0] != id || !strings.Contains(got.Ours["Bulkhead-Limits"][0], "memory-bytes=134217728") {
					t.Errorf("%s, request %s: %v", tenant, id, got.Ours)
				}
				if got.URI != "/p?q" || got.Host != host || got.Body != "hi" || got.Mine != "kept" {
					t.Errorf("%s: %+v", tenant, got)
				}
			}
			for _, c := range []struct{ tenant, path, want string }{
				{"stranger", "/", "there is none of this name that stranger may use"},
				{"lost", "/", "there is none of this name that lost may use"},
				{"unasked", "/", "fetch"}, // there is nothing in its env
				{"one", "/method", "it is a web API and has no methods"},
			} {
				var a hosttest.Answer
				hosttest.Eventually(t, 10*time.Second, c.tenant+" is built", func() bool { a = h.Get(c.tenant, c.path); return a.Outcome != "notLoaded" })
				if a.Status != 418 || !strings.Contains(a.Body, c.want) {
					t.Errorf("%s%s: %d %s", c.tenant, c.path, a.Status, a.Body)
				}
			}
			if a := h.Get("one", "/socket"); a.Status != 200 { // the field is not the worker's to send: a plain request
				t.Errorf("asked for a WebSocket: %d %s", a.Status, a.Body)
			}
			if a := h.Get("one", "/?at=http://x/away"); a.Status != 302 {
				t.Errorf("a redirect: %d %s", a.Status, a.Body)
			}

			t.Run("metered", func(t *testing.T) {
				var list []struct {
					Tenant   string
					HostAPIs []struct {
						API       string
						Requests  int
						Results   map[string]int
						SentBytes int
					}
				}
				if err := h.AdminGet("/v1/tenants", &list); err != nil {
					t.Fatal(err)
				}
				for _, e := range list {
					want := map[string]int{"one": 3, "two": 1, "three": 1}[e.Tenant]
					if want == 0 && len(e.HostAPIs) > 0 || want > 0 && (len(e.HostAPIs) != 1 || e.HostAPIs[0].Results["done"] != want || e.HostAPIs[0].SentBytes != 2*min(want, 2)) {
						t.Errorf("%+v", e)
					}
				}
				var metrics string
				if err := h.AdminGet("/v1/metrics", &metrics); err != nil || !strings.Contains(metrics, `bulkhead_host_api_requests_total{api="billing",result="done",tenant="three"} 1`) {
					t.Errorf("%v: not among the metrics", err)
				}
			})

			t.Run("the service starts again", func(t *testing.T) {
				l.Close() // and its socket is gone
				service(top, "unix", sock)
				hosttest.Eventually(t, 10*time.Second, "it is reached by its new socket", func() bool { return h.Get("two", "/").Status == 200 })
			})

			t.Run("permission is taken back while it runs", func(t *testing.T) {
				path := filepath.Join(filepath.Dir(h.Data), "config", "policy.yaml")
				if err := os.WriteFile(path, []byte(doc("  one: {hostApis: [inventory]}\n")), 0o644); err != nil {
					t.Fatal(err)
				}
				if err := h.AdminPost("/v1/policy/reload"); err != nil {
					t.Fatal(err)
				}
				if a := h.Get("one", "/"); a.Status != 418 || !strings.Contains(a.Body, "there is none of this name that one may use") {
					t.Errorf("%d %s", a.Status, a.Body)
				}
				if a := h.Get("two", "/"); a.Status != 200 {
					t.Errorf("%d %s", a.Status, a.Body)
				}
				elsewhere := strings.Replace(doc("(nothing)"), dir, "/srv/elsewhere", 1)
				if err := os.WriteFile(path, []byte(elsewhere), 0o644); err != nil {
					t.Fatal(err)
				}
				if err := h.AdminPost("/v1/policy/reload"); err == nil || !strings.Contains(err.Error(), "/srv/elsewhere") {
					t.Errorf("a directory that is not in the gateway's room: %v", err)
				}
			})
		})
	}
}
