package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bulkhead/securitytests/hosttest"
)

// cacher does with its caches what it is asked for.
const cacher = `
const key = "http://key.example/page";
const put = (c, body, init, request = key) => c.put(request, new Response(body, init));
const get = async (c, request = key, o = undefined) => { const r = await c.match(request, o); return r === undefined ? "none" : await r.text(); };
const fails = async (f) => { try { await f(); return "nothing"; } catch (e) { return e.name + ": " + e.message; } };
const tests = {
	put: async (u) => { await put(caches.default, u.searchParams.get("v")); return "ok"; },
	get: () => get(caches.default),
	all: async () => {
		const c = caches.default, n = await caches.open("n\u00e9 a"), out = {};
		out.before = [await c.match(key), await get(n)];
		await put(c, "d"); await put(n, "n", { status: 404, statusText: "G\u00f6ne", headers: { "x-a": "\u00e9", age: "3", vary: "accept" } });
		const r = await (await caches.open("n\u00e9 a")).match(key);
		out.both = [await get(c), r.status, r.statusText, r.headers.get("x-a"), r.headers.get("age"), r.headers.get("content-length"), r.url, await r.text(), r.headers.get("content-type")];
		out.vary = [await get(n, new Request(key, { headers: { accept: "b" } })), await get(n, key + "#fragment")];
		out.post = [await get(c, new Request(key, { method: "POST", body: "x" })), await get(c, new Request(key, { method: "POST" }), { ignoreMethod: true })];
		out.deleted = [await c.delete(new Request(key, { method: "HEAD" })), await c.delete(key), await c.delete(key), await get(c), await get(n)];
		await put(c, null, { status: 204 });
		const empty = await c.match(key);
		out.empty = [empty.status, empty.body, await n.delete(key), await c.delete(key)];
		out.unkept = [];
		for (const headers of [{ "cache-control": "no-store" }, { "cache-control": "max-age=0" }, { "set-cookie": "a" }, { expires: "0" }]) { await put(c, "x", { headers }); out.unkept.push(await get(c)); }
		await put(c, "x", { headers: { "set-cookie": "a", "cache-control": "private=set-cookie" } }); out.cookie = [await get(c), await c.delete(key)];
		return JSON.stringify(out);
	},
	refused: async () => {
		const c = caches.default, out = [];
		for (const f of [
			() => put(c, "x", {}, new Request(key, { method: "POST" })), () => put(c, "x", { status: 206 }), () => put(c, "x", { headers: { vary: "a, *" } }), () => c.put(key, Response.error()),
			() => c.put(key, {}), () => c.put(key), () => put(c, "x", {}, "ftp://a/"), () => put(c, "x", {}, "no url"), () => c.match({ toString() { throw new RangeError("mine"); } }), () => c.match(key, 5),
			() => c.match(key, { get ignoreMethod() { throw new RangeError("mine"); } }), () => caches.open("x".repeat(513)), () => caches.open(Symbol()), () => put(c, "x", {}, "http://a/" + "x".repeat(20000)),
			() => put(c, "x", { headers: { a: "x".repeat(70000) } }), async () => { const r = new Response("x"); await r.text(); await c.put(key, r); }, () => c.match.call({}, key), () => c.match.call(Object.create(c), key),
			() => put(c, new ReadableStream({ pull(k) { k.error(new Error("tap")); } })), () => c.addAll([key, new Request(key, { method: "PUT" })]), () => c.addAll(5),
		]) out.push(await fails(f));
		return JSON.stringify(out);
	},
	large: async () => { // streamed in and out, 3 MB at a time; then too large; then a megabyte of many more
		const c = caches.default, chunk = new Uint8Array(65536).fill(7), stream = (n) => new ReadableStream({ pull(k) { if (n-- > 0) k.enqueue(chunk.slice()); else k.close(); } });
		await put(c, stream(48));
		const first = await c.match(key), back = first ? await first.bytes() : [];
		const other = new Request("http://other.example/");
		await put(c, stream(80), {}, other);
		let kept = 0;
		for (let i = 0; i < 24; i++) await put(c, chunk.slice(0, 60000), {}, "http://many.example/" + i);
		for (let i = 0; i < 24; i++) if (await c.match("http://many.example/" + i)) kept++;
		return JSON.stringify([back.length, back.every((x) => x === 7), await get(c, other), kept]);
	},
	unread: async () => { // matches that nobody reads end with the invocation
		for (let i = 0; i < 40; i++) await caches.default.match(key);
		return "ok";
	},
	clock: async () => { // stands still but for the answers themselves
		await put(caches.default, "x");
		const a = Date.now(), before = [];
		for (let i = 0; i < 1e5; i++) if (Date.now() !== a) return "it moved";
		const r = await caches.default.match(key), b = Date.now();
		for (let i = 0; i < 1e5; i++) if (Date.now() !== b || r.headers.get("age") !== "0") return "it moved";
		return "ok";
	},
	many: async () => { let n = 0; try { for (;; n++) await caches.default.match(key); } catch (e) { return n + " " + e.message; } },
	later: async (u, ctx) => { ctx.waitUntil(put(caches.default, "later")); return "ok"; },
	patched: async () => {
		Promise.prototype.then = Array.prototype.push = String.prototype.toLowerCase = globalThis.encodeURIComponent = () => { throw new Error("patched"); };
		const c = await caches.open("p");
		await put(c, "p", { headers: { vary: "accept" } });
		return await get(c);
	},
};
export default { async fetch(request, env, ctx) {
	const u = new URL(request.url), f = tests[u.pathname.slice(1)];
	if (f) return new Response(await f(u, ctx));
	return new Response("b:" + ("caches" in globalThis));
} };`

// The Cache API keeps each tenant's responses apart and within their bounds, as root and rootless.
func TestCacheAPI(t *testing.T) {
	for _, rootless := range []bool{false, true} {
		t.Run(fmt.Sprintf("rootless=%v", rootless), func(t *testing.T) {
			h := hosttest.Start(t, hosttest.Options{Rootless: rootless,
				Policy:  "suspicion: {enabled: false}\nlimits: {cpu: 5s}\ntenants:\n  few: {limits: {cacheEntries: 3, cacheBytes: 512KiB, cacheEntry: 256KiB, subrequests: 100}}\n  none: {limits: {cacheEntries: 0, cacheBytes: 0}}\n",
				Tenants: map[string]hosttest.Files{"one": hosttest.Worker(cacher), "two": hosttest.Worker(cacher), "few": hosttest.Worker(cacher), "none": hosttest.Worker(cacher)}})
			is := func(tenant, path, want string) {
				t.Helper()
				if a := h.Get(tenant, path); a.Status != 200 || a.Body != want {
					var log string
					_ = h.AdminGet("/v1/logs/"+tenant, &log)
					t.Errorf("%s%s: %d %.300s\nwant %.300s\n%s", tenant, path, a.Status, a.Body, want, log)
				}
			}
			is("one", "/get", "none")
			is("one", "/put?v=ours", "ok")
			is("one", "/get", "ours")
			is("two", "/get", "none")
			is("two", "/put?v=theirs", "ok")
			is("one", "/get", "ours")
			is("one", "/later", "ok")
			hosttest.Eventually(t, 10*time.Second, "waitUntil has put", func() bool { return h.Get("one", "/get").Body == "later" })
			is("two", "/get", "theirs")
			is("none", "/put?v=x", "ok")
			is("none", "/get", "none")

			is("one", "/all", `{"before":[{},"none"],"both":["d",404,"Göne","é","3","1","","n","text/plain;charset=UTF-8"],"vary":["none","n"],"post":["none","d"],"deleted":[false,true,false,"none","n"],"empty":[204,null,true,true],"unkept":["none","none","none","none"],"cookie":["x",true]}`)
			is("two", "/get", "theirs")
			a := h.Get("two", "/refused")
			var refused []string
			if err := json.Unmarshal([]byte(a.Body), &refused); err != nil || len(refused) != 21 {
				t.Fatalf("%d %s", a.Status, a.Body)
			}
			for i, r := range refused {
				if !strings.HasPrefix(r, "TypeError: ") && r != "RangeError: mine" {
					t.Errorf("refused %d: %s", i, r)
				}
			}
			is("two", "/get", "theirs")
			is("one", "/large", `[3145728,true,"none",24]`)
			is("one", "/get", strings.Repeat("\a", 3145728))
			is("one", "/unread", "ok")
			is("one", "/clock", "ok")
			is("few", "/large", `[0,true,"none",3]`)
			is("few", "/many", "100 cache: too many subrequests: one request may make 100")
			is("two", "/get", "theirs")
			is("few", "/patched", "p")

			var list []struct {
				Tenant string
				Cache  *struct {
					Entries, Bytes int64
					Results        map[string]int
				}
			}
			if err := h.AdminGet("/v1/tenants", &list); err != nil {
				t.Fatal(err)
			}
			for _, e := range list {
				switch c := e.Cache; {
				case c == nil:
					t.Errorf("%s: nothing metered", e.Tenant)
				case e.Tenant == "two" && (c.Entries != 1 || c.Bytes < 500 || c.Results["stored"] != 1 || c.Results["hit"] != 4 || c.Results["miss"] != 1):
					t.Errorf("two: %+v", *c)
				case e.Tenant == "few" && (c.Entries != 3 || c.Bytes > 512<<10 || c.Results["evicted"] == 0):
					t.Errorf("few: %+v", *c)
				}
			}
			var text string
			if err := h.AdminGet("/v1/metrics", &text); err != nil || !strings.Contains(text, `bulkhead_cache_total{result="stored",tenant="two"} 1`) || !strings.Contains(text, `bulkhead_cache_bytes{tenant="two"}`) {
				t.Errorf("%v: not among the metrics", err)
			}
			if err := h.AdminGet("/v1/logs/one", &text); err != nil || !strings.Contains(text, "cacheEntry") {
				t.Errorf("%v: the log does not say why a response was not kept: %s", err, text)
			}

			// A new version finds what the old one kept; a new tenant of the same name does not.
			file := filepath.Join(h.Tenants, "two", "worker.js")
			write := func(src string) {
				if err := os.WriteFile(file, []byte(src), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			write(strings.Replace(cacher, `"b:"`, `"new:"`, 1))
			hosttest.Eventually(t, 20*time.Second, "the new version serves", func() bool { return h.Get("two", "/").Body == "new:true" })
			is("two", "/get", "theirs")
			if err := os.RemoveAll(filepath.Dir(file)); err != nil {
				t.Fatal(err)
			}
			hosttest.Eventually(t, 20*time.Second, "it is gone", func() bool { return h.Get("two", "/").Outcome == "scriptNotFound" })
			if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			write(cacher)
			hosttest.Eventually(t, 20*time.Second, "it is back", func() bool { return h.Get("two", "/").Body == "b:true" })
			is("two", "/get", "none")
			if list := h.Incidents(); len(list) != 0 {
				t.Errorf("incidents: %+v", list)
			}
		})
	}
}
