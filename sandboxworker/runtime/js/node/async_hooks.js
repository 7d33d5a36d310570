// AsyncLocalStorage and AsyncResource (node:async_hooks, as far as Workers have it). The async context of a
// promise reaction, timer or message is the frame V8 kept for it; `store` in it lists the values, the
// innermost first. Frames are never changed.

class StoreEntry {
  constructor(storage, value, next) { this.storage = storage; this.value = value; this.next = next; }
}
bare(StoreEntry);

const frameWith = (frame, store) => ({ __proto__: null, inv: frame === undefined ? undefined : frame.inv, store });
const storeOf = (frame) => (frame === undefined ? undefined : frame.store);
// inFrame calls f in a frame and comes back to the current one.
const inFrame = (frame, f, thisArg, args) => {
  const before = host.getContext();
  host.setContext(frame);
  try { return ReflectApply(f, thisArg, args); } finally { host.setContext(before); }
};
// The frame of a snapshot keeps its values, but the invocation is the one that runs now: what is started
// in it must end with that.
const restored = (frame) => frameWith(host.getContext(), storeOf(frame));

const bindTo = (frame, f, thisArg, hasThis) => {
  const bound = function (...args) { return inFrame(restored(frame), f, hasThis ? thisArg : this, args); };
  ObjectDefineProperty(bound, "length", { __proto__: null, value: f.length, configurable: true });
  ObjectDefineProperty(bound, "name", { __proto__: null, value: `bound ${f.name}`, configurable: true });
  return bound;
};

class AsyncLocalStorage {
  #default; #name = "";
  constructor(options = undefined) {
    const d = toDictionary(options, "AsyncLocalStorage options");
    this.#default = d.defaultValue;
    if (d.name !== undefined) this.#name = toDOMString(d.name);
  }
  static bind(f) { return bindTo(host.getContext(), toCallback(f, "AsyncLocalStorage.bind: the argument"), undefined, false); }
  static snapshot() {
    const frame = host.getContext();
    return (f, ...args) => inFrame(restored(frame), toCallback(f, "snapshot: the argument"), undefined, args);
  }
  get name() { return this.#name; }
  getStore() {
    for (let e = storeOf(host.getContext()); e !== undefined; e = e.next) if (e.storage === this) return e.value;
    return this.#default;
  }
  run(store, callback, ...args) {
    void this.#name;
    toCallback(callback, "AsyncLocalStorage.run: the callback");
    const frame = host.getContext();
    return inFrame(frameWith(frame, new StoreEntry(this, store, without(storeOf(frame), this))), callback, undefined, args);
  }
  exit(callback, ...args) {
    void this.#name;
    toCallback(callback, "AsyncLocalStorage.exit: the callback");
    const frame = host.getContext();
    return inFrame(frameWith(frame, new StoreEntry(this, undefined, without(storeOf(frame), this))), callback, undefined, args);
  }
  enterWith(store) {
    void this.#name;
    const frame = host.getContext();
    host.setContext(frameWith(frame, new StoreEntry(this, store, without(storeOf(frame), this))));
  }
  disable() {
    void this.#name;
    const frame = host.getContext();
    if (frame !== undefined) host.setContext(frameWith(frame, without(frame.store, this)));
  }
}
// without copies a list as far as the entry of `storage`, which a new one takes the place of: lists stay
// as short as there are storages.
const without = (list, storage) => {
  let e = list;
  while (e !== undefined && e.storage !== storage) e = e.next;
  if (e === undefined) return list;
  return list.storage === storage ? list.next : new StoreEntry(list.storage, list.value, without(list.next, storage));
};

class AsyncResource {
  #frame = host.getContext(); #type;
  constructor(type) {
    if (typeof type !== "string") throw new TypeError("AsyncResource: the type is not a string.");
    this.#type = type;
  }
  static bind(f, type = undefined, thisArg = undefined) {
    return bindTo(host.getContext(), toCallback(f, "AsyncResource.bind: the argument"), thisArg, arguments.length > 2);
  }
  bind(f, thisArg = undefined) { return bindTo(this.#frame, toCallback(f, "AsyncResource.bind: the argument"), thisArg, arguments.length > 1); }
  runInAsyncScope(f, thisArg = undefined, ...args) {
    return inFrame(restored(this.#frame), toCallback(f, "runInAsyncScope: the argument"), thisArg, args);
  }
  asyncId() { void this.#type; return 0; }
  triggerAsyncId() { void this.#type; return 0; }
  emitDestroy() { void this.#type; return this; }
}

return { __proto__: null, AsyncLocalStorage, AsyncResource };
