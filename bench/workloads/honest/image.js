// Inverts a picture in WebAssembly.
const code = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 1, 127, 0, 3, 2, 1, 0, 5, 3, 1, 0, 16, 7, 9, 2, 1, 109, 2, 0, 1, 102, 0, 0,
	10, 35, 1, 33, 1, 1, 127, 3, 64, 32, 1, 32, 1, 45, 0, 0, 65, 255, 1, 115, 58, 0, 0, 32, 1, 65, 1, 106, 34, 1, 32, 0, 73, 13, 0, 11, 11]);
let wasm;
export default { async fetch(request) {
	wasm ??= new WebAssembly.Instance(new WebAssembly.Module(code)).exports;
	const picture = new Uint8Array(await request.arrayBuffer());
	new Uint8Array(wasm.m.buffer).set(picture);
	wasm.f(picture.length);
	return new Response(new Uint8Array(wasm.m.buffer).slice(0, picture.length));
} };
