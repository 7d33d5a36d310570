package e2e

import (
	"strings"
	"sync"
	"testing"

	"bulkhead/securitytests/hosttest"
)

// The parts of the web platform that Go does, behind the seal: key generation and signatures want random
// bytes on many threads at once, decompression wants goroutines, and nothing may open a file for it.
func TestWebPlatformBehindTheSeal(t *testing.T) {
	h := hosttest.Start(t, hosttest.Options{Policy: "tenants:\n  web: {limits: {cpu: 5s, concurrent: 64}}\n  busy: {limits: {cpu: 100ms}}\n", Quiet: true, Tenants: map[string]hosttest.Files{
		"web": hosttest.Worker(`export default { async fetch() {
			const S = crypto.subtle, data = new TextEncoder().encode("data");
			for (let i = 0; i < 5; i++) {
				const e = await S.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
				if (!await S.verify({ name: "ECDSA", hash: "SHA-256" }, e.publicKey, await S.sign({ name: "ECDSA", hash: "SHA-256" }, e.privateKey, data), data)) return new Response("ECDSA");
				const d = await S.generateKey("Ed25519", true, ["sign", "verify"]);
				if (!await S.verify("Ed25519", d.publicKey, await S.sign("Ed25519", d.privateKey, data), data)) return new Response("Ed25519");
			}
			const r = await S.generateKey({ name: "RSA-PSS", modulusLength: 1024, publicExponent: new Uint8Array([1, 0, 1]), hash: "SHA-256" }, true, ["sign", "verify"]);
			if (!await S.verify({ name: "RSA-PSS", saltLength: 32 }, r.publicKey, await S.sign({ name: "RSA-PSS", saltLength: 32 }, r.privateKey, data), data)) return new Response("RSA");
			const text = "again and again ".repeat(40000);
			const back = await new Response(new Blob([text]).stream().pipeThrough(new CompressionStream("gzip")).pipeThrough(new DecompressionStream("gzip"))).text();
			if (back !== text) return new Response("gzip");
			if (new TextDecoder("shift_jis").decode(new Uint8Array([0x93, 0xfa])) !== "\u65e5" || !new URLPattern("http{s}?://:h/*").test("https://a/b")) return new Response("text");
			const { port1, port2 } = new MessageChannel(); const got = new Promise((done) => { port2.onmessage = (e) => done(e.data); }); port1.postMessage("ok");
			return new Response(await got);
		} };`),
		"busy": hosttest.Worker(`export default { async fetch() {
			const k = await crypto.subtle.importKey("raw", new Uint8Array(8), "PBKDF2", false, ["deriveBits"]);
			await crypto.subtle.deriveBits({ name: "PBKDF2", hash: "SHA-512", salt: new Uint8Array(8), iterations: 2000000000 }, k, 512);
			return new Response("never");
		} };`),
	}})
	var wg sync.WaitGroup
	for range 48 {
		wg.Go(func() {
			if a := h.Get("web", "/"); a.Status != 200 || string(a.Body) != "ok" {
				t.Errorf("%d %s", a.Status, a.Body)
			}
		})
	}
	wg.Go(func() {
		if a := h.Get("busy", "/"); a.Status != 503 || !strings.Contains(string(a.Body), "exceededCpu") {
			t.Errorf("endless PBKDF2: %d %s", a.Status, a.Body)
		}
	})
	wg.Wait()
	for _, i := range h.Incidents() {
		// Half a second of CPU for one tenant's requests back to back is what suspicion leaves alone.
		if i.Kind != "isolated" && i.Kind != "gone" {
			t.Errorf("incident: %+v", i)
		}
	}
}
