// Hostile values, the functions to give them to, and what came of it. Used by the matrix and the
// generator of this package and of engine: it names no API of its own.

// Everything is taken before anything is polluted.
const H = (() => {
  const { apply, construct, ownKeys, getPrototypeOf } = Reflect;
  const { defineProperty, getOwnPropertyDescriptor } = Object;
  const then = Promise.prototype.then, map = Map;
  const push = (list, v) => { defineProperty(list, list.length, { __proto__: null, value: v, writable: true, enumerable: true, configurable: true }); };

  class Bomb extends Error {}
  const boom = (what) => { const e = new Bomb(what); e.name = "Bomb"; throw e; };
  const rope = "x".repeat(2 ** 28);
  const wide = "\u20ac".repeat(2 ** 21);
  const shared = { view: new Uint8Array(64) };
  // detach takes away the buffer that `victim` hands out, in the middle of whatever reads it.
  const detach = () => { if (!shared.view.buffer.detached) shared.view.buffer.transfer(); shared.view = new Uint8Array(64); };
  const shrink = () => { shared.rab.resize(0); };
  const reenter = { f: undefined, self: undefined, depth: 0 };
  const again = () => {
    if (reenter.f === undefined || reenter.depth > 3) return;
    reenter.depth++;
    try { apply(reenter.f, reenter.self, [shared.view, shared.view, shared.view]); } catch { } finally { reenter.depth--; }
  };
  const trapped = (act) => new Proxy({}, {
    get(t, k) { act(); return t[k]; }, has() { act(); return false; }, ownKeys() { act(); return ["a"]; },
    getOwnPropertyDescriptor() { act(); return { value: 1, configurable: true, enumerable: true }; }, getPrototypeOf() { act(); return null; },
  });
  const acts = (act) => ({
    toString() { act(); return "1"; }, valueOf() { act(); return 1; }, get then() { act(); return undefined; }, get signal() { act(); return undefined; },
    get headers() { act(); return undefined; }, get mode() { act(); return "byob"; }, get status() { act(); return 200; }, get transfer() { act(); return [shared.view.buffer]; },
    get highWaterMark() { act(); return 1; }, get size() { act(); return undefined; }, get type() { act(); return undefined; }, get length() { act(); return 1; },
    *[Symbol.iterator]() { act(); yield shared.view; act(); }, get byteLength() { act(); return 8; }, get maxByteLength() { act(); return 8; }, get name() { act(); return "HMAC"; },
  });

  const kinds = {
    undefined: () => undefined, null: () => null, true: () => true, zero: () => 0, minus: () => -1, NaN: () => NaN, infinity: () => Infinity,
    "2^31": () => 2 ** 31, "2^32": () => 2 ** 32, "2^53": () => 2 ** 53, fraction: () => 1.5,
    empty: () => "", text: () => "x", url: () => "http://a.example/", surrogate: () => "\ud800\udc00\udfff\ud83d", crlf: () => "a\r\nb: c\0", rope: () => rope, wide: () => wide,
    symbol: () => Symbol("s"), bigint: () => 10n, bigbig: () => 2n ** 70000n,
    object: () => ({}), bare: () => ({ __proto__: null }), array: () => [], holes: () => [, 1, , "x"], sparse: () => { const a = []; a[3000] = 1; return a; },
    pairs: () => [["a", "b"], ["c", "\ud800"]], cycle: () => { const o = {}; o.o = o; return o; }, deep: () => { let o = {}; for (let i = 0; i < 20000; i++) o = [o]; return o; },
    function: () => () => 1, throws: () => () => boom("called"), class: () => class {},
    bomb: () => ({ toString() { boom("toString"); }, valueOf() { boom("valueOf"); }, [Symbol.toPrimitive]() { boom("toPrimitive"); } }),
    getters: () => acts(() => boom("getter")), trap: () => trapped(() => boom("trap")),
    revoked: () => { const r = Proxy.revocable({}, {}); r.revoke(); return r.proxy; },
    detaches: () => acts(detach), shrinks: () => acts(shrink), reenters: () => acts(again), ropes: () => ({ toString: () => rope, valueOf: () => rope }),
    proxied: () => new Proxy(function () {}, {}), overflow: () => { const o = { toString() { return `${o}`; } }; return o; },
    iterator: () => ({ [Symbol.iterator]: () => ({ n: 0, next() { return { done: this.n++ > 2, value: shared.view }; } }) }),
    badIterator: () => ({ [Symbol.iterator]: () => ({ next: () => boom("next") }) }),
    thenable: () => ({ then(a, b) { a({ then(c) { c(1); b(2); } }); boom("then"); } }), forever: () => new Promise(() => {}), rejected: () => { const p = Promise.reject(1); apply(then, p, [undefined, () => {}]); return p; },
    view: () => shared.view, buffer: () => new ArrayBuffer(8), dataview: () => new DataView(new ArrayBuffer(16), 3), floats: () => new Float64Array(3), bigints: () => new BigInt64Array(2),
    gone: () => { const u = new Uint8Array(8); u.buffer.transfer(); return u; }, goneBuffer: () => { const b = new ArrayBuffer(8); b.transfer(); return b; },
    outside: () => { const b = new ArrayBuffer(64, { maxByteLength: 128 }), u = new Uint8Array(b, 32, 8); b.resize(8); return u; },
    outsideView: () => { const b = new ArrayBuffer(64, { maxByteLength: 128 }), d = new DataView(b, 32, 8); b.resize(8); return d; },
    tracking: () => { shared.rab = new ArrayBuffer(64, { maxByteLength: 4096 }); const u = new Uint8Array(shared.rab, 8); shared.rab.resize(2048); return u; },
    resizable: () => (shared.rab = new ArrayBuffer(8, { maxByteLength: 64 })), thousands: () => new Uint8Array(1 << 14),
    global: () => globalThis, date: () => new Date(NaN), regexp: () => /x/g, error: () => Object.defineProperty(new Error("e"), "stack", { get() { boom("stack"); } }), map: () => new Map([[{}, 1]]),
  };
  shared.rab = new ArrayBuffer(64, { maxByteLength: 4096 });

  const classOf = (v) => {
    if (v === null) return "null";
    if (typeof v !== "object" && typeof v !== "function") return typeof v;
    try {
      if (typeof v === "function") return "function";
      const tag = v[Symbol.toStringTag];
      if (typeof tag === "string" && tag.length < 60) return tag;
      return Array.isArray(v) ? "Array" : "object";
    } catch { return "object"; }
  };
  const errorName = (e) => { try { const n = e.name; return typeof n === "string" && n.length < 60 ? n : classOf(e); } catch { return classOf(e); } };

  // surface lists the functions that can be reached from roots ({name: value}), by path, in order:
  // {path, f, owner, how: "call" | "construct" | "get" | "set"}. What is reached from `known` is left out.
  const surface = (roots, known) => {
    const seen = new Set(), out = [];
    const visit = (path, v, record) => {
      if (v === null || (typeof v !== "object" && typeof v !== "function") || seen.has(v)) return;
      seen.add(v);
      let keys;
      try { keys = ownKeys(v); } catch { return; }
      for (const key of keys) {
        if (typeof v === "function" && (key === "name" || key === "length" || key === "arguments" || key === "caller")) continue;
        let d;
        try { d = getOwnPropertyDescriptor(v, key); } catch { continue; }
        if (d === undefined) continue;
        const at = `${path === "" ? "" : `${path}.`}${typeof key === "symbol" ? `[${key.description}]` : key}`;
        for (const [how, f] of [["call", d.value], ["get", d.get], ["set", d.set]]) {
          if (typeof f === "function" && record && !seen.has(f)) {
            const makes = how === "call" && /^(.*\.)?[A-Z]\w*$/.test(at) && "prototype" in f && f.prototype !== undefined && f.prototype !== null;
            out.push({ path: how === "call" ? at : `${how} ${at}`, f, owner: path, how: makes ? "construct" : how });
          }
          visit(at, f, record);
        }
        visit(at, d.value, record);
      }
      visit(`${path}.__proto__`, getPrototypeOf(v), record);
    };
    for (const k of known) visit("", k, false);
    for (const name of ownKeys(roots)) {
      const v = roots[name];
      if (typeof v === "function" && !seen.has(v)) {
        out.push({ path: name, f: v, owner: "", how: v.prototype && /^[A-Z]/.test(name) ? "construct" : "call" });
      }
      visit(name, v, true);
    }
    return out.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
  };

  // outcome calls and says in a word what came of it. A promise's word comes later: see settled.
  const outcome = (call, pending) => {
    try {
      const v = call();
      if (v instanceof Promise) {
        const o = { word: "Promise>pending" };
        push(pending, o);
        apply(then, v, [(r) => { o.word = `Promise>${classOf(r)}`; }, (e) => { o.word = `Promise>!${errorName(e)}`; }]);
        return o;
      }
      return { word: classOf(v) };
    } catch (e) { return { word: `!${errorName(e)}` }; }
  };

  // grid makes a call of each shape ([name, (make) => result], make giving the hostile value anew) with
  // each kind. It returns a function that gives the text once promises have settled.
  const grid = (f, shapes) => {
    const results = [], pending = [];
    for (const [shape, call] of shapes) {
      const cells = [];
      for (const kind of ownKeys(kinds)) {
        reenter.f = f; reenter.self = undefined; reenter.depth = 0;
        push(cells, [kind, outcome(() => call(kinds[kind]), pending)]);
      }
      push(results, [shape, cells]);
    }
    return () => {
      let text = "";
      for (const [shape, cells] of results) {
        const by = new map();
        for (const [kind, o] of cells) by.set(o.word, [...(by.get(o.word) ?? []), kind]);
        // The most frequent word first, for all that are not named after another.
        const words = [...by].sort((a, b) => b[1].length - a[1].length || (a[0] < b[0] ? -1 : 1));
        text += `  ${shape}: ${words.map(([word, names], i) => (i === 0 ? word : `${word} (${names.join(" ")})`)).join(", ")}\n`;
      }
      return text;
    };
  };

  // row calls one function with each kind: as `this`, as first argument, after a first argument, and in
  // all places.
  const row = ({ f, how }, receiver, first) => {
    const on = (self, args) => { reenter.self = self; return how === "construct" ? construct(f, args) : apply(f, self, args); };
    const all = [["this k", (k) => on(k(), [first(), first()])], ["(k)", (k) => on(receiver(), [k()])], ["(x, k)", (k) => on(receiver(), [first(), k()])], ["(k, k, k)", (k) => on(receiver(), [k(), k(), k()])]];
    return grid(f, how === "construct" ? all.slice(1) : how === "get" ? all.slice(0, 1) : how === "set" ? all.slice(0, 2) : all);
  };

  // fuzz makes n calls chosen by a seed: functions of the surface, on values that earlier calls gave or on
  // hostile ones, some of which call again from inside. Returns how many calls threw.
  const fuzz = (entries, receivers, seed, n, pollute) => {
    let state = seed >>> 0 || 1;
    const random = (k) => { state ^= state << 13; state >>>= 0; state ^= state >>> 17; state ^= state << 5; state >>>= 0; return state % k; };
    const names = ownKeys(kinds), pool = [];
    let left = n, thrown = 0, depth = 0;
    const inner = () => { if (depth < 6 && left > 0 && random(3) === 0) step(); };
    const keep = (v) => { if (pool.length < 60) push(pool, v); else pool[random(60)] = v; };
    const value = () => {
      switch (random(10)) {
        case 0: case 1: case 2: return pool.length > 0 ? pool[random(pool.length)] : 1;
        case 3: return acts(inner);
        case 4: return trapped(inner);
        case 5: return (...args) => { inner(); return args[0]; };
        case 6: return { start: (c) => { keep(c); inner(); }, pull: (c) => { keep(c); inner(); }, write: inner, transform: (v, c) => { keep(c); inner(); }, cancel: inner, type: random(2) ? "bytes" : undefined, handleEvent: inner };
        default: return kinds[names[random(names.length)]]();
      }
    };
    const step = () => {
      left--;
      depth++;
      try {
        const e = entries[random(entries.length)];
        const args = [];
        for (let k = random(4); k > 0; k--) push(args, value());
        const make = receivers(e);
        const self = random(8) === 0 ? value() : pool.length > 0 && random(3) === 0 ? pool[random(pool.length)] : make === undefined ? undefined : make();
        reenter.f = e.f; reenter.self = self;
        const v = e.how === "construct" ? construct(e.f, args) : apply(e.f, self, args);
        keep(v);
        if (v instanceof Promise) apply(then, v, [keep, keep]);
      } catch (e) { thrown++; keep(e); }
      depth--;
    };
    while (left > 0) {
      if (pollute !== undefined && random(50) === 0) pollute(random, inner, step); else step();
    }
    return thrown;
  };

  // pollute puts a hostile thing in place of a built-in one for a few calls.
  const targets = [Object.prototype, Array.prototype, Function.prototype, Promise, Promise.prototype, Map.prototype, Set.prototype, WeakMap.prototype, RegExp.prototype,
    String.prototype, Number.prototype, Symbol.prototype, Error.prototype, ArrayBuffer.prototype, getPrototypeOf(Uint8Array), getPrototypeOf(Uint8Array.prototype), Uint8Array.prototype, DataView.prototype,
    getPrototypeOf([][Symbol.iterator]()), getPrototypeOf(getPrototypeOf([][Symbol.iterator]())), JSON, Math, Reflect, Object, Array, Symbol, Error, Date.prototype];
  const strangers = ["0", "1", "get", "set", "value", "then", "constructor", "writable", "enumerable", "signal", "type", "mode", "headers", "done", "next", "return", "__proto__", "length", "inv", "size", "stack"];
  const pollute = (random, inner, step) => {
    const target = targets[random(targets.length)], keys = ownKeys(target);
    const key = random(2) === 0 ? strangers[random(strangers.length)] : keys[random(keys.length)];
    const before = getOwnPropertyDescriptor(target, key);
    if (before !== undefined && !before.configurable) return;
    const original = before === undefined ? undefined : before.value;
    try {
      switch (random(4)) {
        case 0: defineProperty(target, key, { __proto__: null, get() { inner(); return original; }, set() { inner(); }, configurable: true }); break;
        case 1: defineProperty(target, key, { __proto__: null, value: function (...args) { inner(); return typeof original === "function" ? apply(original, this, args) : undefined; }, writable: true, configurable: true }); break;
        case 2: delete target[key]; break;
        default: defineProperty(target, key, { __proto__: null, value: kinds[ownKeys(kinds)[random(40)]](), writable: true, configurable: true });
      }
      for (let i = 0; i < 5; i++) step();
    } finally {
      if (before === undefined) delete target[key]; else defineProperty(target, key, before);
    }
  };
  return { kinds, surface, grid, row, fuzz, pollute };
})();
