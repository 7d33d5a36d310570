// Signs the path and checks the signature: HMAC with SHA-256, as for a webhook.
const bytes = (s) => new TextEncoder().encode(s);
let key;
export default {
  async fetch(request) {
    key ??= await crypto.subtle.importKey("raw", bytes("a secret of the benchmark"), { name: "HMAC", hash: "SHA-256" }, false, ["sign", "verify"]);
    const data = bytes(request.url);
    const signature = await crypto.subtle.sign("HMAC", key, data);
    const ok = await crypto.subtle.verify("HMAC", key, signature, data);
    return new Response(ok ? "good" : "bad", { status: ok ? 200 : 500 });
  },
};
