// Timers (https://html.spec.whatwg.org/#timers) on the frozen clock.
//
// Each timer has a nominal due time, at least 1 ms after the moment it was set; they fire in the order
// of these, equal ones in the order they were set, and the host sets the clock to the nominal time.
// How long anything really took cannot be seen. A timer belongs to the invocation that set it and
// dies with it; one set by start-up code sleeps while no invocation runs, so that an idle tenant
// never wakes.

class Timer {
  constructor(id, due, callback, args, interval, frame) {
    this.id = id;
    this.due = due;
    this.callback = callback;
    this.args = args;
    this.interval = interval; // ms, or -1
    this.frame = frame; // async context to run in
    this.inv = frame === undefined ? undefined : frame.inv;
    this.dead = false;
  }
}
bare(Timer);

const timerHeap = bareList(); // binary heap by (due, id); dead ones are dropped when they come up
const timersById = new SafeMap();
let nextTimerId = 1;
let deadTimers = 0;
let armedFor = -1, armedInv = 0; // what the host was last told

const timerBefore = (a, b) => a.due < b.due || (a.due === b.due && a.id < b.id);
const heapPush = (t) => {
  let i = timerHeap.length;
  timerHeap[i] = t;
  while (i > 0) {
    const up = (i - 1) >> 1;
    if (!timerBefore(t, timerHeap[up])) break;
    timerHeap[i] = timerHeap[up];
    i = up;
  }
  timerHeap[i] = t;
};
const heapPop = () => {
  const top = timerHeap[0];
  const last = timerHeap[timerHeap.length - 1];
  timerHeap.length--;
  const n = timerHeap.length;
  if (n > 0) {
    let i = 0;
    for (;;) {
      let k = 2 * i + 1;
      if (k >= n) break;
      if (k + 1 < n && timerBefore(timerHeap[k + 1], timerHeap[k])) k++;
      if (!timerBefore(timerHeap[k], last)) break;
      timerHeap[i] = timerHeap[k];
      i = k;
    }
    timerHeap[i] = last;
  }
  return top;
};
// nextTimer is the first live timer, or undefined.
const nextTimer = () => {
  while (timerHeap.length > 0 && timerHeap[0].dead) { heapPop(); deadTimers--; }
  return timerHeap[0];
};
const killTimer = (t) => {
  if (t.dead) return;
  t.dead = true;
  timersById.delete(t.id);
  if (t.inv !== undefined) t.inv.timers.delete(t);
  t.callback = t.args = undefined;
  if (++deadTimers > 64 && deadTimers * 2 > timerHeap.length) { // many were cleared: rebuild
    const live = bareList();
    for (let i = 0; i < timerHeap.length; i++) if (!timerHeap[i].dead) live[live.length] = timerHeap[i];
    timerHeap.length = 0;
    deadTimers = 0;
    for (let i = 0; i < live.length; i++) heapPush(live[i]);
  }
};

// addTimer sets a timer in the current async context and returns its id. delay in ms.
const addTimer = (callback, delay, repeat, args = undefined) => {
  const limit = typeof host.timerLimit === "number" ? host.timerLimit : 10000;
  if (timersById.size >= limit) throw newDOMException(`Too many timers: the limit is ${limit} pending at once.`, "QuotaExceededError");
  const frame = host.getContext();
  if (frame !== undefined && frame.inv !== undefined && frame.inv.ended) return nextTimerId++; // its invocation is over: it never fires
  const ms = MathMax(1, delay);
  const t = new Timer(nextTimerId++, host.now() + ms, callback, args, repeat ? ms : -1, frame);
  timersById.set(t.id, t);
  if (t.inv !== undefined) t.inv.ownTimers().add(t);
  heapPush(t);
  return t.id;
};

const timerArgs = (list, from) => {
  if (list.length <= from) return undefined;
  const out = [];
  for (let i = from; i < list.length; i++) out[i - from] = list[i];
  return out;
};
const timerCallback = (handler, what) => {
  if (typeof handler !== "function") {
    throw new TypeError(`${what}: the first argument must be a function; code as a string is not evaluated here.`);
  }
  return handler;
};

const { setTimeout, setInterval, clearTimeout, clearInterval } = {
  setTimeout(handler, timeout = 0) {
    needArgs("setTimeout", arguments.length, 1);
    return addTimer(timerCallback(handler, "setTimeout"), toNumber(timeout) | 0, false, timerArgs(arguments, 2));
  },
  setInterval(handler, timeout = 0) {
    needArgs("setInterval", arguments.length, 1);
    return addTimer(timerCallback(handler, "setInterval"), toNumber(timeout) | 0, true, timerArgs(arguments, 2));
  },
  clearTimeout(id = 0) { clearTimer(id); },
  clearInterval(id = 0) { clearTimer(id); },
};
const clearTimer = (id) => {
  const t = timersById.get(toNumber(id) | 0);
  if (t !== undefined) killTimer(t);
};

// runTimer fires the first timer due at or before `now` and says whether another one of the same
// invocation is: each invocation pays for its own turn.
const runTimer = (now) => {
  armedFor = undefined; // the host forgets what it was told when it wakes us
  const t = nextTimer();
  if (t === undefined || t.due > now) return false;
  const { callback, args, frame } = t;
  heapPop();
  if (t.interval >= 0) {
    t.due += t.interval;
    heapPush(t);
  } else {
    t.dead = true;
    timersById.delete(t.id);
    if (t.inv !== undefined) t.inv.timers.delete(t);
  }
  host.setContext(frame);
  try {
    ReflectApply(callback, global, args === undefined ? [] : args);
  } catch (error) {
    reportException(error);
  }
  host.setContext(undefined);
  const next = nextTimer();
  return next !== undefined && next.due <= now && next.inv === t.inv;
};

// armTimers tells the host when to wake this isolate.
const armTimers = () => {
  const t = live.size > 0 ? nextTimer() : undefined;
  let due = t === undefined ? -1 : t.due;
  if (unfinished.length > 0) due = host.now() + 1; // see sendFinish
  const inv = t === undefined || t.inv === undefined ? 0 : t.inv.id;
  if (due !== armedFor || inv !== armedInv) {
    armedFor = due;
    armedInv = inv;
    host.timer(due, inv);
  }
};

// scheduler.wait (Workers runtime API): a promise that settles after a delay.
const schedulerUnit = new Unit(() => {
  class Scheduler {
    constructor() { if (arguments[0] !== kInternal) throw illegalConstructor(); }
    wait(delay, options = undefined) {
      return new Promise((resolve, reject) => {
        const ms = toEnforced(delay, "scheduler.wait: delay");
        const { signal } = toDictionary(options, "scheduler.wait options");
        if (signal !== undefined && !(eventsUnit.loaded && eventsUnit.get().isAbortSignal(signal))) {
          throw new TypeError("scheduler.wait: option signal is not an AbortSignal.");
        }
        if (signal === undefined) { addTimer(resolve, ms, false); return; }
        const { signalState, signalAdd, signalRemove } = eventsUnit.get();
        const s = signalState(signal);
        if (s.aborted) { reject(s.reason); return; }
        const id = addTimer(() => { signalRemove(signal, onAbort); resolve(); }, ms, false);
        const onAbort = signalAdd(signal, () => { clearTimer(id); reject(s.reason); });
      });
    }
  }
  defineInterface(Scheduler, "Scheduler");
  return { __proto__: null, scheduler: new Scheduler(kInternal) };
});
