package scheduler

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/ipc/ipctest"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"
)

// loadFetcher starts a tenant whose subrequests fetch answers.
func (h *shard) loadFetcher(source string, fetch func(*gatewayside.Subrequest), edit ...func(*limits.Tenant)) uint32 {
	h.t.Helper()
	l := limits.DefaultTenant()
	for _, e := range edit {
		e(&l)
	}
	h.mu.Lock()
	h.next++
	n := h.next
	h.mu.Unlock()
	res, err := h.Load(h.t.Context(), gatewayside.LoadRequest{Tenant: n, Bundle: ipctest.Bundle(h.t, source), Limits: l, Fetch: fetch})
	if err != nil || res.Failed != nil {
		h.t.Fatalf("load: %v, %+v", err, res.Failed)
	}
	return n
}

// echo answers with what it was asked.
func echo(r *gatewayside.Subrequest) {
	body, err := io.ReadAll(r)
	if err != nil {
		r.Fail(err.Error())
		return
	}
	r.Respond(&gatewayside.Answer{Status: 203, StatusText: "Fine", URL: r.URL + "?final", Redirected: true,
		Headers: []byte("content-type\ntext/plain\nx-\nlatin1 \xe9\nset-cookie\na=1\nset-cookie\nb=2\n")})
	fmt.Fprintf(r, "%s %s %d|%s|%s", r.Method, r.URL, r.Redirect, r.Headers, body)
	r.End()
}

func TestFetch(t *testing.T) {
	h := startShard(t, Options{})
	n := h.loadFetcher(`export default { async fetch(r) {
		const res = await fetch("http://up.test/a?b#c", { method: "patch", headers: { "X-A": "caf\xe9" }, body: "hällo", redirect: "manual" });
		const out = [res.status, res.statusText, res.ok, res.url, res.redirected, res.type, res.headers.get("x-"), res.headers.getSetCookie().length];
		try { res.headers.set("a", "b"); out.push("mutable"); } catch (e) { out.push(e.name); }
		const copy = res.clone();
		out.push(await res.text(), (await copy.arrayBuffer()).byteLength, res.bodyUsed);
		return Response.json(out);
	} }`, echo)
	got := h.get(n, "/")
	body := "patch http://up.test/a?b 2|x-a\ncaf\u00e9\ncontent-type\ntext/plain;charset=UTF-8\n|hällo"
	raw := strings.Replace(body, "caf\u00e9", "caf\xe9", 1)
	want := fmt.Sprintf(`[203,"Fine",true,"http://up.test/a?b?final",true,"basic","latin1 é",2,"TypeError",%s,%d,true]`,
		strings.NewReplacer("\n", `\n`, "\u00e9", "\ufffd").Replace(`"`+body+`"`), len(raw))
	if got.err != nil || got.body != want {
		t.Errorf("got  %v %s\nwant %s", got.err, got.body, want)
	}
}

func TestFetchShapes(t *testing.T) {
	h := startShard(t, Options{})
	n := h.loadFetcher(`
	let startup; try { startup = await fetch("http://up.test/").then(() => "ok", (e) => e.message); } catch (e) { startup = e.message; }
	const name = (p) => p.then((v) => "resolved " + v.status, (e) => e.name + ": " + e.message);
	export default { async fetch(r, env, ctx) {
		switch (new URL(r.url).pathname) {
		case "/startup": return new Response(startup);
		case "/fails": return new Response(await name(fetch("http://fails.test/")));
		case "/scheme": return new Response(await name(fetch("ftp://up.test/")));
		case "/relative": return new Response(await name(fetch("/x")));
		case "/credentials": return new Response(await name(fetch("http://a:b@up.test/")));
		case "/get-with-body": return new Response(await name(fetch("http://up.test/", { body: "x" })));
		case "/long-method": return new Response(await name(fetch("http://up.test/", { method: "A".repeat(40) })));
		case "/aborted": return new Response(await name(fetch("http://hangs.test/", { signal: AbortSignal.abort() })));
		case "/timeout": return new Response(await name(fetch("http://hangs.test/", { signal: AbortSignal.timeout(20) })));
		case "/cut": { const res = await fetch("http://cut.test/"); return new Response(await res.text().catch((e) => e.name + ": " + e.message)); }
		case "/abort-body": {
			const c = new AbortController(), res = await fetch("http://endless.test/", { signal: c.signal });
			const reader = res.body.getReader();
			await reader.read();
			setTimeout(() => c.abort(), 5);
			try { for (;;) await reader.read(); } catch (e) { return new Response(e.name); }
		}
		case "/cancel-body": { const res = await fetch("http://endless.test/"); await res.body.cancel(); return new Response("cancelled"); }
		case "/null-body": { const res = await fetch("http://empty.test/"); return new Response(String(res.body) + res.status); }
		case "/pass": return fetch("http://up.test/" , { method: "POST", body: r.body });
		case "/pass-endless": return fetch("http://endless.test/");
		case "/stream-fails": return new Response(await name(fetch("http://up.test/", { method: "POST",
			body: new ReadableStream({ start(c) { c.enqueue(new Uint8Array(10)); }, pull(c) { c.error(new RangeError("dry")); } }) })));
		case "/unread": { for (let i = 0; i < 70; i++) await fetch("http://up.test/" + i); return new Response("ok"); }
		case "/many": {
			const all = await Promise.all(Array.from({ length: 200 }, (_, i) => fetch("http://up.test/" + i).then((x) => x.text())));
			return new Response(String(all.filter((x, i) => x.startsWith("GET http://up.test/" + i + " ")).length));
		}
		case "/pending": {
			const all = Array.from({ length: 250 }, () => fetch("http://hangs.test/").catch((e) => e.name));
			const first = await Promise.race(all);
			return new Response(first);
		}
		case "/limit": {
			let n = 0;
			try { for (;;) { await (await fetch("http://up.test/")).text(); n++; } } catch (e) { return new Response(n + " " + e.message); }
		}
		case "/clock": {
			const t = Date.now();
			await fetch("http://slow.test/");
			return new Response(String(Date.now() - t >= 20));
		}
		case "/never": await fetch("http://hangs.test/"); return new Response("?");
		case "/wait": ctx.waitUntil(fetch("http://up.test/late")); return new Response("ok");
		}
	} }`, func(r *gatewayside.Subrequest) {
		host, _, _ := strings.Cut(strings.TrimPrefix(r.URL, "http://"), "/")
		switch host {
		case "fails.test":
			r.Fail("no such thing")
		case "hangs.test":
			<-r.Context().Done()
		case "slow.test":
			time.Sleep(25 * time.Millisecond)
			echo(r)
		case "cut.test":
			r.Respond(&gatewayside.Answer{Status: 200})
			io.WriteString(r, "half")
			r.Fail("the connection was cut")
		case "empty.test":
			r.Respond(&gatewayside.Answer{Status: 204, NoBody: true})
		case "endless.test":
			r.Respond(&gatewayside.Answer{Status: 200})
			for p := make([]byte, 50_000); ; {
				if _, err := r.Write(p); err != nil {
					return
				}
			}
		default:
			echo(r)
		}
	}, func(l *limits.Tenant) { l.Subrequests, l.CPU, l.Pending = 300, 5*time.Second, 210 })
	for path, want := range map[string]string{
		"/startup":       "fetch failed: start-up code belongs to no request",
		"/fails":         "TypeError: fetch failed: no such thing",
		"/scheme":        "TypeError: fetch failed: the scheme",
		"/relative":      "TypeError: Request constructor: invalid URL",
		"/credentials":   "TypeError: Request constructor: the URL includes credentials",
		"/get-with-body": "TypeError: Request with a GET",
		"/long-method":   "TypeError: fetch failed: method of 40 bytes",
		"/aborted":       "AbortError: ",
		"/timeout":       "TimeoutError: ",
		"/cut":           "TypeError: fetch failed: the connection was cut",
		"/abort-body":    "AbortError",
		"/cancel-body":   "cancelled",
		"/null-body":     "null204",
		"/stream-fails":  "TypeError: fetch failed: the request's body failed: RangeError: dry",
		"/unread":        "ok",
		"/many":          "200",
		"/pending":       "QuotaExceededError",
		"/limit":         "300 fetch failed: too many subrequests: one request may make 300",
		"/clock":         "true",
		"/wait":          "ok",
	} {
		got := h.get(n, path)
		if got.err != nil || !strings.HasPrefix(got.body, want) {
			t.Errorf("%s: %v %q, want %q", path, got.err, got.body, want)
		}
	}
	if n := h.Fetches(); n != 0 {
		t.Errorf("%d subrequests were never let go of", n)
	}
}

// Bodies both ways at once, larger than any window, under back-pressure; the client's request goes to
// the upstream and its response back.
func TestFetchStreams(t *testing.T) {
	h := startShard(t, Options{})
	n := h.loadFetcher(`export default { async fetch(r) {
		return fetch("http://up.test/", { method: "POST", body: r.body });
	} }`, func(r *gatewayside.Subrequest) {
		r.Respond(&gatewayside.Answer{Status: 200})
		if _, err := io.Copy(struct{ io.Writer }{r}, struct{ io.Reader }{r}); err != nil {
			r.Fail(err.Error())
		}
		r.End()
	}, roomy)
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB
	q := request(n, "/")
	q.Method, q.BodyMode = "POST", gen.BodyMode_streamed
	st, err := h.Open(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if err := errors.Join(st.WriteBody(t.Context(), body), st.CloseBody()); err != nil {
			t.Errorf("request body: %v", err)
		}
	}()
	a := h.finish(st)
	if a.err != nil || a.body != string(body) || a.result.Outcome != gen.Outcome_ok {
		t.Errorf("%d bytes, %v, %+v", len(a.body), a.err, a.result)
	}
}

// Who stops waiting stops the upstream call: a client that leaves, an invocation that ends, a limit.
func TestFetchEndsWithItsInvocation(t *testing.T) {
	h := startShard(t, Options{})
	started := make(chan struct{}, 8)
	var running atomic.Int32
	var all sync.WaitGroup
	n := h.loadFetcher(`export default { async fetch(r) {
		const p = fetch("http://hangs.test/");
		if (r.url.endsWith("/await")) await p;
		if (r.url.endsWith("/spin")) { await new Promise((f) => setTimeout(f, 30)); for (;;); }
		if (r.url.endsWith("/throw")) throw new Error("enough");
		return new Response("done");
	} }`, func(r *gatewayside.Subrequest) {
		all.Add(1)
		running.Add(1)
		started <- struct{}{}
		<-r.Context().Done()
		running.Add(-1)
		all.Done()
	})
	st, err := h.Open(t.Context(), request(n, "/await"))
	if err != nil {
		t.Fatal(err)
	}
	<-started
	st.Cancel(gen.Abort_Reason_clientGone, "")
	if a := h.finish(st); a.result.Outcome != gen.Outcome_canceled {
		t.Errorf("client gone: %+v", a.result)
	}
	for path, want := range map[string]gen.Outcome{"/": gen.Outcome_ok, "/throw": gen.Outcome_exception, "/spin": gen.Outcome_exceededCpu} {
		if a := h.get(n, path); a.result.Outcome != want {
			t.Errorf("%s: %+v", path, a.result)
		}
		<-started
	}
	st, err = h.Open(t.Context(), request(n, "/await"))
	if err != nil {
		t.Fatal(err)
	}
	<-started
	if err := h.Evict(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	h.finish(st)
	all.Wait()
	if n := running.Load(); n != 0 || h.Fetches() != 0 {
		t.Errorf("%d upstream calls go on, %d subrequests open", n, h.Fetches())
	}
}
