// Replaces words of an upstream's text on its way.
export default { async fetch(request) {
	const up = new URL(request.url).searchParams.get("up");
	const { body } = await fetch(up + "/text");
	const words = new TransformStream({ transform(text, c) { c.enqueue(text.replaceAll("lorem", "LOREM").replaceAll("ipsum", "IPSUM")); } });
	return new Response(body.pipeThrough(new TextDecoderStream()).pipeThrough(words).pipeThrough(new TextEncoderStream()));
} };
