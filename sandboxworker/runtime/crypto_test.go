package runtime_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"bulkhead/sandboxworker/runtime"
)

const cryptoPrelude = `const S = crypto.subtle, hex = (b) => [...new Uint8Array(b)].map((x) => x.toString(16).padStart(2, "0")).join(""), un = (s) => { const h = s.replace(/\s/g, ""); return new Uint8Array((h.match(/../g) ?? []).map((x) => parseInt(x, 16))); }, te = (s) => new TextEncoder().encode(s);
`

// Each algorithm of WebCrypto, by the vectors of its standard where there are some.
func TestCrypto(t *testing.T) {
	for _, c := range []struct{ name, body string }{
		{"aes", `
			const key = un("2b7e151628aed2a6abf7158809cf4f3c"), text = un("6bc1bee22e409f96e93d7e117393172a"); const cbc = await S.importKey("raw", key, "AES-CBC", true, ["encrypt", "decrypt"]); const iv = un("000102030405060708090a0b0c0d0e0f");
			const out = await S.encrypt({ name: "aes-cbc", iv }, cbc, text); eq(hex(out).slice(0, 32), "7649abac8119b246cee98e9b12e9197d", "SP 800-38A F.2.1"); eq(out.byteLength, 32, "padded"); eq(hex(await S.decrypt({ name: "AES-CBC", iv }, cbc, out)), hex(text), "back"); eq((await S.encrypt({ name: "AES-CBC", iv }, cbc, new Uint8Array())).byteLength, 16, "empty");
			await rejects(S.decrypt({ name: "AES-CBC", iv }, cbc, new Uint8Array(15)), "OperationError", "no block"); await rejects(S.decrypt({ name: "AES-CBC", iv }, cbc, new Uint8Array(16)), "OperationError", "padding"); await rejects(S.encrypt({ name: "AES-CBC", iv: key.subarray(1) }, cbc, text), "OperationError", "iv"); await rejects(S.encrypt({ name: "AES-CBC" }, cbc, text), TypeError, "no iv");
			const ctr = await S.importKey("raw", key, "AES-CTR", true, ["encrypt", "decrypt"]); const counter = un("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"); eq(hex(await S.encrypt({ name: "AES-CTR", counter, length: 64 }, ctr, text)), "874d6191b620e3261bef6864990db6ce", "SP 800-38A F.5.1");
			const edge = new Uint8Array(16).fill(255); const two = await S.encrypt({ name: "AES-CTR", counter: edge, length: 8 }, ctr, new Uint8Array(32)); const low = edge.slice(); low[15] = 0; eq(hex(two).slice(32), hex(await S.encrypt({ name: "AES-CTR", counter: low, length: 8 }, ctr, new Uint8Array(16))), "only the low bits wrap"); await rejects(S.encrypt({ name: "AES-CTR", counter, length: 1 }, ctr, new Uint8Array(48)), "OperationError", "counter repeats"); await rejects(S.encrypt({ name: "AES-CTR", counter, length: 0 }, ctr, text), "OperationError", "length 0"); await rejects(S.encrypt({ name: "AES-CTR", counter, length: 256 }, ctr, text), TypeError, "length 256");
			const gk = await S.importKey("raw", un("feffe9928665731c6d6a8f9467308308"), "AES-GCM", true, ["encrypt", "decrypt"]), p = un("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"), g = { name: "AES-GCM", iv: un("cafebabefacedbaddecaf888"), additionalData: un("feedfacedeadbeeffeedfacedeadbeefabaddad2") };
			const sealed = await S.encrypt(g, gk, p); eq(hex(sealed).slice(-32), "5bc94fbc3221a5db94fae95ae7121a47", "GCM tag"); eq(hex(await S.decrypt(g, gk, sealed)), hex(p), "GCM back"); for (const tagLength of [32, 64, 96, 104, 112, 120]) { const c = await S.encrypt({ ...g, tagLength }, gk, p); eq(c.byteLength, p.length + tagLength / 8, "tag " + tagLength); eq(hex(await S.decrypt({ ...g, tagLength }, gk, c)), hex(p), "short tag back"); const bad = new Uint8Array(c); bad[3] ^= 1; await rejects(S.decrypt({ ...g, tagLength }, gk, bad), "OperationError", "forged " + tagLength); }
			await rejects(S.encrypt({ ...g, tagLength: 40 }, gk, p), "OperationError", "tag 40"); await rejects(S.decrypt(g, gk, new Uint8Array(8)), "OperationError", "too short"); const iv60 = await S.encrypt({ name: "AES-GCM", iv: un("9313225df88406e555909c5aff5269aa6a7a9538534f7da1e4c303d2a318a728c3c0c95156809539fcf0e2429a6b525416aedbf5a0de6a57a637b39b"), additionalData: g.additionalData }, gk, p); eq(hex(iv60).slice(-32), "619cc5aefffe0bfa462af43c1699d050", "long iv");
			const kw = await S.importKey("raw", un("000102030405060708090a0b0c0d0e0f"), "AES-KW", true, ["wrapKey", "unwrapKey"]), inner = await S.importKey("raw", un("00112233445566778899aabbccddeeff"), "AES-GCM", true, ["encrypt"]); const w = await S.wrapKey("raw", inner, kw, "AES-KW"); eq(hex(w), "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5", "RFC 3394 4.1"); const u = await S.unwrapKey("raw", w, kw, "AES-KW", "AES-GCM", true, ["decrypt"]); eq(hex(await S.exportKey("raw", u)), "00112233445566778899aabbccddeeff", "unwrapped"); const b = new Uint8Array(w); b[0] ^= 1; await rejects(S.unwrapKey("raw", b, kw, "AES-KW", "AES-GCM", true, ["decrypt"]), "OperationError", "forged wrap");
			const made = await S.generateKey({ name: "AES-GCM", length: 256 }, true, ["decrypt", "encrypt"]); eq([made.algorithm, made.usages, made.type], [{ name: "AES-GCM", length: 256 }, ["encrypt", "decrypt"], "secret"], "generated"); const jwk = await S.exportKey("jwk", made); eq([jwk.kty, jwk.alg, jwk.ext, jwk.key_ops], ["oct", "A256GCM", true, ["encrypt", "decrypt"]], "jwk"); eq(hex(await S.exportKey("raw", await S.importKey("jwk", jwk, "AES-GCM", true, ["encrypt"]))), hex(await S.exportKey("raw", made)), "jwk back"); await rejects(S.generateKey({ name: "AES-GCM", length: 100 }, true, ["encrypt"]), "OperationError", "100 bits"); await rejects(S.generateKey({ name: "AES-GCM", length: 128 }, true, ["sign"]), "SyntaxError", "usage"); await rejects(S.generateKey({ name: "AES-GCM", length: 128 }, true, []), "SyntaxError", "no usages"); await rejects(S.importKey("jwk", { ...jwk, alg: "A128GCM" }, "AES-GCM", true, ["encrypt"]), "DataError", "alg"); await rejects(S.encrypt(g, cbc, p), "InvalidAccessError", "other algorithm"); await rejects(S.importKey("spki", key, "AES-GCM", true, ["encrypt"]), "NotSupportedError", "format");
			const jw = await S.wrapKey("jwk", made, kw, "AES-KW"); eq(hex(await S.exportKey("raw", await S.unwrapKey("jwk", jw, kw, "AES-KW", "AES-GCM", true, ["encrypt"]))), hex(await S.exportKey("raw", made)), "jwk wrapped");`},
		{"derive", `
			const ikm = await S.importKey("raw", new Uint8Array(22).fill(0x0b), "HKDF", false, ["deriveBits", "deriveKey"]); eq(hex(await S.deriveBits({ name: "HKDF", hash: "SHA-256", salt: un("000102030405060708090a0b0c"), info: un("f0f1f2f3f4f5f6f7f8f9") }, ikm, 42 * 8)), "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865", "RFC 5869 A.1");
			const pw = await S.importKey("raw", te("password"), "PBKDF2", false, ["deriveBits", "deriveKey"]); const pb = (iterations, bits, hash = "SHA-1") => S.deriveBits({ name: "PBKDF2", hash, salt: te("salt"), iterations }, pw, bits); eq(hex(await pb(4096, 160)), "4b007901b765489abead49d926f721d065a429c1", "RFC 6070"); eq(hex(await pb(1, 160)), "0c60c80f961f0e71f3a9b524af6012062fe037a6", "RFC 6070, 1"); eq(hex(await pb(1, 256, "SHA-256")), "120fb6cffcf8b32c43e7225256c4f837a86548c92ccc35480805987cb70be17b", "SHA-256"); eq((await pb(3, 800)).byteLength, 100, "several blocks"); eq((await pb(1, 0)).byteLength, 0, "nothing");
			await rejects(pb(0, 160), "OperationError", "no iterations"); await rejects(pb(1, 7), "OperationError", "7 bits"); await rejects(S.deriveBits({ name: "HKDF", hash: "SHA-256", salt: te(""), info: te("") }, ikm, 255 * 256 + 8), "OperationError", "too long"); await rejects(S.importKey("raw", te("x"), "PBKDF2", true, ["deriveBits"]), "SyntaxError", "extractable"); await rejects(S.deriveBits({ name: "PBKDF2", hash: "SHA-1", salt: te("s"), iterations: 1 }, ikm, 8), "InvalidAccessError", "other key");
			const k = await S.deriveKey({ name: "PBKDF2", hash: "SHA-256", salt: te("s"), iterations: 5 }, pw, { name: "AES-GCM", length: 256 }, true, ["encrypt"]); eq(hex(await S.exportKey("raw", k)), hex(await S.deriveBits({ name: "PBKDF2", hash: "SHA-256", salt: te("s"), iterations: 5 }, pw, 256)), "deriveKey"); const h = await S.deriveKey({ name: "HKDF", hash: "SHA-256", salt: te(""), info: te("") }, ikm, { name: "HMAC", hash: "SHA-512" }, true, ["sign"]); eq(h.algorithm.length, 1024, "HMAC from HKDF");`},
		{"elliptic curves", `
			for (const [curve, size, hash] of [["P-256", 32, "SHA-256"], ["P-384", 48, "SHA-384"], ["P-521", 66, "SHA-512"]]) {
				const { privateKey, publicKey } = await S.generateKey({ name: "ECDSA", namedCurve: curve }, true, ["sign", "verify"]); eq([privateKey.type, privateKey.usages, publicKey.usages, publicKey.extractable, privateKey.algorithm], ["private", ["sign"], ["verify"], true, { name: "ECDSA", namedCurve: curve }], curve);
				const sig = await S.sign({ name: "ECDSA", hash }, privateKey, te("data")); eq(sig.byteLength, 2 * size, curve + " signature"); ok(await S.verify({ name: "ECDSA", hash }, publicKey, sig, te("data")), "verify"); ok(!await S.verify({ name: "ECDSA", hash: "SHA-1" }, publicKey, sig, te("data")), "other hash"); const bad = new Uint8Array(sig).slice(); bad[5] ^= 1; ok(!await S.verify({ name: "ECDSA", hash }, publicKey, bad, te("data")), "forged"); ok(!await S.verify({ name: "ECDSA", hash }, publicKey, bad.subarray(1), te("data")), "short");
				for (const f of ["pkcs8", "jwk"]) { const again = await S.importKey(f, await S.exportKey(f, privateKey), { name: "ECDSA", namedCurve: curve }, true, ["sign"]); ok(await S.verify({ name: "ECDSA", hash }, publicKey, await S.sign({ name: "ECDSA", hash }, again, te("x")), te("x")), f); }
				for (const f of ["spki", "raw", "jwk"]) { const again = await S.importKey(f, await S.exportKey(f, publicKey), { name: "ECDSA", namedCurve: curve }, true, ["verify"]); ok(await S.verify({ name: "ECDSA", hash }, again, sig, te("data")), f); }
				const a = await S.generateKey({ name: "ECDH", namedCurve: curve }, true, ["deriveBits", "deriveKey"]), b = await S.generateKey({ name: "ECDH", namedCurve: curve }, false, ["deriveBits"]); eq(a.publicKey.usages, [], "no usages"); const one = await S.deriveBits({ name: "ECDH", public: b.publicKey }, a.privateKey, null), two = await S.deriveBits({ name: "ECDH", public: a.publicKey }, b.privateKey, size * 8); eq(hex(one), hex(two), "agreement"); eq(one.byteLength, size, "size"); await rejects(S.deriveBits({ name: "ECDH", public: b.publicKey }, a.privateKey, size * 8 + 8), "OperationError", "too many bits"); eq(new Uint8Array(await S.deriveBits({ name: "ECDH", public: b.publicKey }, a.privateKey, 12))[1] & 15, 0, "12 bits");
				await rejects(S.importKey("raw", new Uint8Array(2 * size + 1).fill(4), { name: "ECDSA", namedCurve: curve }, true, ["verify"]), "DataError", "not on the curve"); await rejects(S.exportKey("spki", privateKey), "InvalidAccessError", "spki of private"); }
			const p = await S.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign"]); const jwk = await S.exportKey("jwk", p.privateKey); eq([jwk.kty, jwk.crv, jwk.x.length, jwk.alg], ["EC", "P-256", 43, undefined], "jwk"); await rejects(S.importKey("jwk", { ...jwk, crv: "P-384" }, { name: "ECDSA", namedCurve: "P-256" }, true, ["sign"]), "DataError", "crv"); await rejects(S.importKey("jwk", { ...jwk, d: "AAAA" }, { name: "ECDSA", namedCurve: "P-256" }, true, ["sign"]), "DataError", "d"); await rejects(S.importKey("spki", await S.exportKey("spki", p.publicKey), { name: "ECDSA", namedCurve: "P-384" }, true, ["verify"]), "DataError", "other curve"); await rejects(S.generateKey({ name: "ECDSA", namedCurve: "P-1" }, true, ["sign"]), "NotSupportedError", "curve"); await rejects(S.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["verify"]), "SyntaxError", "private key without usages");`},
		{"ed25519 and x25519", `
			const priv = await S.importKey("jwk", { kty: "OKP", crv: "Ed25519", d: "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A", x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }, "Ed25519", true, ["sign"]), pub = await S.importKey("raw", un("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"), "Ed25519", true, ["verify"]);
			const sig = await S.sign("Ed25519", priv, new Uint8Array()); eq(hex(sig), "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b", "RFC 8032 7.1"); ok(await S.verify("Ed25519", pub, sig, new Uint8Array()), "verify"); ok(!await S.verify("Ed25519", pub, sig, te("x")), "other data"); eq(priv.algorithm, { name: "Ed25519" }, "algorithm"); for (const f of ["pkcs8", "jwk"]) eq(hex(await S.sign("Ed25519", await S.importKey(f, await S.exportKey(f, priv), "Ed25519", true, ["sign"]), te(""))), hex(sig), f); eq((await S.exportKey("jwk", pub)).x, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "jwk x"); await rejects(S.importKey("jwk", { kty: "OKP", crv: "Ed25519", d: "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A", x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHUR0" }, "Ed25519", true, ["sign"]), "DataError", "mismatch");
			const xa = await S.importKey("pkcs8", un("302e020100300506032b656e04220420" + "77076d0a7318a57d3c16c17251b2666666666666666666666666666666666666"), "X25519", true, ["deriveBits"]); ok(xa.type === "private", "x25519 pkcs8"); const a = await S.generateKey("X25519", true, ["deriveBits"]), b = await S.generateKey({ name: "X25519" }, true, ["deriveKey"]); const bits = await S.deriveBits({ name: "X25519", public: b.publicKey }, a.privateKey, 256); const k = await S.deriveKey({ name: "X25519", public: a.publicKey }, b.privateKey, { name: "AES-CBC", length: 256 }, true, ["encrypt"]); eq(hex(bits), hex(await S.exportKey("raw", k)), "agreement"); await rejects(S.deriveBits({ name: "X25519", public: await S.importKey("raw", new Uint8Array(32), "X25519", true, []) }, a.privateKey, 256), "OperationError", "low order"); await rejects(S.deriveBits({ name: "X25519", public: pub }, a.privateKey, 256), "InvalidAccessError", "other kind");`},
		{"rsa", `
			const gen = (name, usages) => S.generateKey({ name, modulusLength: 1024, publicExponent: new Uint8Array([1, 0, 1]), hash: "SHA-256" }, true, usages);
			const { privateKey, publicKey } = await gen("RSASSA-PKCS1-v1_5", ["sign", "verify"]); eq(privateKey.algorithm, { name: "RSASSA-PKCS1-v1_5", modulusLength: 1024, publicExponent: new Uint8Array([1, 0, 1]), hash: { name: "SHA-256" } }, "algorithm"); ok(privateKey.algorithm.publicExponent instanceof Uint8Array, "exponent"); const sig = await S.sign("RSASSA-PKCS1-v1_5", privateKey, te("data")); eq(sig.byteLength, 128, "signature"); ok(await S.verify("RSASSA-PKCS1-v1_5", publicKey, sig, te("data")), "verify"); ok(!await S.verify("RSASSA-PKCS1-v1_5", publicKey, sig, te("other")), "other data");
			for (const f of ["pkcs8", "jwk"]) { const again = await S.importKey(f, await S.exportKey(f, privateKey), { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }, true, ["sign"]); eq(hex(await S.sign("RSASSA-PKCS1-v1_5", again, te("data"))), hex(sig), f); } for (const f of ["spki", "jwk"]) ok(await S.verify("RSASSA-PKCS1-v1_5", await S.importKey(f, await S.exportKey(f, publicKey), { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }, true, ["verify"]), sig, te("data")), f);
			const jwk = await S.exportKey("jwk", privateKey); eq([jwk.kty, jwk.alg, jwk.e, Object.keys(jwk).sort().join()], ["RSA", "RS256", "AQAB", "alg,d,dp,dq,e,ext,key_ops,kty,n,p,q,qi"], "jwk"); const pss = await S.importKey("jwk", { ...jwk, alg: "PS256" }, { name: "RSA-PSS", hash: "SHA-256" }, true, ["sign"]), pssPub = await S.importKey("spki", await S.exportKey("spki", publicKey), { name: "RSA-PSS", hash: "SHA-256" }, true, ["verify"]); const ps = await S.sign({ name: "RSA-PSS", saltLength: 32 }, pss, te("data")); ok(await S.verify({ name: "RSA-PSS", saltLength: 32 }, pssPub, ps, te("data")), "PSS"); ok(!await S.verify({ name: "RSA-PSS", saltLength: 20 }, pssPub, ps, te("data")), "other salt");
			const o = await gen("RSA-OAEP", ["encrypt", "decrypt", "wrapKey", "unwrapKey"]); eq([o.publicKey.usages, o.privateKey.usages], [["encrypt", "wrapKey"], ["decrypt", "unwrapKey"]], "usages"); const c = await S.encrypt({ name: "RSA-OAEP", label: te("l") }, o.publicKey, te("secret")); eq(hex(await S.decrypt({ name: "RSA-OAEP", label: te("l") }, o.privateKey, c)), hex(te("secret")), "OAEP"); await rejects(S.decrypt("RSA-OAEP", o.privateKey, c), "OperationError", "other label"); await rejects(S.encrypt("RSA-OAEP", o.publicKey, new Uint8Array(100)), "OperationError", "too long"); const k = await S.generateKey({ name: "AES-CBC", length: 128 }, true, ["encrypt"]); const w = await S.wrapKey("raw", k, o.publicKey, "RSA-OAEP"); eq(hex(await S.exportKey("raw", await S.unwrapKey("raw", w, o.privateKey, { name: "RSA-OAEP" }, "AES-CBC", true, ["encrypt"]))), hex(await S.exportKey("raw", k)), "wrapped");
			await rejects(S.importKey("jwk", { ...jwk, p: jwk.q }, { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }, true, ["sign"]), "DataError", "bad primes"); await rejects(S.importKey("raw", te("x"), { name: "RSA-PSS", hash: "SHA-1" }, true, ["verify"]), "NotSupportedError", "raw"); await rejects(S.importKey("pkcs8", te("x"), { name: "RSA-PSS", hash: "SHA-1" }, true, ["sign"]), "DataError", "garbage"); await rejects(S.generateKey({ name: "RSA-PSS", modulusLength: 1024, publicExponent: new Uint8Array([2]), hash: "SHA-1" }, true, ["sign"]), "OperationError", "even exponent"); await rejects(S.generateKey({ name: "RSA-PSS", modulusLength: 16384, publicExponent: new Uint8Array([3]), hash: "SHA-1" }, true, ["sign"]), "OperationError", "too long"); await rejects(S.sign("RSASSA-PKCS1-v1_5", publicKey, te("x")), "InvalidAccessError", "public key signs");`},
		{"pss without a salt", `
			const { privateKey, publicKey } = await S.generateKey({ name: "RSA-PSS", modulusLength: 1024, publicExponent: new Uint8Array([1, 0, 1]), hash: "SHA-256" }, true, ["sign", "verify"]);
			const v = (saltLength, sig, data) => S.verify({ name: "RSA-PSS", saltLength }, publicKey, sig, te(data));
			const none = await S.sign({ name: "RSA-PSS", saltLength: 0 }, privateKey, te("data")), some = await S.sign({ name: "RSA-PSS", saltLength: 20 }, privateKey, te("data"));
			eq([await v(0, none, "data"), await v(20, some, "data"), await v(20, none, "data"), await v(0, some, "data"), await v(0, none, "date"), await v(0, none.slice(1), "data"), await v(0, new Uint8Array(128).fill(255), "data")], [true, true, false, false, false, false, false], "salts");
			eq(hex(await S.sign({ name: "RSA-PSS", saltLength: 0 }, privateKey, te("data"))), hex(none), "without a salt there is one signature");
			// openssl dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:0
			const theirs = await S.importKey("spki", un("30819f300d06092a864886f70d010101050003818d00308189028181009a142de24aece9f426f45b31af923aeb771d71b575ac02b9ea7d6aec396f5e83093ea5903ef79dcb1a3cfa22c6058fb9c83e886f8784c963e2bd5c2a1f159c40f09e5ebf830c62df2b26b2f15a85de6e68d41b3f449d9a96483624bcf092a378dee77e4a5dc069f854f02c9c03d59510687484fce748fc1eda00232a62647ce50203010001"), { name: "RSA-PSS", hash: "SHA-256" }, true, ["verify"]);
			ok(await S.verify({ name: "RSA-PSS", saltLength: 0 }, theirs, un("2077d26a4c955d029931ab0d29d5b8236367f04bd3615688a28d94c013a2f80f362040ac040db40ce9afcbed4274d7d1f86fac21109597df0173053148c0608e878debc2923dbf4bde012a999d52e5598e23c5e58c7d89637bed2a9de4bd924ad66d0993644ceb191be1106c46828e248312dd55903cbd46e2c450361176f80a"), te("data")), "OpenSSL's signature");`},
		{"compressed points and small orders", `
			for (const namedCurve of ["P-256", "P-384", "P-521"]) {
				const { publicKey } = await S.generateKey({ name: "ECDSA", namedCurve }, true, ["sign", "verify"]), raw = new Uint8Array(await S.exportKey("raw", publicKey)), half = (raw.length - 1) / 2;
				const small = new Uint8Array(half + 1); small[0] = 2 + (raw[2 * half] & 1); small.set(raw.subarray(1, 1 + half), 1);
				eq(hex(await S.exportKey("raw", await S.importKey("raw", small, { name: "ECDSA", namedCurve }, true, ["verify"]))), hex(raw), namedCurve);
				small.fill(255, 1); await rejects(S.importKey("raw", small, { name: "ECDSA", namedCurve }, true, ["verify"]), "DataError", namedCurve + " no point");
			}
			const spki = "3039301306072a8648ce3d020106082a8648ce3d03010703220002d9dcfbfa0c8dc4f311405f078b946cc2e93a766d31dad12ac499362e9e3f8493"; eq((await S.importKey("spki", un(spki), { name: "ECDSA", namedCurve: "P-256" }, true, ["verify"])).algorithm.namedCurve, "P-256", "compressed SPKI");
			await rejects(S.importKey("spki", un(spki), { name: "ECDSA", namedCurve: "P-384" }, true, ["verify"]), "DataError", "of another curve");
			const k = await S.importKey("raw", un("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"), "Ed25519", true, ["verify"]);
			ok(!await S.verify("Ed25519", k, un("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a" + "00".repeat(32)), un("8c93255d71dcab10e8f379c26200f3c7bd5f09d9bc3068d3ef4edeb4853022b6")), "a key of small order");`},
		{"order and hostile arguments", `
			const log = []; const k = await S.importKey("raw", new Uint8Array(16), "AES-GCM", true, ["encrypt", "decrypt"]); const slow = S.deriveBits({ name: "PBKDF2", hash: "SHA-512", salt: te("s"), iterations: 3000 }, await S.importKey("raw", te("p"), "PBKDF2", false, ["deriveBits"]), 512).then(() => log.push("slow")), fast = S.digest("SHA-1", te("x")).then(() => log.push("fast")); await Promise.all([slow, fast]); eq(log, ["slow", "fast"], "results come in the order of the calls");
			const iv = new Uint8Array(12), data = new Uint8Array(8); const p = S.encrypt({ name: "AES-GCM", iv }, k, data); iv.fill(9); data.fill(9); eq(hex(await S.decrypt({ name: "AES-GCM", iv: new Uint8Array(12) }, k, await p)), "0000000000000000", "copied at once");
			await rejects(S.encrypt({ get name() { throw new RangeError("n"); } }, k, data), RangeError, "getter"); await rejects(S.encrypt({ name: "AES-GCM", get iv() { throw new RangeError("iv"); } }, k, data), RangeError, "iv getter"); await rejects(S.encrypt({ name: "AES-GCM", iv: "x" }, k, data), TypeError, "iv type"); await rejects(S.encrypt({ name: "constructor" }, k, data), "NotSupportedError", "constructor"); await rejects(S.encrypt({ name: "__proto__" }, k, data), "NotSupportedError", "proto"); await rejects(S.importKey("raw", data, { name: "ECDSA", namedCurve: "toString" }, true, ["verify"]), "NotSupportedError", "curve name"); await rejects(S.importKey("raw", data, { name: "ECDSA", namedCurve: "P-256 raw 1" }, true, ["verify"]), "NotSupportedError", "injected words"); await rejects(S.exportKey("jwk", Object.create(CryptoKey.prototype)), TypeError, "spoof"); await rejects(S.importKey("jwk", new Proxy({ kty: "oct", k: "AAAAAAAAAAAAAAAAAAAAAA" }, { get() { throw new RangeError("p"); } }), "AES-GCM", true, ["encrypt"]), RangeError, "proxy");
			const b = new ArrayBuffer(16); structuredClone(b, { transfer: [b] }); await rejects(S.importKey("raw", b, "AES-GCM", true, ["encrypt"]), "DataError", "detached"); Object.defineProperty(Object.prototype, "hash", { configurable: true, get() { throw new Error("polluted"); } }); try { const again = await S.importKey("raw", new Uint8Array(16), "AES-GCM", true, ["encrypt"]); eq(again.algorithm.name, "AES-GCM", "not polluted"); await S.encrypt({ name: "AES-GCM", iv: new Uint8Array(12) }, again, data); } finally { delete Object.prototype.hash; }
			const early = async (...a) => { let soon = true; const p = S.generateKey(...a).then(() => "made", () => soon); Promise.resolve().then(() => { soon = false; }); return await p; }; eq([await early("AES", true, []), await early({ name: "AES-GCM", length: 64 }, true, []), await early({ name: "ECDSA", namedCurve: "P-1" }, true, []), await early({ name: "AES-GCM", length: 128 }, true, []), await early({ name: "ECDSA", namedCurve: "P-256" }, true, ["encrypt"])], [true, true, true, false, false], "when generateKey rejects");
			for (const f of ["sign", "verify", "digest"]) eq(S[f].length, { sign: 3, verify: 4, digest: 2 }[f], f); const gen = S.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign"]); ok(gen instanceof Promise, "promise"); const pair = await gen; eq(Object.keys(pair), ["publicKey", "privateKey"], "pair"); const moved = structuredClone(pair.privateKey); ok((await S.sign({ name: "ECDSA", hash: "SHA-256" }, moved, data)).byteLength === 64, "cloned key");`},
	} {
		t.Run(c.name, func(t *testing.T) { script(t, cryptoPrelude+c.body) })
	}
}

// Keys and signatures of others are understood, and ours by them.
func TestCryptoInterop(t *testing.T) {
	rk, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ek, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("data"))
	sig, err := rsa.SignPSS(rand.Reader, rk, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: 32})
	if err != nil {
		t.Fatal(err)
	}
	der := func(b []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(b)
	}
	w := load(t, scriptPrelude+cryptoPrelude+fmt.Sprintf(`export default { async fetch() {
		const pub = await S.importKey("spki", un(%q), { name: "RSA-PSS", hash: "SHA-256" }, true, ["verify"]); if (!await S.verify({ name: "RSA-PSS", saltLength: 32 }, pub, un(%q), te("data"))) return new Response("not verified");
		const priv = await S.importKey("pkcs8", un(%q), { name: "ECDSA", namedCurve: "P-256" }, false, ["sign"]); return new Response(hex(await S.sign({ name: "ECDSA", hash: "SHA-256" }, priv, te("data")))); } }`,
		der(x509.MarshalPKIXPublicKey(&rk.PublicKey)), hex.EncodeToString(sig), der(x509.MarshalPKCS8PrivateKey(ek))))
	ours, err := hex.DecodeString(w.get())
	if err != nil || len(ours) != 64 {
		t.Fatalf("%q %v", ours, err)
	}
	asn := func(b []byte) []byte {
		b = []byte(strings.TrimLeft(string(b), "\x00"))
		if b[0] >= 0x80 {
			b = append([]byte{0}, b...)
		}
		return append([]byte{2, byte(len(b))}, b...)
	}
	seq := append(asn(ours[:32]), asn(ours[32:])...)
	if !ecdsa.VerifyASN1(&ek.PublicKey, digest[:], append([]byte{0x30, byte(len(seq))}, seq...)) {
		t.Error("Go does not verify our signature")
	}
}

// What takes long stops when it may not go on.
func TestCryptoStops(t *testing.T) {
	for meta, data := range map[string]string{
		"pbkdf2 SHA-512 2000000000 512 2:2": "pwsa", "pbkdf2 SHA-256 1 8000000 2:2": "pwsa",
		"generate-rsa 4096 65537 0": "",
	} {
		asked := 0
		h := runtime.Host{Alive: func() bool { asked++; return asked < 3 }}
		ok, why, res := h.Do(runtime.OpCrypto, meta, []byte(data))
		if ok || res != nil || !strings.Contains(why, "CPU limit") || asked != 3 {
			t.Errorf("%s: %v %q after %d questions", meta, ok, why, asked)
		}
	}
}

// What the script never sends is refused, with a reason.
func TestCryptoMalformed(t *testing.T) {
	for _, meta := range []string{"", "nonsense 1", "aes-ctr 64", "aes-ctr 64 1:1", "aes-ctr x 0:0:0", "aes-ctr 999 0:0:0", "hkdf MD5 8 0:0:0", "hkdf SHA-1 -8 0:0:0", "aes-kw-unwrap 0:0",
		"sign RSA-PSS SHA-1 x 0:0", "sign ECDSA SHA-256 0 0:0", "verify Ed25519 - 0 0:0:0", "ecdh 0:0", "generate-ec P-1 0", "generate-rsa 8 3 0", "generate-rsa 2048 2 0", "import P-256 odd 0", "import P-256 raw 0",
		"import-ec P-256 0:0:0", "import-rsa 0:0:0:0:0:0:0:0", "export-jwk private 0", "export-raw 0", "aes-gcm-encrypt 128 0:0:0:0", "oaep-encrypt SHA-1 0:0:0", "import RSA pkcs8 99999999999"} {
		if ok, why, res := new(runtime.Host).Do(runtime.OpCrypto, meta, nil); ok || why == "" || res != nil {
			t.Errorf("%q: %v %q", meta, ok, why)
		}
	}
}
