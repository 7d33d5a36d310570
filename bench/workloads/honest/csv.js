// Turns CSV into JSON lines while it comes in.
export default { fetch(request) {
	let rest = "";
	const rows = new TransformStream({
		transform(text, c) {
			const lines = (rest + text).split("\n");
			rest = lines.pop();
			c.enqueue(lines.map((l) => JSON.stringify(l.split(","))).join("\n") + "\n");
		},
		flush(c) { if (rest) c.enqueue(JSON.stringify(rest.split(",")) + "\n"); },
	});
	return new Response(request.body.pipeThrough(new TextDecoderStream()).pipeThrough(rows).pipeThrough(new TextEncoderStream()));
} };
