package runtime_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"bulkhead/sandboxworker/engine"
	"bulkhead/sandboxworker/runtime"
	"bulkhead/schema/gen"
)

func TestCompressionStreams(t *testing.T) {
	for _, c := range []struct{ name, body string }{
		{"there and back", `
			const text = "some text that comes again, some text that comes again. ".repeat(5000), u8 = new TextEncoder().encode(text);
			for (const f of ["gzip", "deflate", "deflate-raw"]) {
				const packed = await new Response(new Blob([u8]).stream().pipeThrough(new CompressionStream(f))).bytes(); ok(packed.length < u8.length / 10, f + " is smaller: " + packed.length); eq(await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream(f))).text(), text, f);
				const w = new DecompressionStream(f), wr = w.writable.getWriter(); (async () => { for (let i = 0; i < packed.length; i += 7) await wr.write(packed.subarray(i, i + 7)); await wr.close(); })().catch((e) => fail(f + e)); eq((await new Response(w.readable).text()).length, text.length, f + " in small chunks");
				const none = await new Response(new Blob([]).stream().pipeThrough(new CompressionStream(f))).bytes(); eq((await new Response(new Blob([none]).stream().pipeThrough(new DecompressionStream(f))).bytes()).length, 0, f + " of nothing"); }`},
		{"refused", `
			const un = (f, b) => new Response(new Blob([new Uint8Array(b)]).stream().pipeThrough(new DecompressionStream(f))).bytes(); const pack = async (f, s) => [...await new Response(new Blob([s]).stream().pipeThrough(new CompressionStream(f))).bytes()];
			for (const f of ["gzip", "deflate", "deflate-raw"]) { const good = await pack(f, "hello"); await rejects(un(f, good.slice(0, -1)), TypeError, f + " cut"); await rejects(un(f, [...good, 0]), TypeError, f + " with more behind"); await rejects(un(f, []), TypeError, f + " empty"); await rejects(un(f, [1, 2, 3, 255, 255]), TypeError, f + " garbage");
				if (f !== "deflate-raw") { const bad = good.slice(); bad[bad.length - (f === "gzip" ? 6 : 2)] ^= 1; await rejects(un(f, bad), TypeError, f + " checksum"); }
				const d = new DecompressionStream(f), w = d.writable.getWriter(), r = new Response(d.readable).bytes(); await w.write(new Uint8Array(good)); const late = w.write(new Uint8Array([1])); await rejects(late, TypeError, f + " late data"); await rejects(r, TypeError, f + " reader hears of it"); }
			throws(() => new CompressionStream("brotli"), TypeError, "format"); throws(() => new DecompressionStream(), TypeError, "arguments"); const c = new CompressionStream("gzip"), w = c.writable.getWriter(); w.closed.catch(() => {}); const rd = c.readable.getReader(); rd.closed.catch(() => {}); rd.read().catch(() => {}); await rejects(w.write("text"), TypeError, "string chunk"); throws(() => new CompressionStream({ toString() { throw new RangeError("t"); } }), RangeError, "toString");`},
		{"cancelled and abandoned", `
			for (let i = 0; i < 40; i++) { const d = new DecompressionStream("gzip"), w = d.writable.getWriter(); w.closed.catch(() => {}); const r = d.readable.getReader(); w.write(new Uint8Array([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])).catch(() => {}); await scheduler.wait(1); await r.cancel("enough"); }
			const open = []; let refused; for (let i = 0; i < 20; i++) { const d = new DecompressionStream("gzip"); const w = d.writable.getWriter(); w.closed.catch(() => {}); new Response(d.readable).bytes().catch(() => {}); try { await w.write(new Uint8Array([0x1f])); open.push(w); } catch (e) { refused = e; break; } } ok(open.length === 16 && refused instanceof TypeError && /limit is 16/.test(refused.message), "bounded: " + open.length + refused); for (const w of open) await w.abort();`},
	} {
		t.Run(c.name, func(t *testing.T) { script(t, c.body) })
	}
}

// Others read what we write, and we what they write.
func TestCompressionInterop(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	data := make([]byte, 300_000)
	for i := range data {
		data[i] = byte(rng.IntN(1 + i%40))
	}
	w := load(t, `export default { fetch(r) { const [way, format] = new URL(r.url).pathname.slice(1).split("/"); return new Response(r.body.pipeThrough(way === "in" ? new DecompressionStream(format) : new CompressionStream(format))); } }`)
	for _, f := range []struct {
		name string
		w    func(io.Writer) io.WriteCloser
		r    func(io.Reader) (io.Reader, error)
	}{
		{"gzip", func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }, func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
		{"deflate", func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }, func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) }},
		{"deflate-raw", func(w io.Writer) io.WriteCloser { fw, _ := flate.NewWriter(w, 6); return fw }, func(r io.Reader) (io.Reader, error) { return flate.NewReader(r), nil }},
	} {
		send := func(path string, body []byte) []byte {
			a := w.send(uint32(len(w.answers)+100), engine.Request{Method: "POST", URL: "http://t.localhost" + path, BodyMode: gen.BodyMode_whole, Body: body})
			inv := uint32(len(w.answers) + 99)
			for i := 0; i < 1000 && a.finished == 0; i++ {
				w.settle()
				w.take(w.iso.Window(w.now, inv, 1<<20))
			}
			if a.finished != 1 || a.outcome != gen.Outcome_ok {
				t.Fatalf("%s: %d %v %s %q", path, a.finished, a.outcome, a.message, w.logs)
			}
			return []byte(a.body.String())
		}
		packed := send("/out/"+f.name, data)
		r, err := f.r(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		if back, err := io.ReadAll(r); err != nil || !bytes.Equal(back, data) {
			t.Errorf("%s: Go reads %d bytes of ours, %v", f.name, len(back), err)
		}
		var theirs bytes.Buffer
		zw := f.w(&theirs)
		zw.Write(data)
		zw.Close()
		if back := send("/in/"+f.name, theirs.Bytes()); !bytes.Equal(back, data) {
			t.Errorf("%s: we read %d bytes of Go's, want %d", f.name, len(back), len(data))
		}
	}
}

// What comes out of one step is bounded, whatever goes in, and goroutines end with their isolate.
func TestInflateIsBounded(t *testing.T) {
	var bomb bytes.Buffer
	zw := gzip.NewWriter(&bomb)
	for range 64 {
		zw.Write(make([]byte, 1<<20))
	}
	zw.Close()
	var h runtime.Host
	ok, state, out := h.Do(runtime.OpInflate, "1 gzip in", bomb.Bytes())
	total := len(out)
	for n := 0; ok && state == "more" && n < 1000; n++ {
		if len(out) > 300<<10 {
			t.Fatalf("%d bytes at once", len(out))
		}
		ok, state, out = h.Do(runtime.OpInflate, "1 gzip more", nil)
		total += len(out)
	}
	if !ok || state != "done" || total != 64<<20 {
		t.Errorf("%v %s %d", ok, state, total)
	}
	for i := range 16 {
		h.Inv = uint32(i % 2)
		if ok, why, _ := h.Do(runtime.OpInflate, fmt.Sprintf("%d gzip in", 10+i), bomb.Bytes()[:100]); !ok && i < 15 {
			t.Fatal(i, why)
		}
	}
	h.Forget(1)
	if ok, why, _ := h.Do(runtime.OpInflate, "99 gzip in", bomb.Bytes()); !ok {
		t.Error("no room after an invocation ended: ", why)
	}
	h.Close()
	for _, meta := range []string{"", "x gzip in", "1 zip in", "1 gzip"} {
		if ok, why, _ := h.Do(runtime.OpInflate, meta, nil); ok || why == "" {
			t.Errorf("%q was accepted", meta)
		}
	}
	for _, meta := range []string{"", "gzip x 0 0", "gzip 0 0 99"} {
		if ok, why, _ := h.Do(runtime.OpDeflate, meta, nil); ok || why == "" {
			t.Errorf("%q was accepted", meta)
		}
	}
}
