// Makes a file of 8 MiB while it is sent.
export default { fetch() {
	let left = 128;
	return new Response(new ReadableStream({ type: "bytes", pull(c) {
		if (left-- === 0) { c.close(); return; }
		c.enqueue(new Uint8Array(65536).fill(left));
	} }));
} };
