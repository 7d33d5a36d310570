// Compresses what it sends.
const text = Array.from({ length: 4000 }, (_, i) => `line ${i} of a log, at level ${["info", "warn"][i % 2]}`).join("\n");
export default { fetch() {
	return new Response(new Blob([text]).stream().pipeThrough(new CompressionStream("gzip")), { headers: { "content-type": "application/gzip" } });
} };
