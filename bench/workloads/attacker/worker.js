// A tenant that does nothing right. Each path is one way to harm the process or the neighbours.
const hoard = []; // outlives the request, as memory bombs like it
const never = new Promise(() => {});

function fillSmall() {
  const a = new Array(100);
  for (let i = 0; i < 100; i++) a[i] = i;
  return a;
}

// Built by doubling: one native copy each, so that the builtin under test is what takes the time.
function numbers(n) {
  let a = [];
  for (let i = 0, x = 1; i < 4096; i++) a.push((x = Math.imul(x, 1103515245) + 12345) / 3);
  while (a.length < n) a = a.concat(a);
  a.length = n;
  return a;
}

const wasmLoop = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 9, 1, 7, 0, 3, 64, 12, 0, 11, 11]);

const attacks = {
  // Process aborts under any heap limit.
  "/fill": () => new Array(1e8).fill(0),
  "/spread": () => [..."x".repeat(5e7)],
  "/split": () => "a".repeat(2 ** 28).split(""),

  // Time.
  "/loop": () => { for (;;); },
  "/unterminable": () => { for (;;) fillSmall(); },
  "/wasm-loop": () => { new WebAssembly.Instance(new WebAssembly.Module(wasmLoop)).exports.f(); },
  "/regexp": () => /^(a+)+$/.test("a".repeat(40) + "!"),
  "/getter": () => { const o = { get x() { for (;;); } }; return JSON.stringify({ o: o.x }); },
  "/comparator": () => { [3, 1, 2].sort(() => { for (;;); }); },
  "/catch": () => { for (;;) { try { for (;;); } catch { /* again */ } finally { for (;;); } } },
  "/promises": async () => {
    const more = () => { Promise.resolve().then(more); };
    more();
    await never;
  },
  "/json": () => JSON.parse("[" + "1,".repeat(2e7) + "1]"),
  "/sort": () => numbers(3e6).sort(),
  "/replaceAll": () => "a".repeat(2 ** 24).replaceAll("a", "bc"),

  // Memory, in bites of some 20 MB a request: what takes more at once meets the CPU limit first.
  "/heap": () => { for (let i = 0; i < 250; i++) hoard.push(new Array(1e4).fill(1.5)); },
  "/buffer": () => { for (let i = 0; i < 5; i++) hoard.push(new Uint8Array(4 << 20).fill(1)); },
  "/resizable": () => {
    const b = new ArrayBuffer(0, { maxByteLength: 1 << 28 });
    hoard.push(b);
    for (let n = 4 << 20; n <= 20 << 20; n += 4 << 20) {
      b.resize(n);
      new Uint8Array(b, n - (4 << 20)).fill(1);
    }
  },
  "/wasm": () => {
    const m = new WebAssembly.Memory({ initial: 1 });
    hoard.push(m);
    for (let i = 0; i < 5; i++) m.grow(64);
    new Uint8Array(m.buffer).fill(1);
  },
  "/promise-bomb": async () => {
    const more = () => { hoard.push(Promise.resolve().then(more), Promise.resolve().then(more)); };
    more();
    await never;
  },

  // What the host does for a tenant.
  "/log": () => { for (;;) console.log("x".repeat(1000)); },
  "/timers": async () => {
    const more = () => { setTimeout(more, 1); setTimeout(more, 1); };
    more();
    await never;
  },
  "/subrequests": async (url) => {
    const up = url.searchParams.get("up");
    const all = [];
    for (let i = 0; i < 2000; i++) all.push(fetch(up));
    await Promise.all(all);
  },
  "/endless": () => new Response(new ReadableStream({
    async pull(controller) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      controller.enqueue(new Uint8Array(1024));
    },
  })),
  "/big": () => {
    let left = 1024;
    const piece = new Uint8Array(65536).fill(120);
    return new Response(new ReadableStream({
      pull(controller) {
        if (left-- === 0) controller.close();
        else controller.enqueue(piece.slice());
      },
    }));
  },
};

export default {
  async fetch(request) {
    const url = new URL(request.url);
    if (url.pathname === "/harmless") return new Response("harmless\n");
    if (url.pathname === "/wasm-here") return new Response(String(typeof WebAssembly === "object"));
    const attack = attacks[url.pathname];
    if (attack === undefined) return new Response("no such attack\n", { status: 404 });
    const result = await attack(url);
    return result instanceof Response ? result : new Response("survived\n");
  },
};
