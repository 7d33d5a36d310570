// The SHA-256 of what is sent.
export default { async fetch(request) {
	const sum = await crypto.subtle.digest("SHA-256", await request.arrayBuffer());
	return new Response([...new Uint8Array(sum)].map((b) => b.toString(16).padStart(2, "0")).join(""));
} };
