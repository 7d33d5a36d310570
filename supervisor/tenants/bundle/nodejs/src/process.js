// node:process, as far as there is one: variables, nextTick, and what packages ask to see where they run.

import { vars } from "node:internal/env";

// The variables come when the modules have been evaluated; `const { env } = process` is older than that.
const store = Object.assign(Object.create(null), { NODE_ENV: "production" });
let filled = false;
const filling = () => {
  const given = filled ? undefined : vars();
  if (given === undefined) return store;
  filled = true;
  for (const [name, value] of Object.entries(given)) {
    if (typeof value === "string" || typeof value === "number" || typeof value === "boolean") store[name] = String(value);
  }
  return store;
};
const traps = {
  set(_, name, value) {
    if (typeof name === "symbol") throw new TypeError("Cannot convert a Symbol value to a string");
    filling()[name] = String(value);
    return true;
  },
  defineProperty(_, name, descriptor) { return Reflect.defineProperty(filling(), name, { ...descriptor, value: String(descriptor.value) }); },
};
for (const name of ["get", "has", "deleteProperty", "ownKeys", "getOwnPropertyDescriptor"]) {
  traps[name] = (_, ...rest) => Reflect[name](filling(), ...rest.slice(0, name === "ownKeys" ? 0 : 1));
}
export const env = new Proxy(store, traps);

export const nextTick = (callback, ...args) => {
  if (typeof callback !== "function") throw new TypeError('The "callback" argument must be of type function.');
  queueMicrotask(() => callback(...args));
};
export const hrtime = (since = undefined) => {
  const now = performance.now(), seconds = Math.floor(now / 1000), nanos = Math.round((now % 1000) * 1e6);
  if (since === undefined) return [seconds, nanos];
  const [s, n] = [seconds - since[0], nanos - since[1]];
  return n < 0 ? [s - 1, n + 1e9] : [s, n];
};
hrtime.bigint = () => BigInt(Math.round(performance.now() * 1e6));
export const uptime = () => performance.now() / 1000;
export const cwd = () => "/";
export const emitWarning = (warning) => console.warn(String(warning?.message ?? warning));
export const exit = () => { throw new Error("process.exit: a worker does not end by itself; return from its handler"); };
export const { argv, execArgv, title, platform, version, versions, release, arch, pid, browser } = {
  argv: ["/worker"], execArgv: [], title: "worker", platform: "linux", version: "", versions: {}, release: { name: "bulkhead" }, arch: "x64", pid: 1, browser: true,
};
// Nothing is ever emitted: who listens for exit or signals waits for what does not come.
const same = () => process;
export const [on, once, off, addListener, removeListener, removeAllListeners, prependListener] = Array(7).fill(same);
export const emit = () => false, listeners = () => [], listenerCount = () => 0;

const process = {
  env, nextTick, hrtime, uptime, cwd, emitWarning, exit, argv, execArgv, title, platform, version, versions, release, arch, pid, browser,
  on, once, off, addListener, removeListener, removeAllListeners, prependListener, emit, listeners, listenerCount,
};
export default process;
