package runtime_test

import "testing"

// The classes of fetch, URL, encoding, events and the rest, each case the body of an async function.
func TestWebPlatform(t *testing.T) {
	for _, c := range []struct{ name, body string }{
		{"headers", `
			const h = new Headers({ "X-B": "2", a: " 1 " }); h.append("x-b", "3"); h.append("Set-Cookie", "p=1"); h.append("set-cookie", "q=2");
			eq(h.get("x-B"), "2, 3", "combined"); eq(h.get("a"), "1", "trimmed"); eq(h.get("none"), null, "missing");
			eq(h.getSetCookie(), ["p=1", "q=2"], "getSetCookie");
			eq([...h], [["a", "1"], ["set-cookie", "p=1"], ["set-cookie", "q=2"], ["x-b", "2, 3"]], "iteration");
			eq([...h.keys()], ["a", "set-cookie", "set-cookie", "x-b"], "keys"); h.delete("SET-COOKIE"); ok(!h.has("set-cookie"), "deleted");
			h.set("x-b", "9"); eq(h.get("x-b"), "9", "set"); const seen = []; h.forEach((v, k, o) => seen.push(k + v + (o === h))); eq(seen, ["a1true", "x-b9true"], "forEach");
			throws(() => h.append("a b", "x"), TypeError, "name"); throws(() => h.append("a", "x\ny"), TypeError, "value"); throws(() => h.set("\u0100", "x"), TypeError, "name bytes");
			throws(() => h.set("a", "\u0100"), TypeError, "value bytes"); throws(() => h.get(), TypeError, "arguments"); throws(() => new Headers([["a"]]), TypeError, "pair"); throws(() => new Headers(1), TypeError, "init");
			throws(() => request.headers.set("a", "b"), TypeError, "immutable"); eq(new Headers(request.headers).has("a"), false, "copy");
			eq(Object.prototype.toString.call(h[Symbol.iterator]()), "[object Headers Iterator]", "iterator tag"); eq(new Headers([["a", "1"], ["A", "2"]]).get("a"), "1, 2", "pairs");
			throws(() => Headers.prototype.get.call({}, "a"), TypeError, "brand"); eq(new Headers({ a: "\u00e9" }).get("a"), "\u00e9", "latin1");`},
		{"request", `
			const r = new Request("http://a.b/c?d#e", { method: "post", body: "x", headers: { q: "1" } });
			eq([r.method, r.url, r.headers.get("content-type"), r.headers.get("q")], ["POST", "http://a.b/c?d#e", "text/plain;charset=UTF-8", "1"], "fields");
			eq(new Request("http://x", { method: "patch" }).method, "patch", "patch is not normalized"); eq(new Request("HTTP://X:80/a/../b").url, "http://x/b", "serialized");
			throws(() => new Request("/relative"), TypeError, "relative"); throws(() => new Request("http://u:p@x/"), TypeError, "credentials");
			throws(() => new Request("http://x", { body: "x" }), TypeError, "GET body"); throws(() => new Request("http://x", { method: "TRACE" }), TypeError, "TRACE"); throws(() => new Request("http://x", { method: "a b" }), TypeError, "token");
			throws(() => new Request("http://x", { mode: "navigate" }), TypeError, "mode"); throws(() => new Request("http://x", { redirect: "x" }), TypeError, "enum"); throws(() => new Request("http://x", { signal: {} }), TypeError, "signal");
			const ac = new AbortController(); const s = new Request("http://x", { signal: ac.signal }); ac.abort("r"); ok(s.signal.aborted && s.signal.reason === "r", "signal follows"); ok(s.signal !== ac.signal, "own signal");
			const c = r.clone(); eq(await c.text() + await r.text(), "xx", "clone"); throws(() => r.clone(), TypeError, "used"); await rejects(r.text(), TypeError, "twice"); throws(() => new Request(r), TypeError, "from used");
			eq(new Request("http://x/").headers.get("a"), null, "no headers"); eq(new Request(new Request("http://x", { headers: { a: "1" } }), { method: "PUT" }).headers.get("a"), "1", "copied headers");
			eq(request.cf.colo, undefined, "cf is there"); eq([request.redirect, r.redirect], ["manual", "follow"], "redirect"); eq(new Request(new URL("http://x/y")).url, "http://x/y", "URL object");
			const moved = new Request("http://x", { method: "POST", body: new Blob(["blob"], { type: "a/b" }) }); eq(moved.headers.get("content-type"), "a/b", "blob type"); eq(await new Request(moved).text(), "blob", "moved"); ok(moved.bodyUsed, "source used");`},
		{"response", `
			const r = new Response("x", { status: 201, statusText: "Made", headers: [["a", "b"]] }); eq([r.status, r.statusText, r.ok, r.type, r.headers.get("a"), r.url, r.redirected], [201, "Made", true, "default", "b", "", false], "fields");
			throws(() => new Response("", { status: 204 }), TypeError, "204 body"); throws(() => new Response(null, { status: 199 }), RangeError, "199"); throws(() => new Response(null, { status: 600 }), RangeError, "600"); throws(() => new Response(null, { statusText: "\n" }), TypeError, "phrase");
			eq(Response.redirect("http://a/b?c", 301).headers.get("location"), "http://a/b?c", "redirect"); throws(() => Response.redirect("http://a", 200), RangeError, "status"); throws(() => Response.redirect("/x"), TypeError, "relative");
			throws(() => Response.redirect("http://a").headers.set("x", "y"), TypeError, "immutable"); eq([Response.error().type, Response.error().status], ["error", 0], "error");
			const j = Response.json({ a: [1] }, { status: 202, headers: { "content-type": "x/y" } }); eq([await j.json(), j.status, j.headers.get("content-type")], [{ a: [1] }, 202, "x/y"], "json"); throws(() => Response.json(undefined), TypeError, "json undefined"); throws(() => Response.json(1n), TypeError, "bigint");
			eq(await new Response("\ufeffx").text(), "x", "BOM"); eq(await new Response("\ud800").text(), "\ufffd", "surrogate"); await rejects(new Response("{").json(), SyntaxError, "bad json"); await rejects(new Response().json(), SyntaxError, "empty json");
			eq(new Uint8Array(await new Response(new Uint16Array([258])).arrayBuffer()), new Uint8Array([2, 1]), "view bytes"); ok((await new Response("x").bytes()) instanceof Uint8Array, "bytes");
			eq((await new Response(new DataView(new ArrayBuffer(3), 1)).arrayBuffer()).byteLength, 2, "DataView"); const b = await new Response("x", { headers: { "content-type": "A/B" } }).blob(); eq([b.size, b.type], [1, "a/b"], "blob");
			const s = new Response("abc"); const body = s.body; ok(body === s.body, "same stream"); eq(s.bodyUsed, false, "unused"); const rd = body.getReader(); eq((await rd.read()).value, new Uint8Array([97, 98, 99]), "chunk"); ok(s.bodyUsed, "used"); await rejects(s.text(), TypeError, "locked");
			const t = new Response(ReadableStream.from([new Uint8Array([65])])); const u = t.clone(); eq(await t.text() + await u.text(), "AA", "stream clone"); await rejects(new Response(ReadableStream.from(["x"])).text(), TypeError, "string chunk");
			const x = new Response("x"); await x.text(); ok(x.bodyUsed, "bodyUsed"); ok(x.body.locked || x.bodyUsed, "stream after use"); throws(() => x.clone(), TypeError, "clone used"); eq(await new Response({}).text(), "[object Object]", "object");
			eq(new Response(null).body, null, "null"); eq(await new Response(undefined).text(), "", "undefined"); await rejects(Response.prototype.text.call({}), TypeError, "brand rejects"); eq((await new Response("abc").clone().text()), "abc", "clone");`},
		{"blob and file", `
			const b = new Blob(["a\u00e9", new Uint8Array([66]), new Blob(["c"])], { type: "Text/Plain" }); eq([b.size, b.type, await b.text()], [5, "text/plain", "a\u00e9Bc"], "parts");
			eq(await b.slice(-2, -1, "x/y").text(), "B", "slice"); eq(b.slice(1, 0).size, 0, "empty slice"); eq((await b.arrayBuffer()).byteLength, 5, "arrayBuffer"); eq((await b.stream().getReader().read()).value.length, 5, "stream");
			eq(await new Blob(["a\r\nb\rc"], { endings: "native" }).text(), "a\nb\nc", "endings"); throws(() => new Blob("x"), TypeError, "not iterable"); throws(() => new Blob([], { endings: "x" }), TypeError, "endings"); eq(new Blob([], { type: "\u00e9" }).type, "", "type");
			const f = new File(["x"], "n.txt", { type: "a/b", lastModified: 5 }); eq([f.name, f.lastModified, f.type, f instanceof Blob], ["n.txt", 5, "a/b", true], "file"); throws(() => new File([]), TypeError, "no name"); eq(new File([], "n").lastModified, Date.now(), "now");`},
		{"form data", `
			const f = new FormData(); f.append("a", "1"); f.append("a", "2"); f.append("file", new Blob(["data\u00e9"], { type: "x/y" }), "n\"\r\n.bin"); f.set("b", 3);
			eq([f.get("a"), f.getAll("a"), f.has("z"), f.get("z")], ["1", ["1", "2"], false, null], "get"); eq(f.get("file").name, "n\"\r\n.bin", "file");
			throws(() => f.append("a", "b", "name"), TypeError, "name without blob"); throws(() => new FormData({}), TypeError, "form");
			const r = new Response(f); ok(/^multipart\/form-data; boundary=-+/.test(r.headers.get("content-type")), "type"); const g = await r.formData();
			eq([g.getAll("a"), g.get("b"), await g.get("file").text(), g.get("file").type, g.get("file").name], [["1", "2"], "3", "data\u00e9", "x/y", "n\"\r\n.bin"], "round trip");
			const u = await new Response("a=b+c&d=%C3%A9", { headers: { "content-type": "application/x-www-form-urlencoded" } }).formData(); eq([...u], [["a", "b c"], ["d", "\u00e9"]], "urlencoded");
			const mp = (s, b = "X") => new Response(s.replaceAll("\n", "\r\n"), { headers: { "content-type": "multipart/form-data; boundary=\"" + b + "\"" } }).formData();
			eq([...await mp("preamble\n--X\nContent-Disposition: form-data; name=\"a\"\n\nv1\nv2\n--X \nContent-Disposition: form-data; name=b; filename=\"\"\nContent-Type: a/b\n\n\n--X--\n")].map(([k, v]) => [k, typeof v === "string" ? v : v.size]), [["a", "v1\r\nv2"], ["b", 0]], "parse");
			for (const bad of ["", "--X", "--X\n\n", "--X\nContent-Disposition: form-data\n\nx\n--X--", "--X\nContent-Disposition: form-data; name=\"a\n\nx\n--X--", "--X\nfoo\n\nx\n--X--", "--X\nContent-Disposition: form-data; name=\"a\"\n\nx"]) await rejects(mp(bad), TypeError, "malformed " + JSON.stringify(bad));
			eq([...await mp("--X--\n")], [], "empty"); await rejects(new Response("x").formData(), TypeError, "type"); await rejects(new Response("x", { headers: { "content-type": "multipart/form-data" } }).formData(), TypeError, "no boundary");`},
		{"url", `
			const u = new URL("https://us%20er:p%40w@ex\u00e4mple.org:8080/a/./b/../c?x=1&y=2#h"); eq([u.href, u.origin, u.protocol, u.username, u.password, u.host, u.hostname, u.port, u.pathname, u.search, u.hash],
				["https://us%20er:p%40w@xn--exmple-cua.org:8080/a/c?x=1&y=2#h", "https://xn--exmple-cua.org:8080", "https:", "us%20er", "p%40w", "xn--exmple-cua.org:8080", "xn--exmple-cua.org", "8080", "/a/c", "?x=1&y=2", "#h"], "parts");
			u.searchParams.append("z", "a b"); eq(u.search, "?x=1&y=2&z=a+b", "params to url"); u.search = "?q=1"; eq(u.searchParams.get("q"), "1", "url to params"); ok(u.searchParams === u.searchParams, "same"); u.searchParams.delete("q"); eq(u.href.includes("?"), false, "empty query");
			u.port = "443"; u.hash = ""; u.username = ""; u.password = ""; u.pathname = "/\u00e9"; u.host = "h:99"; u.protocol = "http"; eq(u.href, "http://h:99/%C3%A9", "setters"); u.hostname = "\u0000bad host"; eq(u.hostname, "h", "bad setter ignored");
			throws(() => new URL("nope"), TypeError, "invalid"); throws(() => { u.href = "nope"; }, TypeError, "href"); eq(new URL("../x?y", "http://a/b/c/d").href, "http://a/b/x?y", "base"); eq([URL.canParse("x:"), URL.canParse("x"), URL.canParse("x", "http://a")], [true, false, true], "canParse"); eq(URL.parse("x"), null, "parse");
			eq(new URL("file:///a").origin, "null", "file origin"); eq(new URL("blob:https://a.b/c").origin, "https://a.b", "blob origin"); eq(new URL("data:text/plain,x").pathname, "text/plain,x", "opaque"); eq(new URL("http://[::1]:80/").host, "[::1]", "ipv6"); eq(new URL("http://0x7f.1/").hostname, "127.0.0.1", "ipv4");
			eq(JSON.stringify({ u: new URL("http://a") }), '{"u":"http://a/"}', "toJSON"); eq(new URL("web+demo:/.//not-a-host/").pathname, "//not-a-host/", "path with /."); eq(new URL("http://a/?").search + new URL("http://a/#").hash, "", "empty parts"); eq(String(new URL("http://a/?x#y").searchParams), "x=", "params of");
			throws(() => Object.getOwnPropertyDescriptor(URL.prototype, "href").get.call({}), TypeError, "brand"); throws(() => URL("http://a"), TypeError, "new"); eq(URL.length, 1, "length");`},
		{"search params", `
			const p = new URLSearchParams("?a=1&b=2&a=3&c&=d&e=%zz&f=a+b%20c"); eq([...p], [["a", "1"], ["b", "2"], ["a", "3"], ["c", ""], ["", "d"], ["e", "%zz"], ["f", "a b c"]], "parse"); eq(p.size, 7, "size");
			p.set("a", "x"); p.delete("b"); p.append("\u00e9", "~*-._ !'()"); eq(p.toString(), "a=x&c=&=d&e=%25zz&f=a+b+c&%C3%A9=%7E*-._+%21%27%28%29", "string"); eq(p.has("a", "y"), false, "has value"); p.delete("a", "y"); ok(p.has("a"), "delete value");
			eq(new URLSearchParams({ x: "1", y: "2" }).toString(), "x=1&y=2", "record"); eq(new URLSearchParams([["a", "b"]]).get("a"), "b", "pairs"); throws(() => new URLSearchParams([["a"]]), TypeError, "pair"); eq(new URLSearchParams(new URLSearchParams("q=1")).get("q"), "1", "copy");
			const s = new URLSearchParams("z=1&a=2&z=0"); s.sort(); eq(s.toString(), "a=2&z=1&z=0", "sort"); const seen = []; for (const k of s.keys()) { seen.push(k); if (seen.length === 1) s.append("n", "1"); } eq(seen, ["a", "z", "z", "n"], "live"); eq(new URLSearchParams(undefined).toString() + new URLSearchParams("\ud800").toString(), "%EF%BF%BD=", "usv");`},
		{"encoding", `
			const e = new TextEncoder(); eq([...e.encode("a\u00e9\ud83d\ude00\ud800")], [97, 195, 169, 240, 159, 152, 128, 239, 191, 189], "encode"); const buf = new Uint8Array(4); eq(e.encodeInto("a\u00e9\u20ac", buf), { read: 2, written: 3 }, "encodeInto"); eq(e.encode().length, 0, "empty");
			const d = (b, l, o, k) => new TextDecoder(l, o).decode(new Uint8Array(b), k); eq(d([0xef, 0xbb, 0xbf, 65]), "A", "BOM"); eq(d([0xef, 0xbb, 0xbf, 65], "utf8", { ignoreBOM: true }), "\ufeffA", "ignoreBOM"); eq(d([0xff, 65, 0xe2, 0x82]), "\ufffdA\ufffd", "replacement"); eq(d([0xf0, 0x90, 0x41]), "\ufffdA", "maximal subpart"); eq(d([0xed, 0xa0, 0x80]), "\ufffd\ufffd\ufffd", "surrogate bytes");
			throws(() => d([0xff], "utf-8", { fatal: true }), TypeError, "fatal"); throws(() => new TextDecoder("nope"), RangeError, "label"); eq(new TextDecoder(" Latin1\n").encoding, "windows-1252", "latin1"); eq(d([0x80, 0xe9], "ascii"), "\u20ac\u00e9", "1252"); eq(d([65, 0, 61, 216, 0, 222], "utf-16"), "A\ud83d\ude00", "utf-16le"); eq(d([0, 65], "utf-16be"), "A", "be"); eq(d([0, 0xd8], "utf-16le"), "\ufffd", "lone");
			const s = new TextDecoder(); let out = ""; for (const b of [0xef, 0xbb, 0xbf, 0xe2, 0x82, 0xac, 0xf0, 0x9f, 0x98, 0x80, 0xe2, 0x41, 0xc3]) out += s.decode(new Uint8Array([b]), { stream: true }); out += s.decode(); eq(out, "\u20ac\ud83d\ude00\ufffdA\ufffd", "stream"); eq(s.decode(new Uint8Array([0xef, 0xbb, 0xbf, 66])), "B", "again");
			const f = new TextDecoder("utf-8", { fatal: true }); f.decode(new Uint8Array([0xe2]), { stream: true }); throws(() => f.decode(), TypeError, "fatal end"); eq(new TextDecoder().decode(new ArrayBuffer(0)), "", "buffer"); throws(() => new TextDecoder().decode("x"), TypeError, "string"); eq([f.fatal, f.encoding, f.ignoreBOM], [true, "utf-8", false], "attributes");`},
		{"base64", `
			eq([btoa(""), btoa("a"), btoa("ab"), btoa("abc"), btoa("\u00ff")], ["", "YQ==", "YWI=", "YWJj", "/w=="], "btoa"); throws(() => btoa("\u0100"), "InvalidCharacterError", "range"); eq([atob("YQ=="), atob(" Y W I "), atob("YWJj"), atob("/w")], ["a", "ab", "abc", "\u00ff"], "atob");
			for (const bad of ["a", "a=", "ab=", "abc==", "=", "ab=c", "a-b_", "abcde", "YQ==="]) throws(() => atob(bad), "InvalidCharacterError", "bad " + bad); throws(() => atob(), TypeError, "arguments");`},
		{"events", `
			const t = new EventTarget(), log = []; const f = (e) => log.push(e.type + (e.currentTarget === t) + e.eventPhase); t.addEventListener("x", f); t.addEventListener("x", f); t.addEventListener("x", { handleEvent(e) { log.push("obj" + (this === undefined)); } }, { once: true }); t.addEventListener("x", null);
			const ev = new Event("x", { cancelable: true }); ok(t.dispatchEvent(ev), "not canceled"); t.dispatchEvent(ev); eq(log, ["xtrue2", "objfalse", "xtrue2"], "order"); eq([ev.isTrusted, ev.eventPhase, ev.currentTarget, ev.target === t], [false, 0, null, true], "after");
			t.addEventListener("x", (e) => { e.preventDefault(); e.stopImmediatePropagation(); }); t.addEventListener("x", () => log.push("never")); eq(t.dispatchEvent(new Event("x", { cancelable: true })), false, "canceled"); ok(!log.includes("never"), "stopped"); t.removeEventListener("x", f);
			const ac = new AbortController(); t.addEventListener("y", () => log.push("y"), { signal: ac.signal }); ac.abort(); t.dispatchEvent(new Event("y")); ok(!log.includes("y"), "signal"); t.addEventListener("p", (e) => e.preventDefault(), { passive: true }); ok(t.dispatchEvent(new Event("p", { cancelable: true })), "passive");
			throws(() => t.dispatchEvent({}), TypeError, "no event"); throws(() => new Event(), TypeError, "no type"); throws(() => t.addEventListener("x", 1), TypeError, "callback"); t.addEventListener("r", (e) => throws(() => t.dispatchEvent(e), "InvalidStateError", "redispatch")); t.dispatchEvent(new Event("r"));
			eq(new CustomEvent("c", { detail: 5 }).detail, 5, "detail"); eq(Event.NONE + Event.AT_TARGET + ev.BUBBLING_PHASE, 5, "constants"); const ee = new ErrorEvent("e", { message: "m", error: 1, lineno: 3 }); eq([ee.message, ee.error, ee.lineno], ["m", 1, 3], "ErrorEvent"); throws(() => new PromiseRejectionEvent("x"), TypeError, "no init");
			class My extends EventTarget { constructor() { super(); } } ok(new My().dispatchEvent(new Event("q")), "subclass"); let bubbled = false; addEventListener("g", () => { bubbled = true; }); dispatchEvent(new Event("g")); ok(bubbled, "global"); eq(new Event("x").timeStamp >= 0, true, "timeStamp"); eq(Object.getOwnPropertyDescriptor(ev, "isTrusted").configurable, false, "unforgeable");`},
		{"abort", `
			const ac = new AbortController(); let n = 0; ac.signal.onabort = () => n++; ac.signal.addEventListener("abort", (e) => { n += 10; ok(e.isTrusted, "trusted"); }); ac.abort(); ac.abort(); eq(n, 11, "once"); check(ac.signal.reason, "AbortError", "reason"); throws(() => ac.signal.throwIfAborted(), "AbortError", "throwIfAborted");
			eq(AbortSignal.abort(7).reason, 7, "abort(7)"); const t = AbortSignal.timeout(5); ok(!t.aborted, "not yet"); await scheduler.wait(6); check(t.reason, "TimeoutError", "timeout"); throws(() => AbortSignal.timeout(-1), TypeError, "negative"); throws(() => new AbortSignal(), TypeError, "illegal");
			const a = new AbortController(), b = new AbortController(); const any = AbortSignal.any([a.signal, AbortSignal.any([b.signal])]); let fired = 0; any.onabort = () => fired++; b.abort("b"); a.abort("a"); eq([any.reason, fired], ["b", 1], "any"); ok(AbortSignal.any([AbortSignal.abort(1)]).aborted, "any aborted"); throws(() => AbortSignal.any([1]), TypeError, "any type"); eq(any.onabort === null, false, "handler"); any.onabort = null; eq(any.onabort, null, "cleared");
			await rejects(scheduler.wait(1000, { signal: AbortSignal.timeout(3) }), "TimeoutError", "wait");`},
		{"dom exception", `
			const e = new DOMException("m", "NotFoundError"); eq([e.message, e.name, e.code, String(e), e instanceof Error], ["m", "NotFoundError", 8, "NotFoundError: m", true], "fields"); ok(e.stack.startsWith("NotFoundError: m\n"), "stack"); eq(DOMException.ABORT_ERR, 20, "constant"); eq(new DOMException().name, "Error", "default"); eq(Object.prototype.toString.call(e), "[object DOMException]", "tag");`},
		{"structuredClone", `
			const m = new Map([[1, { d: new Date(5), s: new Set([1]) }]]); const c = structuredClone(m); eq([c.get(1).d.getTime(), c.get(1).s.has(1), c !== m], [5, true, true], "clone"); throws(() => structuredClone(() => {}), "DataCloneError", "function"); const b = new ArrayBuffer(8); const t = structuredClone(b, { transfer: [b] }); eq([t.byteLength, b.byteLength], [8, 0], "transfer"); throws(() => structuredClone(b, { transfer: [b] }), "DataCloneError", "detached"); const cy = {}; cy.me = cy; const cc = structuredClone(cy); ok(cc.me === cc, "cycle"); ok(structuredClone(new RangeError("x")) instanceof RangeError, "error"); throws(() => structuredClone(), TypeError, "arguments");
			const f = structuredClone(new File(["x"], "n", { lastModified: 7, type: "a/b" })); eq([f.name, f.lastModified, f.type, await f.text(), f instanceof File], ["n", 7, "a/b", "x", true], "File"); eq(structuredClone(new DOMException("m", "AbortError")).name, "AbortError", "DOMException");
			for (const v of [new Response(), new Headers(), request, new URL("http://x"), new ReadableStream(), new Event("x"), new AbortController().signal]) throws(() => structuredClone(v), "DataCloneError", "platform object");`},
		{"crypto", `
			const hex = (b) => [...new Uint8Array(b)].map((x) => x.toString(16).padStart(2, "0")).join(""); const data = new TextEncoder().encode("abc");
			eq(hex(await crypto.subtle.digest("sha-1", data)), "a9993e364706816aba3e25717850c26c9cd0d89d", "sha1"); eq(hex(await crypto.subtle.digest({ name: "SHA-256" }, data)), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "sha256"); eq((await crypto.subtle.digest("SHA-384", data)).byteLength, 48, "384"); eq((await crypto.subtle.digest("SHA-512", data.buffer)).byteLength, 64, "512"); eq(hex(await crypto.subtle.digest("SHA-1", new Uint8Array())), "da39a3ee5e6b4b0d3255bfef95601890afd80709", "empty");
			const k = await crypto.subtle.importKey("raw", new TextEncoder().encode("key"), { name: "HMAC", hash: "SHA-256" }, true, ["verify", "sign"]); const mac = await crypto.subtle.sign("HMAC", k, new TextEncoder().encode("The quick brown fox jumps over the lazy dog")); eq(hex(mac), "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8", "hmac");
			eq([k.type, k.extractable, k.algorithm, k.usages], ["secret", true, { name: "HMAC", hash: { name: "SHA-256" }, length: 24 }, ["sign", "verify"]], "key"); ok(await crypto.subtle.verify("HMAC", k, mac, new TextEncoder().encode("The quick brown fox jumps over the lazy dog")), "verify"); ok(!await crypto.subtle.verify("HMAC", k, new Uint8Array(32), data), "forged"); ok(!await crypto.subtle.verify("HMAC", k, new Uint8Array(), data), "empty mac");
			const jwk = await crypto.subtle.exportKey("jwk", k); eq([jwk.kty, jwk.k, jwk.alg, jwk.ext], ["oct", "a2V5", "HS256", true], "jwk"); eq(hex(await crypto.subtle.exportKey("raw", await crypto.subtle.importKey("jwk", jwk, { name: "HMAC", hash: { name: "SHA-256" } }, true, ["sign"]))), "6b6579", "import jwk"); const g = await crypto.subtle.generateKey({ name: "HMAC", hash: "SHA-512" }, false, ["sign"]); eq(g.algorithm.length, 1024, "generated"); await rejects(crypto.subtle.exportKey("raw", g), "InvalidAccessError", "not extractable"); await rejects(crypto.subtle.verify("HMAC", g, mac, data), "InvalidAccessError", "usage");
			await rejects(crypto.subtle.digest("MD5", data), "NotSupportedError", "md5"); await rejects(crypto.subtle.digest("SHA-256", "x"), TypeError, "string"); await rejects(crypto.subtle.digest("SHA-256"), TypeError, "arguments"); await rejects(crypto.subtle.importKey("raw", data, { name: "HMAC", hash: "SHA-256" }, true, []), "SyntaxError", "no usages"); await rejects(crypto.subtle.importKey("raw", data, "AES-GCM", true, ["encrypt"]), "DataError", "aes of 24 bits"); await rejects(crypto.subtle.importKey("raw", new Uint8Array(), { name: "HMAC", hash: "SHA-1" }, true, ["sign"]), "DataError", "empty key"); await rejects(crypto.subtle.sign("HMAC", {}, data), TypeError, "no key"); await rejects(SubtleCrypto.prototype.digest.call({}, "SHA-1", data), TypeError, "brand");
			ok(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(crypto.randomUUID()), "uuid"); ok(crypto.randomUUID() !== crypto.randomUUID(), "random"); const r = new Uint32Array(8); ok(crypto.getRandomValues(r) === r && r.some((x) => x > 0), "random values"); throws(() => crypto.getRandomValues(new Uint8Array(65537)), "QuotaExceededError", "quota"); throws(() => crypto.getRandomValues(new Float32Array(1)), "TypeMismatchError", "float"); throws(() => crypto.getRandomValues({}), TypeError, "object");
			ok(crypto.subtle.timingSafeEqual(data, data), "equal"); throws(() => new CryptoKey(), TypeError, "illegal"); const big = new Uint8Array(1 << 20); eq((await crypto.subtle.digest("SHA-256", big)).byteLength, 32, "1 MB");`},
		{"globals", `
			eq([typeof SharedArrayBuffer, typeof Atomics.wait, typeof Atomics.waitAsync, typeof require, typeof process], ["undefined", "undefined", "undefined", "undefined", "undefined"], "absent"); ok(self === globalThis && self.self === self, "self"); eq(navigator.userAgent, "bulkhead", "navigator");
			await rejects(fetch("http://x.example/"), TypeError, "fetch"); await rejects(fetch(), TypeError, "fetch args"); await rejects(fetch("nope"), TypeError, "fetch url"); await rejects(fetch("http://x", { signal: AbortSignal.abort() }), "AbortError", "fetch aborted"); ok((await fetch("http://x/").catch((e) => e.message)).startsWith("fetch failed"), "fetch failure");
			throws(() => setTimeout("code"), TypeError, "string timer"); throws(() => queueMicrotask(), TypeError, "queueMicrotask"); throws(() => eval("1"), EvalError, "eval"); throws(() => new Function("1"), EvalError, "Function"); let m = 0; queueMicrotask(() => m++); eq(m, 0, "later"); await null; await null; eq(m, 1, "ran"); eq(typeof setTimeout(() => {}), "number", "id");
			class X extends Response {} ok(new X("a") instanceof Response, "subclass"); eq(await new X("a").text(), "a", "subclass body"); ok(Object.getOwnPropertyDescriptor(globalThis, "crypto").get !== undefined, "attribute");`},
	} {
		t.Run(c.name, func(t *testing.T) { script(t, c.body) })
	}
}

// Every interface has the property shape of Web IDL, and no internal shows through reflection.
func TestShapes(t *testing.T) {
	script(t, `
		const names = ("Headers Request Response URL URLSearchParams TextEncoder TextDecoder ReadableStream ReadableStreamDefaultReader ReadableStreamBYOBReader ReadableStreamDefaultController ReadableByteStreamController ReadableStreamBYOBRequest WritableStream WritableStreamDefaultWriter WritableStreamDefaultController TransformStream TransformStreamDefaultController ByteLengthQueuingStrategy CountQueuingStrategy TextEncoderStream TextDecoderStream IdentityTransformStream FixedLengthStream Blob File FormData Event EventTarget CustomEvent ErrorEvent MessageEvent CloseEvent PromiseRejectionEvent ExtendableEvent FetchEvent AbortController AbortSignal DOMException Crypto CryptoKey SubtleCrypto Performance Navigator ExecutionContext WorkerGlobalScope ServiceWorkerGlobalScope").split(" ");
		for (const n of names) {
			const d = Object.getOwnPropertyDescriptor(globalThis, n);
			eq([typeof d?.value, d?.writable, d?.enumerable, d?.configurable], ["function", true, false, true], n + " on the global");
			const C = globalThis[n]; eq(C.name, n, n + ".name"); throws(() => C(), TypeError, n + " without new");
			const pd = Object.getOwnPropertyDescriptor(C, "prototype"); eq([pd.writable, pd.enumerable], [false, false], n + ".prototype");
			const tag = Object.getOwnPropertyDescriptor(C.prototype, Symbol.toStringTag); eq([tag?.value, tag?.writable, tag?.enumerable, tag?.configurable], [n, false, false, true], n + " tag");
			for (const k of Reflect.ownKeys(C.prototype)) {
				if (k === "constructor" || typeof k === "symbol") continue;
				const m = Object.getOwnPropertyDescriptor(C.prototype, k); ok(m.enumerable, n + "." + k + " is enumerable");
				if (m.get) {
					if (n === "WorkerGlobalScope") continue;
					let r; try { r = m.get.call({}); if (r && typeof r.then === "function") await r; fail(n + "." + k + " getter has no brand"); } catch (e) { ok(e instanceof TypeError, n + "." + k + " getter threw " + e); }
				}
			}
		}
		for (const o of [new Response("x"), new Headers({ a: "b" }), new URL("http://x"), request, ctx, new Blob([]), new ReadableStream(), new AbortController(), crypto, crypto.subtle]) eq(Reflect.ownKeys(o), [], "own keys of " + Object.prototype.toString.call(o));
		for (const n of ["fetch", "setTimeout", "atob", "queueMicrotask", "structuredClone", "addEventListener", "reportError"]) { const d = Object.getOwnPropertyDescriptor(globalThis, n); eq([d.writable, d.enumerable, d.configurable], [true, true, true], n); ok(!("prototype" in d.value) || n !== "addEventListener", n); }
		eq([Response.length, Request.length, Headers.length, Headers.prototype.append.length, URL.canParse.length, setTimeout.length, Event.length, EventTarget.prototype.addEventListener.length, ReadableStream.prototype.pipeTo.length, structuredClone.length], [0, 1, 0, 2, 1, 1, 1, 2, 1, 1], "lengths");
		eq(Object.keys(globalThis).filter((k) => typeof globalThis[k] === "function" && /^[A-Z]/.test(k)), [], "no enumerable classes"); ok(Response.prototype[Symbol.iterator] === undefined && Headers.prototype[Symbol.iterator] === Headers.prototype.entries && URLSearchParams.prototype[Symbol.iterator] === URLSearchParams.prototype.entries && ReadableStream.prototype[Symbol.asyncIterator] === ReadableStream.prototype.values, "iterators");
		ok(DOMException.prototype instanceof Error && AbortSignal.prototype instanceof EventTarget && File.prototype instanceof Blob && FetchEvent.prototype instanceof ExtendableEvent, "inheritance"); eq(Object.prototype.toString.call(console), "[object console]", "console");`)
}
