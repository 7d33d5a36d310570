package engine

import (
	"slices"
	"testing"
)

// A block that one tenant wrote to comes to the next one zeroed, and neither's size is another's.
func TestFreedBlocksAreZeroed(t *testing.T) {
	locked(t)
	const src = `const keep = [];
	export default { fetch() {
		let dirty = 0;
		for (const size of [32769, 40000, 65535, 65536]) {
			for (let n = 0; n < 100; n++) {
				const u = new Uint8Array(size);
				for (let i = 0; i < size; i += 97) if (u[i] !== 0) dirty++;
				if (u[size - 1] !== 0) dirty++;
				u.fill(0xAB);
				if (u.buffer.transfer(0).byteLength !== 0) dirty++; // frees it now
			}
		}
		return String(dirty);
	} }`
	for range 2 {
		if got := ask(t, load(t, src)); got != "0" {
			t.Errorf("%s bytes of somebody else's", got)
		}
	}
}

func TestBlocksAreCounted(t *testing.T) {
	locked(t)
	i := load(t, `const kept = []; export default { fetch() { kept.push(new Uint8Array(40000)); return "ok" } }`)
	before := i.Usage().ExternalBytes
	for n := range 10 {
		get(i, uint32(n+1))
	}
	if grown := i.Usage().ExternalBytes - before; grown < 10*64<<10 {
		t.Errorf("ten buffers of 40,000 bytes count as %d bytes, but take 64 KiB each", grown)
	}
}

// BenchmarkChunk is a 64 KiB chunk of a request body that is handed to JavaScript and given back.
func BenchmarkChunk(b *testing.B) {
	locked(b)
	i := load(b, `export default { fetch() { const u = new Uint8Array(65536); u[1] = 1; u.buffer.transfer(0); return "ok" } }`)

	b.SetBytes(64 << 10)
	for b.Loop() {
		if t := get(i, 1); t.Status != OK {
			b.Fatal(t.Status)
		}
	}
}

// What a tenant floods the output with is gone once it is read: idle tenants would otherwise hold
// 33 MiB each outside their memory limit.
func TestLargeOutputIsGivenBack(t *testing.T) {
	if underASan {
		t.Skip("AddressSanitizer quarantines what is freed: the growth of the process means nothing")
	}
	locked(t)
	const src = `export default { fetch() { const s = "x".repeat(50000); try { for (;;) log(s); } catch {} return "ok" } }`
	get(load(t, src), 1) // V8's and malloc's own growth
	before := rss(t)
	// The output alone would be 8 × 33 MiB; V8's own young generations are some 13 MiB each.
	for range 8 {
		i := load(t, src)
		turn := get(i, 1)
		if len(turn.out) < 30<<20 {
			t.Fatalf("only %d bytes of output", len(turn.out))
		}
		i.Done(&turn)
		if n := len(slices.Collect(turn.Records())); n != 0 {
			t.Errorf("%d records after Done", n)
		}
	}
	if grown := rss(t) - before; grown > 200<<20 {
		t.Errorf("eight idle tenants hold %d MiB", grown>>20)
	}
}
