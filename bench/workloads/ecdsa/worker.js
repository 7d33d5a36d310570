// Signs and verifies with ECDSA over P-256, as for a token.
const data = new TextEncoder().encode("header.payload");
const algorithm = { name: "ECDSA", hash: "SHA-256" };
let pair;
export default {
  async fetch() {
    pair ??= await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, false, ["sign", "verify"]);
    const signature = await crypto.subtle.sign(algorithm, pair.privateKey, data);
    const ok = await crypto.subtle.verify(algorithm, pair.publicKey, signature, data);
    return new Response(ok ? "good" : "bad", { status: ok ? 200 : 500 });
  },
};
