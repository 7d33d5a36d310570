// structuredClone and transfer (https://html.spec.whatwg.org/#safe-passing-of-structured-data). V8's serializer
// does JavaScript's own objects and asks us about all others; theirs are cloned here.

// cloneSerializable gives the clone of a platform object, undefined for what is no platform object.
// It throws for one that cannot be cloned.
const cloneSerializable = (o) => {
  if (domExceptionUnit.loaded && domExceptionUnit.get().is(o)) return domExceptionUnit.get().clone(o);
  if (isBlobObject(o)) return blobUnit.get().cloneBlob(o);
  if (cryptoUnit.loaded && cryptoUnit.get().isCryptoKey(o)) return cryptoUnit.get().cloneKey(o);
  for (let p = ObjectGetPrototypeOf(o); p !== null; p = ObjectGetPrototypeOf(p)) {
    if (interfacePrototypes.has(p)) throw newDOMException(`${describeKind(o)} could not be cloned.`, "DataCloneError");
  }
  return undefined;
};

// Transfer is a platform object that moves: `move` makes its new self and leaves the old one unusable.
const transferOf = (o) => {
  if (messageUnit.loaded && messageUnit.get().isPort(o)) return messageUnit.get().portTransfer(o);
  if (streamsUnit.loaded) return streamsUnit.get().streamTransfer(o);
  return undefined;
};

// cloneWithTransfer gives {value, ports}: ports are the new ones among what was transferred, in order.
const cloneWithTransfer = (value, transfer) => {
  const buffers = [], moves = bareList();
  const index = new SafeMap(); // platform object -> its number
  if (transfer !== undefined) {
    for (let i = 0; i < transfer.length; i++) {
      const o = transfer[i];
      const t = transferOf(o);
      if (t === undefined) { ArrayPush(buffers, o); continue; } // the host checks that it is an ArrayBuffer
      if (index.has(o)) throw newDOMException("A value stands twice in the transfer list.", "DataCloneError");
      t.check();
      index.set(o, moves.length);
      moves[moves.length] = t;
    }
  }
  const made = bareList(); // clones of what does not move; their numbers follow those of `moves`
  const known = (o) => {
    let n = index.get(o);
    if (n !== undefined) return n;
    const clone = cloneSerializable(o);
    if (clone === undefined) return ObjectPrototype;
    n = moves.length + made.length;
    made[made.length] = clone;
    index.set(o, n);
    return n;
  };
  // The getters of the value may have used what is to move: all of it is looked at again first.
  const all = bareList();
  const revive = () => {
    for (let i = 0; i < moves.length; i++) moves[i].check();
    for (let i = 0; i < moves.length; i++) all[i] = moves[i].move();
    for (let i = 0; i < made.length; i++) all[moves.length + i] = made[i];
    return all;
  };
  const out = isObject(value) || transfer !== undefined
    ? host.structuredClone(value, buffers.length > 0 ? buffers : undefined, known, revive) : host.structuredClone(value);
  const ports = [];
  for (let n = 0; n < moves.length; n++) if (moves[n].port) ArrayPush(ports, all[n]);
  return { __proto__: null, value: out, ports };
};

const transferList = (list, what) => toSequence(list, what, (v) => {
  if (!isObject(v)) throw new TypeError(`${what}: an item is not an object.`);
  return v;
});

return { __proto__: null, cloneWithTransfer, transferList };
