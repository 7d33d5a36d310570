package runtime_test

import (
	"testing"

	"bulkhead/sandboxworker/runtime"
)

const rewritePrelude = `
const page = (html, size) => new Response(size === undefined ? html : new ReadableStream({ start(c) { const u8 = new TextEncoder().encode(html); for (let i = 0; i < u8.length; i += size) c.enqueue(u8.slice(i, i + size)); c.close(); } }), { headers: { "content-type": "text/html", "content-length": "9" } });
const rewrite = async (html, rules, doc, size) => { const r = new HTMLRewriter(); for (const s in rules) r.on(s, rules[s]); if (doc) r.onDocument(doc); return await r.transform(page(html, size)).text(); };
const same = async (html, rules, want, what, doc) => { for (const size of [undefined, 1, 3, 7]) eq(await rewrite(html, rules(), doc?.(), size), want, what + " in pieces of " + size); };
`

func TestHTMLRewriter(t *testing.T) {
	for _, c := range []struct{ name, body string }{
		{"untouched", `const html = "<!DOCTYPE html>\n<html><!-- c --><body CLASS=x a='1'>t\u00e9xt &amp; <br/><script>if (a < b) '</p>';</script><p>a < b<ul><li>1<li>2</ul></body></html>\n<unfinished"; await same(html, () => ({}), html, "no handlers"); await same(html, () => ({ "*": { element() {}, text() {}, comments() {} } }), html, "handlers that do nothing");`},
		{"elements", `
			await same('<a href="/x" id=q>t</a><a>u</a>', () => ({ "a[href]": { element(e) { eq([e.tagName, e.getAttribute("href"), e.hasAttribute("ID"), e.getAttribute("no"), e.namespaceURI, [...e.attributes]], ["a", "/x", true, null, "http://www.w3.org/1999/xhtml", [["href", "/x"], ["id", "q"]]], "reads"); e.setAttribute("href", 'y"&'); e.removeAttribute("id"); e.setAttribute("new", ""); } } }), '<a href="y&quot;&amp;" new="">t</a><a>u</a>', "attributes");
			await same("<p>x</p>", () => ({ p: { element(e) { e.before("<b>", { html: true }); e.before("1<"); e.after("2"); e.after("3"); e.prepend("4"); e.prepend("5"); e.append("6"); e.append("7"); } } }), "<b>1&lt;<p>54x67</p>32", "around"); await same("<p>x<i>y</i></p>z", () => ({ p: { element(e) { e.replace("R"); e.after("A"); } } }), "RAz", "replace"); await same("<p>x<i>y</i></p>z", () => ({ p: { element(e) { e.remove(); ok(e.removed, "removed"); } } }), "z", "remove"); await same("<p>x<i>y</i></p>z", () => ({ p: { element(e) { e.removeAndKeepContent(); } } }), "x<i>y</i>z", "unwrap"); await same("<p>x<i>y</i></p>z", () => ({ p: { element(e) { e.setInnerContent("<new>"); e.append("+"); } } }), "<p>&lt;new&gt;+</p>z", "inner"); await same("<p>x</p><br>", () => ({ p: { element(e) { e.tagName = "div"; } }, br: { element(e) { e.after("!"); e.setAttribute("a", "b"); } } }), '<div>x</div><br a="b">!', "rename and void");
			await same("<p>a</p>", () => ({ p: { element(e) { e.onEndTag((t) => { eq(t.name, "p", "name"); t.before("B"); t.after("A"); }); } } }), "<p>aB</p>A", "end tag"); await same("<p>a</p>", () => ({ p: { element(e) { e.onEndTag((t) => t.remove()); } } }), "<p>a", "end tag removed"); await same("<ul><li>1<li>2</ul>x", () => ({ li: { element(e) { e.append("."); } } }), "<ul><li>1<li>2..</ul>x", "implied end tags"); await same("</p>x</div>", () => ({ "*": { element() { fail("no element"); } } }), "</p>x</div>", "stray end tags");
			let kept; await rewrite("<p>", { p: { element(e) { kept = e; } } }); throws(() => kept.tagName, TypeError, "used later"); throws(() => kept.before("x"), TypeError, "changed later");`},
		{"selectors", `
			const hits = async (sel, html) => { const out = []; await rewrite(html, { [sel]: { element(e) { out.push(e.getAttribute("i")); } } }); return out.join(""); };
			const html = '<div i=1 class="a b" id=x><p i=2 lang=en-US>t<b i=3></b></p><p i=4 class=b data-k="vAlue"><b i=5></b></p></div><p i=6><span i=7><b i=8></b></span></p>';
			for (const [sel, want] of [["*", "12345678"], ["p", "246"], ["P", "246"], [".b", "14"], [".a.b", "1"], ["#x", "1"], ["div b", "35"], ["div > b", ""], ["div > p > b", "35"], ["p b", "358"], ["p > b", "35"], ["div, span", "17"], ["[data-k]", "4"], ["[data-k=vAlue]", "4"], ["[data-k='VALUE' i]", "4"], ["[data-k^=v]", "4"], ["[data-k$=ue]", "4"], ["[data-k*=Al]", "4"], ["[lang|=en]", "2"], ["[class~=b]", "14"], ["p:nth-child(2)", "46"], ["p:first-child", "2"], ["p:nth-of-type(1)", "26"], ["p:first-of-type", "26"], ["p:nth-child(2n)", "46"], ["p:nth-child(odd)", "2"], ["p:not(.b)", "26"], ["b:not([i='3'])", "58"], ["p:nth-child(-n+1)", "2"]]) eq(await hits(sel, html), want, sel);
			for (const bad of ["", ">", "a >", "a:hover", "[a", "a{", "::x", "a,,b", "#", ".", ":not(a b)", ":nth-child(x)", "a".repeat(5000)]) throws(() => new HTMLRewriter().on(bad, {}), TypeError, "selector " + bad.slice(0, 9));`},
		{"text, comments and the document", `
			for (const size of [undefined, 1, 4]) { let all = "", ends = 0; await rewrite("<p>h\u00e9llo <i>w&ouml;</i></p>out", { p: { text(t) { all += t.text; if (t.lastInTextNode) ends++; } } }, undefined, size); eq([all, ends], ["h\u00e9llo w&ouml;", 2], "text in pieces of " + size); }
			eq(await rewrite("<p>a<i>b</i></p>", { i: { text(t) { if (t.text) t.replace("<" + t.text + ">"); } }, p: { text(t) { if (t.lastInTextNode) t.after("|"); } } }), "<p>a|<i>&lt;b&gt;|</i></p>", "text changes"); await same("<p><!--x--></p><!--y-->", () => ({ p: { comments(c) { eq(c.text, "x", "comment"); c.text = "z"; c.before("b"); } } }), "<p>b<!--z--></p><!--y-->", "comments"); await same("<!doctype html><p>", () => ({}), "<!doctype html><p>END", "document", () => ({ doctype(d) { eq([d.name, d.publicId, d.systemId], ["html", null, null], "doctype"); }, end(e) { e.append("END"); } })); let d; await rewrite('<!DOCTYPE html PUBLIC "p" "s">', {}, { doctype(x) { d = [x.name, x.publicId, x.systemId]; } }); eq(d, ["html", "p", "s"], "ids"); await same("<script>a<b</script>", () => ({ script: { text(t) { if (t.text) { eq(t.text, "a<b", "raw"); t.replace("c<d", { html: true }); } } } }), "<script>c<d</script>", "script");`},
		{"async and failures", `
			eq(await rewrite("<p>1</p><p>2</p>", { p: { async element(e) { await scheduler.wait(2); e.append("!"); e.onEndTag(async (t) => { await null; t.after("|"); }); } } }, { async end(e) { await scheduler.wait(1); e.append("."); } }), "<p>1!</p>|<p>2!</p>|.", "async handlers"); await rejects(rewrite("<p>", { p: { element() { throw new RangeError("h"); } } }), RangeError, "throws"); await rejects(rewrite("<p>", { p: { async element() { throw new RangeError("h"); } } }), RangeError, "rejects");
			const r = new HTMLRewriter().transform(page("x")); eq([r.headers.get("content-type"), r.headers.get("content-length"), r.status], ["text/html", null, 200], "headers"); eq(new HTMLRewriter().transform(new Response(null)).body, null, "no body"); throws(() => new HTMLRewriter().transform("x"), TypeError, "no response"); throws(() => new HTMLRewriter().on("p"), TypeError, "arguments"); throws(() => new HTMLRewriter().on("p", { element: 1 }), TypeError, "handler"); const used = page("x"); await used.text(); throws(() => new HTMLRewriter().transform(used), TypeError, "used"); class H { constructor() { this.n = 0; } element() { this.n++; } } const h = new H(); await rewrite("<p><p>", { p: h }); eq(h.n, 2, "this");
			await rejects(rewrite("<script>" + "x".repeat(3e6), {}, undefined, 65536), TypeError, "endless script"); const deep = "<b>".repeat(3000); eq(await rewrite(deep, { "b b b b": { element() {} } }), deep, "deep"); eq((await rewrite("<p a=" + "x".repeat(1e5) + ">", { p: { element(e) { e.setAttribute("b", "1"); } } })).length, 1e5 + 14, "long attribute"); Object.defineProperty(Object.prototype, "element", { configurable: true, value() { fail("polluted"); } }); try { await rewrite("<p>", { p: Object.create(null) }); } finally { delete Object.prototype.element; }`},
	} {
		t.Run(c.name, func(t *testing.T) { script(t, rewritePrelude+c.body) })
	}
}

func TestTokenizeHTML(t *testing.T) {
	for _, c := range []struct{ meta, data, answer, tokens string }{
		{"0 -", "a<p", "1 -", `[["t","1"]]`},
		{"1 -", "a<p", "3 -", `[["t","1"],["t","3"]]`},
		{"0 -", "<p a=1>b", "8 -", `[["s","7","p","0","a","1"],["t","8"]]`},
		{"0 -", "<script>a", "8 script", `[["s","8","script","0"]]`},
		{"0 script", "a</script>", "10 -", `[["t","1"],["e","10","script"]]`},
		{"0 -", "\xc3", "0 -", `[]`},
		{"0 -", "<!-- a", "0 -", `[]`},
	} {
		ok, answer, tokens := new(runtime.Host).Do(runtime.OpHTML, c.meta, []byte(c.data))
		if !ok || answer != c.answer || string(tokens) != c.tokens {
			t.Errorf("%s %q: %v %q %s", c.meta, c.data, ok, answer, tokens)
		}
	}
	for _, meta := range []string{"", "0", "0 p", "0 script>"} {
		if ok, why, _ := new(runtime.Host).Do(runtime.OpHTML, meta, nil); ok || why == "" {
			t.Errorf("%q was accepted", meta)
		}
	}
}
