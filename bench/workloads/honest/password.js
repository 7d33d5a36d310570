// Checks a password, slowly as it should be.
const salt = new TextEncoder().encode("some salt of sixteen");
export default { async fetch(request) {
	const given = new URL(request.url).searchParams.get("password") ?? "";
	const key = await crypto.subtle.importKey("raw", new TextEncoder().encode(given), "PBKDF2", false, ["deriveBits"]);
	const bits = await crypto.subtle.deriveBits({ name: "PBKDF2", salt, iterations: 10000, hash: "SHA-256" }, key, 256);
	return new Response(btoa(String.fromCharCode(...new Uint8Array(bits))));
} };
