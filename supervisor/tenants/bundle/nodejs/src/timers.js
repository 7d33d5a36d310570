// node:timers: the global functions.

export const { setTimeout, clearTimeout, setInterval, clearInterval } = globalThis;
export const setImmediate = (callback, ...args) => setTimeout(callback, 0, ...args);
export const clearImmediate = (id) => clearTimeout(id);
export default { setTimeout, clearTimeout, setInterval, clearInterval, setImmediate, clearImmediate };
