package runtime_test

import (
	"os"
	"strings"
	"testing"
)

// AsyncLocalStorage follows promises, timers, microtasks, messages and what is bound; each invocation has
// its own.
func TestAsyncLocalStorage(t *testing.T) {
	w := load(t, `import { AsyncLocalStorage, AsyncResource } from "node:async_hooks"; import hooks from "node:async_hooks";
`+scriptPrelude+`const als = new AsyncLocalStorage(), other = new AsyncLocalStorage();
		export default { async fetch(request, env, ctx) {
			ok(hooks.AsyncLocalStorage === AsyncLocalStorage, "default export"); eq(als.getStore(), undefined, "none"); const tick = () => new Promise((r) => setTimeout(r, 1));
			const out = await als.run("a", async (x) => { eq([als.getStore(), x], ["a", 5], "sync"); await null; eq(als.getStore(), "a", "await"); await tick(); eq(als.getStore(), "a", "timer"); await new Promise((r) => queueMicrotask(() => { eq(als.getStore(), "a", "microtask"); r(); })); await crypto.subtle.digest("SHA-1", new Uint8Array(1)); eq(als.getStore(), "a", "operation");
				await other.run("o", async () => { await tick(); eq([als.getStore(), other.getStore()], ["a", "o"], "two"); await als.run("b", async () => { await tick(); eq([als.getStore(), other.getStore()], ["b", "o"], "inner"); }); eq(als.getStore(), "a", "outer again"); als.exit(() => eq([als.getStore(), other.getStore()], [undefined, "o"], "exit")); });
				const { port1, port2 } = new MessageChannel(); await new Promise((r) => { port2.onmessage = () => { eq(als.getStore(), "a", "message"); r(); }; port1.postMessage(1); }); const t = new EventTarget(); t.addEventListener("x", () => eq(als.getStore(), "a", "event")); t.dispatchEvent(new Event("x")); return "done"; }, 5);
			eq(out, "done", "value"); eq(als.getStore(), undefined, "left"); throws(() => als.run(1, () => { throw new RangeError("r"); }), RangeError, "throws"); eq(als.getStore(), undefined, "left by throwing");
			const snap = als.run("s", () => AsyncLocalStorage.snapshot()), bound = als.run("b", () => AsyncLocalStorage.bind(function (x) { return [als.getStore(), x, this?.me]; })), res = als.run("r", () => new AsyncResource("R")); eq(snap((x) => als.getStore() + x, "!"), "s!", "snapshot"); eq(bound.call({ me: 1 }, 2), ["b", 2, 1], "bind"); eq(bound.length, 1, "length"); eq(res.runInAsyncScope(function (x) { return [als.getStore(), this, x]; }, "this", 3), ["r", "this", 3], "resource");
			await Promise.all(["1", "2", "3"].map((v) => als.run(v, async () => { for (let i = 0; i < 5; i++) { await tick(); eq(als.getStore(), v, "concurrent"); } }))); als.enterWith("e"); eq(als.getStore(), "e", "enterWith"); await tick(); eq(als.getStore(), "e", "enterWith lasts"); als.disable(); eq(als.getStore(), undefined, "disabled"); eq(new AsyncLocalStorage({ defaultValue: 7 }).getStore(), 7, "default value");
			for (let i = 0; i < 1e4; i++) als.enterWith(i); eq(als.getStore(), 9999, "no list grows"); throws(() => als.run(1), TypeError, "callback"); throws(() => AsyncLocalStorage.prototype.run.call({}, 1, () => {}), TypeError, "brand"); throws(() => new AsyncResource(1), TypeError, "type"); await rejects(import("node:fs"), Error, "no such module"); ok((await import("node:async_hooks")).AsyncLocalStorage === AsyncLocalStorage, "dynamic import");
			return new Response(failures.join("\n")); } }`)
	for range 2 {
		if got := w.get(); got != "" || len(w.logs) != 0 {
			t.Error(got, w.logs)
		}
	}
}

// A bundle's own module of a name comes first, and what nobody has is an error with its place.
func TestBuiltinModules(t *testing.T) {
	_, out := tryLoad(t, `import "node:nothing"; export default { fetch() {} }`)
	if out.Failure == nil || !strings.Contains(out.Failure.Message, `Cannot find module "node:nothing"`) || out.Failure.Line != 1 {
		t.Errorf("%+v", out.Failure)
	}
}

func TestWasmStreaming(t *testing.T) {
	if os.Getenv(profileEnv) != "jit+wasm" {
		script(t, `eq(typeof WebAssembly, "undefined", "no WebAssembly in this profile");`)
		return
	}
	script(t, `
		const code = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 127, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 6, 1, 4, 0, 65, 42, 11]); const r = (b = code, h = { "content-type": "application/wasm" }, s = 200) => new Response(b, { headers: h, status: s });
		const m = await WebAssembly.compileStreaming(r()); ok(m instanceof WebAssembly.Module, "module"); const { instance, module } = await WebAssembly.instantiateStreaming(Promise.resolve(r()), {}); eq(instance.exports.f(), 42, "runs"); ok(module instanceof WebAssembly.Module, "both");
		for (const bad of [r(code, {}), r(code, { "content-type": "text/plain" }), r(code, { "content-type": "application/wasm; x" }), r(code, undefined, 404), {}, undefined]) await rejects(WebAssembly.compileStreaming(bad), TypeError, "refused"); await rejects(WebAssembly.compileStreaming(r(new Uint8Array(3))), WebAssembly.CompileError, "garbage"); const used = r(); await used.text(); await rejects(WebAssembly.compileStreaming(used), TypeError, "used"); await rejects(WebAssembly.compileStreaming(Promise.reject(new RangeError("no"))), RangeError, "rejected");`)
}
