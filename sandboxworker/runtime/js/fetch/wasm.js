// WebAssembly.compileStreaming and instantiateStreaming (https://webassembly.github.io/spec/web-api/), where
// the profile has WebAssembly.

const installWasmStreaming = () => {
  const wasm = global.WebAssembly;
  if (!isObject(wasm) || wasm.compileStreaming !== undefined) return;
  const { compile, instantiate } = wasm;
  // The functions of a namespace are enumerable, and so are those the host has put in front of V8's.
  const gated = ["compile", "instantiate", "validate"];
  for (let i = 0; i < gated.length; i++) ObjectDefineProperty(wasm, gated[i], { __proto__: null, enumerable: true });
  // bytesOfSource takes a Response, or a promise of one, of the right type; gives a promise.
  const bytesOfSource = (source, what) => PromiseThen(PromiseResolve(source), (r) => {
    if (!isResponse(r)) throw new TypeError(`${what}: the source is not a Response.`);
    const s = responseState(r);
    if (s.status < 200 || s.status > 299) throw new TypeError(`${what}: the response's status is ${s.status}.`);
    const type = StringToLowerCase(responseHeaders(s).get("content-type") ?? "");
    if (type !== "application/wasm") throw new TypeError(`${what}: the response's Content-Type is not application/wasm.`);
    return consumeBody(s.body, "bytes", () => "");
  });
  const methods = {
    compileStreaming(source) {
      return PromiseThen(bytesOfSource(source, "WebAssembly.compileStreaming"), (u8) => ReflectApply(compile, wasm, [u8]));
    },
    instantiateStreaming(source, importObject = undefined) {
      return PromiseThen(bytesOfSource(source, "WebAssembly.instantiateStreaming"),
        (u8) => ReflectApply(instantiate, wasm, [u8, importObject]));
    },
  };
  const names = ObjectKeys(methods);
  for (let i = 0; i < names.length; i++) {
    ObjectDefineProperty(wasm, names[i], { __proto__: null, value: methods[names[i]], writable: true, enumerable: true, configurable: true });
  }
};
