// node:timers/promises.

export const setTimeout = (delay = 1, value = undefined, options = undefined) => new Promise((resolve, reject) => {
  const signal = options?.signal;
  signal?.throwIfAborted();
  const abort = () => {
    clearTimeout(id);
    reject(signal.reason);
  };
  const id = globalThis.setTimeout(() => {
    signal?.removeEventListener("abort", abort);
    resolve(value);
  }, delay);
  signal?.addEventListener("abort", abort, { once: true });
});
export const setImmediate = (value = undefined, options = undefined) => setTimeout(0, value, options);
export const setInterval = async function* (delay = 1, value = undefined, options = undefined) {
  for (;;) yield await setTimeout(delay, value, options);
};
export const scheduler = { wait: (delay, options) => setTimeout(delay, undefined, options), yield: () => setImmediate() };
export default { setTimeout, setImmediate, setInterval, scheduler };
