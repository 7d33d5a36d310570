// Queues with sizes and queuing strategies (https://streams.spec.whatwg.org/#queue-with-sizes,
// https://streams.spec.whatwg.org/#qs).
//
// In the whole unit a class a tenant sees is a thin shell with one private field; the algorithms of
// the standard work on the state behind it, under the standard's own names.

const READABLE = 0, CLOSED = 1, ERRORED = 2; // of a readable stream
const undefinedPromise = () => PromiseResolve(undefined);

// promiseCall invokes a tenant's algorithm and always gives a promise.
const promiseCall = (f, self, args) => {
  try { return PromiseResolve(ReflectApply(f, self, args)); } catch (error) { return PromiseReject(error); }
};

class SizedQueue {
  constructor() { this.fifo = new Fifo(); this.total = 0; }
  get length() { return this.fifo.length; }
  // enqueueValueWithSize
  push(value, size) {
    const n = toNumber(size);
    if (!(n >= 0) || n === Infinity) {
      throw new RangeError("The size of a chunk must be a finite number that is not negative.");
    }
    this.fifo.push({ __proto__: null, value, size: n });
    this.total += n;
  }
  // dequeueValue
  shift() {
    const pair = this.fifo.shift();
    this.total = MathMax(0, this.total - pair.size);
    return pair.value;
  }
  peek() { return this.fifo.peek().value; }
  reset() { this.fifo.clear(); this.total = 0; }
}
bare(SizedQueue);

const readStrategy = (strategy) => {
  const d = toDictionary(strategy, "The queuing strategy");
  const hwm = d.highWaterMark;
  const size = d.size;
  return {
    __proto__: null,
    highWaterMark: hwm === undefined ? undefined : toNumber(hwm),
    size: size === undefined ? undefined : toCallback(size, "The queuing strategy's size"),
  };
};
const extractHighWaterMark = (s, fallback) => {
  const h = s.highWaterMark;
  if (h === undefined) return fallback;
  if (NumberIsNaN(h) || h < 0) throw new RangeError("highWaterMark must not be negative or NaN.");
  return h;
};
const extractSize = (s) => {
  const f = s.size;
  return f === undefined ? undefined : (chunk) => ReflectApply(f, undefined, [chunk]);
};

const strategyInit = (init, what) => {
  if (!isObject(init)) throw new TypeError(`${what}: the init dictionary is required.`);
  const h = init.highWaterMark;
  if (h === undefined) throw new TypeError(`${what}: highWaterMark is required.`);
  return toNumber(h);
};
const byteLengthSize = ObjectGetOwnPropertyDescriptor({ size: (chunk) => chunk.byteLength }, "size").value;
const countSize = ObjectGetOwnPropertyDescriptor({ size: () => 1 }, "size").value;

class ByteLengthQueuingStrategy {
  #highWaterMark;
  constructor(init) {
    needArgs("ByteLengthQueuingStrategy constructor", arguments.length, 1);
    this.#highWaterMark = strategyInit(init, "ByteLengthQueuingStrategy");
  }
  get highWaterMark() { return this.#highWaterMark; }
  get size() { void this.#highWaterMark; return byteLengthSize; }
}
defineInterface(ByteLengthQueuingStrategy, "ByteLengthQueuingStrategy");

class CountQueuingStrategy {
  #highWaterMark;
  constructor(init) {
    needArgs("CountQueuingStrategy constructor", arguments.length, 1);
    this.#highWaterMark = strategyInit(init, "CountQueuingStrategy");
  }
  get highWaterMark() { return this.#highWaterMark; }
  get size() { void this.#highWaterMark; return countSize; }
}
defineInterface(CountQueuingStrategy, "CountQueuingStrategy");
