package scheduler

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"bulkhead/ipc/gatewayside"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"
)

func roomy(l *limits.Tenant) { l.CPU = 20 * time.Second }

func TestLargeBodies(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`const chunk = new Uint8Array(100_000).fill(120);
	export default { async fetch(r) {
		switch (new URL(r.url).pathname) {
		case "/whole": return new Response("x".repeat(1_000_000));
		case "/stream": {
			let left = 200;
			return new Response(new ReadableStream({ pull(c) {
				if (left-- > 0) c.enqueue(chunk); else c.close();
			} }));
		}
		case "/fails": return new Response(new ReadableStream({ start(c) { c.enqueue(chunk); }, pull(c) { c.error(new Error("dry")); } }));
		case "/echo": return new Response(r.body);
		case "/count": {
			let n = 0;
			for await (const c of r.body) n += c.byteLength;
			return new Response(String(n));
		}
		}
	} }`, roomy)
	whole := h.get(n, "/whole")
	if whole.err != nil || len(whole.body) != 1_000_000 || whole.result.Outcome != gen.Outcome_ok {
		t.Errorf("whole: %d bytes, %v, %+v", len(whole.body), whole.err, whole.result)
	}
	stream := h.get(n, "/stream")
	if stream.err != nil || len(stream.body) != 20_000_000 || strings.Trim(stream.body, "x") != "" {
		t.Errorf("stream: %d bytes, %v", len(stream.body), stream.err)
	}
	if fails := h.get(n, "/fails"); fails.err == nil {
		t.Error("a failed stream ended as if it were whole")
	}
	for _, path := range []string{"/echo", "/count"} {
		body := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB
		r := request(n, path)
		r.Method, r.BodyMode = "POST", gen.BodyMode_streamed
		st, err := h.Open(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		wrote := make(chan error, 1)
		go func() {
			err := st.WriteBody(context.Background(), body)
			if err == nil {
				err = st.CloseBody()
			}
			wrote <- err
		}()
		a := h.finish(st)
		if err := <-wrote; err != nil {
			t.Errorf("%s: upload: %v", path, err)
		}
		want := string(body)
		if path == "/count" {
			want = fmt.Sprint(len(body))
		}
		if a.err != nil || a.body != want || a.result.Outcome != gen.Outcome_ok {
			t.Errorf("%s: %d bytes, %v, %+v", path, len(a.body), a.err, a.result)
		}
	}
}

// A client that does not read holds up its own stream only, and bounds what its tenant makes.
func TestStalledReader(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`let made = 0;
	export default { fetch(r) {
		if (r.url.endsWith("/made")) return new Response(String(made));
		return new Response(new ReadableStream({ pull(c) { made += 65536; c.enqueue(new Uint8Array(65536)); } }));
	} }`, roomy)
	st, err := h.Open(t.Context(), request(n, "/"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Head(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	a := h.get(n, "/made")
	var made int
	if _, err := fmt.Sscan(a.body, &made); err != nil || made < 65536 || made > 1<<20 {
		t.Errorf("an unread stream made %q bytes (%v)", a.body, err)
	}
	if _, err := io.CopyN(io.Discard, st, 4<<20); err != nil {
		t.Errorf("reading on: %v", err)
	}
	st.Cancel(gen.Abort_Reason_clientGone, "")
	if a := h.finish(st); a.result.Outcome != gen.Outcome_canceled {
		t.Errorf("result %+v", a.result)
	}
}

func TestRefusedResponseBody(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { fetch() {
		return new Response(new ReadableStream({ pull(c) { c.enqueue(new Uint8Array(65536)); } }));
	} }`, roomy)
	st, err := h.Open(t.Context(), request(n, "/"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Head(t.Context()); err != nil {
		t.Fatal(err)
	}
	st.Cancel(gen.Abort_Reason_refused, "HEAD")
	if a := h.finish(st); a.result.Outcome != gen.Outcome_ok {
		t.Errorf("result %+v", a.result)
	}
}

func TestBadHeadersAreTheTenantsFault(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { fetch(r) {
		const headers = new Headers();
		if (r.url.endsWith("/many")) for (let i = 0; i < 200; i++) headers.set("x-" + i, "1");
		if (r.url.endsWith("/long")) headers.set("x", "y".repeat(100_000));
		return new Response("ok", { headers });
	} }`)
	for _, p := range []string{"/many", "/long"} {
		h.wantOutcome(h.get(n, p), gen.Outcome_exception)
	}
	if a := h.get(n, "/"); a.body != "ok" {
		t.Errorf("afterwards: %+v", a)
	}
}

func TestTimersFireInNominalOrder(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { async fetch() {
		const seen = [], start = Date.now();
		const at = ms => new Promise(r => setTimeout(() => { seen.push(ms + "@" + (Date.now() - start)); r(); }, ms));
		await Promise.all([at(30), at(10), at(0), at(20)]);
		return new Response(seen.join(" "));
	} }`)
	// 0 means 1: timers take at least a millisecond.
	h.wantOK(h.get(n, "/"), "0@1 10@10 20@20 30@30")
}

func TestClockStandsStillWithinATurn(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { async fetch(r) {
		const a = Date.now();
		for (let i = 0; i < 1e6; i++) Math.sqrt(i);
		await crypto.subtle.digest("SHA-256", new Uint8Array(1000));
		return new Response(String(Date.now() - a) + " " + a);
	} }`)
	r := request(n, "/")
	r.ReceivedMs = float64(time.Now().UnixMilli() + 5000)
	st, err := h.Open(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	h.wantOK(h.finish(st), fmt.Sprintf("0 %d", int64(r.ReceivedMs)))
	// An older event does not turn the clock back.
	h.wantOK(h.get(n, "/"), fmt.Sprintf("0 %d", int64(r.ReceivedMs)))
}

func TestOperations(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { async fetch() {
		const all = await Promise.all(Array.from({ length: 2000 }, (_, i) =>
			crypto.subtle.digest("SHA-256", new Uint8Array(i)).then(d => d.byteLength, e => String(e))));
		return new Response(all.filter(n => n === 32).length + " of " + all.length);
	} }`, roomy)
	h.wantOK(h.get(n, "/"), "2000 of 2000")
}

func TestLogs(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`console.log("start"); export default { fetch(r) {
		if (r.url.endsWith("/bomb")) for (let i = 0; i < 20000; i++) console.log("x".repeat(100));
		console.warn("got", { a: 1 }); return new Response("ok");
	} }`, func(l *limits.Tenant) { l.LogBytes, l.CPU = 10_000, 5*time.Second })
	h.wantOK(h.get(n, "/"), "ok")
	h.wantOK(h.get(n, "/bomb"), "ok")
	deadline := time.Now().Add(5 * time.Second)
	var got []gatewayside.LogEntry
	for time.Now().Before(deadline) {
		h.mu.Lock()
		got = append([]gatewayside.LogEntry(nil), h.logs[n]...)
		h.mu.Unlock()
		if len(got) > 50 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(got) < 3 || got[0].Text != "start" || got[0].RequestID != "" {
		t.Fatalf("got %d entries: %+v", len(got), got[:min(3, len(got))])
	}
	if g := got[1]; g.Level != gen.LogEntry_Level_warn || !strings.Contains(g.Text, "a: 1") || g.RequestID != "r-1" || g.Attempt != 1 {
		t.Errorf("entry = %+v", g)
	}
	total := 0
	for _, g := range got[2:] {
		total += len(g.Text)
	}
	if total > 11_000 {
		t.Errorf("%d bytes of log passed a limit of 10,000", total)
	}
}

// 100 MB go up and down within the CPU limit of an ordinary tenant.
func TestHundredMegabytesWithinTheStandardLimit(t *testing.T) {
	h := startShard(t, Options{})
	n := h.load(`export default { fetch(r) { return new Response(r.body); } }`)
	r := request(n, "/")
	r.Method, r.BodyMode = "POST", gen.BodyMode_streamed
	st, err := h.Open(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() {
		block := make([]byte, 1<<20)
		for range 100 {
			if err := st.WriteBody(context.Background(), block); err != nil {
				wrote <- err
				return
			}
		}
		wrote <- st.CloseBody()
	}()
	if _, err := st.Head(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := io.Copy(io.Discard, st)
	if err != nil || got != 100<<20 {
		t.Errorf("%d bytes came back, %v", got, err)
	}
	if err := <-wrote; err != nil {
		t.Errorf("upload: %v", err)
	}
	<-st.Done()
	if res := st.Result(); res.Outcome != gen.Outcome_ok {
		t.Errorf("result %+v", res)
	} else {
		t.Logf("%d µs of CPU", res.CPUMicros)
	}
}
