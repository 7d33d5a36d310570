package canary

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

// worker is the tenant that holds the secrets.
const worker = `
import text from "./secret.txt";
import data from "./secret.bin";
const inCode = "CODE";
const held = (globalThis.held = { never: () => { const s = "COMMENT"; return s + s; } });
const hex = (h) => Uint8Array.from(h.match(/../g), (x) => parseInt(x, 16));
const ascii = (b) => String.fromCharCode(...b);

// Each keeps what it made, and leaves what it made it from.
const make = {
	"one-byte string": (b) => ascii(b),
	"two-byte string": (b) => ascii(b) + "\u2603",
	"cons string": (b) => ascii(b.subarray(0, 30)) + held + ascii(b.subarray(30)) + ascii(b),
	"sliced string": (b) => ("left out of it, and long enough " + ascii(b)).substring(20),
	"property name": (b) => ({ [ascii(b)]: 1 }),
	"symbol": (b) => Symbol.for(ascii(b)),
	"regular expression": (b) => { const r = new RegExp(ascii(b), "i"); return [r, r.exec("x" + ascii(b) + "y"), RegExp.lastMatch]; },
	"array of doubles": (b) => Array.from(new Float64Array(b.slice().buffer)),
	"typed array": (b) => { const t = new Uint8Array(1000); t.set(b, 100); return t; },
	"small typed array": (b) => b.slice(),
	"ArrayBuffer": (b) => { const t = new Uint8Array(100_000); for (let i = 0; i + 48 <= t.length; i += 1000) t.set(b, i); return t.buffer; },
	"large ArrayBuffer": (b) => { const t = new Uint8Array(9 << 20); for (let i = 0; i + 48 <= t.length; i += 100_000) t.set(b, i); return t.buffer; },
	"resizable ArrayBuffer": (b) => { const r = new ArrayBuffer(4096, { maxByteLength: 1 << 20 }); r.resize(100_000); new Uint8Array(r).set(b, 50_000); return r; },
	"map key": (b) => [new Map([[ascii(b), 1]]), new Set([ascii(b) + "x"])],
	"pending promise": (b) => new Promise(() => {}).then(() => ascii(b), ascii(b)) && Promise.resolve(ascii(b)),
	"timer argument": (b) => setTimeout((s) => s, 3_000_000, ascii(b)),
	"closure": (b) => { const s = ascii(b); return () => s; },
	"error stack": (b) => { const e = new Error(ascii(b)); return [e, e.stack]; },
	"structured clone": (b) => structuredClone({ a: [ascii(b)], m: new Map([[1, ascii(b)]]), b }),
	"JSON": (b) => [JSON.parse(JSON.stringify({ a: ascii(b), ["k" + ascii(b)]: [ascii(b)] })), JSON.stringify([ascii(b), "\u2603" + ascii(b)])],
	"decoded text": (b) => [new TextDecoder().decode(b), new TextDecoder("utf-16le").decode(new Uint8Array([...b].flatMap((x) => [x, 0])))],
	"encoded text": (b) => new TextEncoder().encode(ascii(b) + "\u2603" + ascii(b)),
	"base64": (b) => [btoa(ascii(b)), atob(btoa(ascii(b)))],
	"digest and HMAC key": (b) => Promise.all([b, crypto.subtle.digest("SHA-256", b), crypto.subtle.importKey("raw", b, { name: "HMAC", hash: "SHA-256" }, true, ["sign"]).then((k) => crypto.subtle.sign("HMAC", k, b))]),
	"URL object": (b) => { const u = new URL("https://a.example/" + ascii(b) + "?q=" + ascii(b)); u.hash = ascii(b); return [u, u.href, u.searchParams.get("q"), new URLSearchParams({ a: ascii(b) }).toString()]; },
	"form data": async (b) => { const f = new FormData(); f.set("a", ascii(b)); f.set("f", new File([b], ascii(b))); return [f, await new Response(f).text()]; },
	"blob": async (b) => { const x = new Blob([b, ascii(b)]); return [x, await x.text(), await x.arrayBuffer()]; },
	"stream queue": (b) => { const t = new TransformStream(); t.writable.getWriter().write(b.slice()); return [t, new ReadableStream({ start(c) { c.enqueue(b.slice()); c.enqueue(ascii(b)); } })]; },
	"normalised text": (b) => [ascii(b).normalize("NFD"), (ascii(b) + "\u00e9").normalize("NFD"), (ascii(b) + "\u0130").toLowerCase(), ascii(b).toLocaleUpperCase("tr").toLocaleLowerCase("tr")],
	"collated text": (b) => [ascii(b).localeCompare(ascii(b) + "\u00e9", "de"), [ascii(b), "b\u00e9"].sort(new Intl.Collator("fr").compare), [...new Intl.Segmenter("en", { granularity: "word" }).segment(ascii(b) + " \u00e9")].length],
	"formatted number": (b) => [new Intl.DateTimeFormat("en", { era: "long" }).format(0) + ascii(b), new Intl.ListFormat("en").format([ascii(b), ascii(b)]), BigInt("0x" + [...b].map((x) => x.toString(16)).join("")).toString(10), ascii(b).replaceAll(/./g, (c) => c)],
	"garbage": (b) => { for (let i = 0; i < 20_000; i++) held.last = [ascii(b).slice(0, 40) + i, b.slice()]; return 0; },
	"WebAssembly memory": (b) => { if (typeof WebAssembly !== "object") return ascii(b); const m = new WebAssembly.Memory({ initial: 2, maximum: 8 }); new Uint8Array(m.buffer).set(b, 70_000); m.grow(1); new Uint8Array(m.buffer).set(b, 150_000); return m; },
};

const repeated = (s, length) => { const line = s + "\n"; return line.repeat(Math.ceil(length / line.length)); };

export default { async fetch(request, env, ctx) {
	const url = new URL(request.url);
	held.seen ??= [];
	held.seen.push(url.search, [...request.headers], env, inCode, text, data);
	switch (url.pathname) {
	case "/plant": {
		const seeds = await request.json();
		const failed = [];
		for (const [place, secret] of Object.entries(seeds)) {
			try { held[place] = await make[place](hex(secret)); } catch (e) { failed.push(place + ": " + e); }
		}
		return Response.json({ failed });
	}
	case "/body": held.body = await request.text(); return new Response(url.searchParams.get("say") + "!", { headers: { "x-secret": "RESPONSEHEADER" } });
	case "/upload": {
		const chunks = [];
		for await (const c of request.body) chunks.push(c);
		held.chunks = chunks;
		return new Response(String(chunks.reduce((n, c) => n + c.length, 0)));
	}
	case "/download": {
		const line = new TextEncoder().encode(repeated("LONGRESPONSE", 30_000));
		let n = 0;
		return new Response(new ReadableStream({ pull(c) { c.enqueue(line.slice()); if (++n === 20) c.close(); } }));
	}
	case "/answer": return new Response("RESPONSEBODY");
	case "/log": console.log("LOG"); console.error(new Error("LOG"), { a: ["LOG"] }); return new Response("said");
	case "/throw": throw new Error("EXCEPTION");
	case "/fetch": {
		const r = await fetch(url.searchParams.get("up") + "/?q=SUBURL", { method: "POST", headers: { "x-secret": "SUBHEADER" }, body: repeated("SUBBODY", 100_000) });
		held.answer = [await r.text(), [...r.headers]];
		return new Response(String(held.answer[0].length));
	}
	}
	return new Response("?", { status: 404 });
} };
`

// words are the worker's stand-ins for the secrets in its source.
var words = map[string]Place{
	"COMMENT": Comment, "CODE": Code, "RESPONSEHEADER": ResponseHeader, "RESPONSEBODY": ResponseBody, "LONGRESPONSE": LongResponse,
	"LOG": Log, "EXCEPTION": Exception, "SUBURL": SubURL, "SUBHEADER": SubHeader, "SUBBODY": SubBody,
}

// Files are the folder of a tenant with these secrets.
func (s *Secrets) Files() map[string]string {
	source := worker
	for word, p := range words {
		for _, quote := range [][2]string{{`"`, `"`}, {"=", `"`}} {
			source = strings.ReplaceAll(source, quote[0]+word+quote[1], quote[0]+s.Of(p)+quote[1])
		}
	}
	vars, err := json.Marshal(map[string]any{"TEXT": s.Of(EnvText), "JSON": map[string]any{"a": []string{s.Of(EnvJSON)}}})
	if err != nil {
		panic(fmt.Sprintf("BUG: encode strings: %v", err))
	}
	return map[string]string{
		"worker.js": source, "secret.txt": s.Of(TextModule), "secret.bin": s.Of(DataModule),
		"bulkhead.yaml": "main: worker.js\nvars: " + string(vars) + "\n",
	}
}

// Upstream answers the tenant's subrequests with a secret.
func (s *Secrets) Upstream() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // a client that gave up is the visit's to report
		w.Header().Set("X-Secret", s.Of(SubAnswerHeader))
		_, _ = io.WriteString(w, strings.Repeat(s.Of(SubAnswer)+"\n", 2000))
	})
}

// Visit sends the tenant the requests by which each secret gets to its place. send speaks to the host;
// upstream is the URL at which Upstream answers.
func (s *Secrets) Visit(ctx context.Context, tenant, upstream string, send func(*http.Request) (status int, body string, err error)) error {
	long := []byte(strings.Repeat(s.Of(LongBody)+"\n", 8000))
	for _, v := range []struct {
		path   string
		body   []byte
		status int
	}{
		{"/plant", s.seeds(), 200},
		{"/body?say=" + s.Of(URL), []byte(s.Of(RequestBody)), 200},
		{"/upload", long, 200},
		{"/download", nil, 200},
		{"/answer", nil, 200},
		{"/log", nil, 200},
		{"/throw", nil, 500},
		{"/fetch?up=" + upstream, nil, 200},
	} {
		method, body := "GET", io.Reader(nil)
		if v.body != nil {
			method, body = "POST", bytes.NewReader(v.body)
		}
		req, err := http.NewRequestWithContext(ctx, method, "http://"+tenant+".localhost"+v.path, body)
		if err != nil {
			return err
		}
		req.Header.Set("X-Secret", s.Of(RequestHeader))
		status, text, err := send(req)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", v.path, err)
		case status != v.status:
			return fmt.Errorf("%s: status %d, not %d: %.500s", v.path, status, v.status, text)
		case v.path == "/plant" && text != `{"failed":[]}`:
			return fmt.Errorf("%s: %.500s", v.path, text)
		case v.path == "/upload" && text != fmt.Sprint(len(long)):
			return fmt.Errorf("%s: it read %s bytes of %d", v.path, text, len(long))
		case v.path == "/download" && !slices.Contains(s.In(text), LongResponse):
			return fmt.Errorf("%s: the secret is not in the answer of %d bytes", v.path, len(text))
		}
	}
	return nil
}
