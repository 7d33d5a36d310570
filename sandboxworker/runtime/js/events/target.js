// EventTarget (https://dom.spec.whatwg.org/#interface-eventtarget). There is no tree here: a target
// is its own whole path.

class Listener {
  constructor(type, callback, capture, once, passive) {
    this.type = type;
    this.callback = callback; // function, object with handleEvent, or the record of an on... attribute
    this.capture = capture;
    this.once = once;
    this.passive = passive;
    this.removed = false;
  }
}
bare(Listener);

// TargetState holds the listeners of one target, in order.
class TargetState {
  constructor(wrapper) { this.wrapper = wrapper; this.listeners = bareList(); this.handlers = undefined; }
}
bare(TargetState);

const globalTarget = new TargetState(global);

let targetState;
class EventTarget {
  #t = new TargetState(this);
  static {
    // The global object is an EventTarget that no constructor of ours made; `this` is undefined when
    // its methods are called by their bare names.
    targetState = (v) => {
      if (v === undefined || v === null || v === global) return globalTarget;
      if (!isObject(v) || !(#t in v)) throw illegalInvocation();
      return v.#t;
    };
  }
  constructor() {}
  addEventListener(type, callback, options = undefined) {
    const t = targetState(this);
    needArgs("addEventListener", arguments.length, 2);
    const name = toDOMString(type);
    let capture = false, once = false, passive = false, signal;
    if (isObject(options)) {
      capture = !!options.capture;
      once = !!options.once;
      passive = !!options.passive;
      signal = options.signal;
      if (signal !== undefined && !isAbortSignal(signal)) {
        throw new TypeError("addEventListener: option signal is not an AbortSignal.");
      }
    } else {
      capture = !!options;
    }
    if (callback === null || callback === undefined) return;
    if (!isObject(callback)) throw new TypeError("addEventListener: the callback is not an object.");
    if (signal !== undefined && signalState(signal).aborted) return;
    if (findListener(t, name, callback, capture) >= 0) return;
    const listener = new Listener(name, callback, capture, once, passive);
    t.listeners[t.listeners.length] = listener;
    if (t === globalTarget) noteGlobalListener(name);
    if (signal !== undefined) signalAdd(signal, () => dropListener(t, listener));
  }
  removeEventListener(type, callback, options = undefined) {
    const t = targetState(this);
    needArgs("removeEventListener", arguments.length, 2);
    const name = toDOMString(type);
    const capture = isObject(options) ? !!options.capture : !!options;
    if (callback !== null && callback !== undefined && !isObject(callback)) {
      throw new TypeError("removeEventListener: the callback is not an object.");
    }
    const i = findListener(t, name, callback, capture);
    if (i >= 0) dropListener(t, t.listeners[i]);
  }
  dispatchEvent(event) {
    const t = targetState(this);
    needArgs("dispatchEvent", arguments.length, 1);
    if (!isEvent(event)) throw new TypeError("dispatchEvent: the argument is not an Event.");
    const e = eventState(event);
    if (e.dispatching) throw newDOMException("The event is already being dispatched.", "InvalidStateError");
    e.trusted = false;
    return dispatch(t, event, undefined);
  }
}
defineInterface(EventTarget, "EventTarget");

const findListener = (t, type, callback, capture) => {
  const list = t.listeners;
  for (let i = 0; i < list.length; i++) {
    const l = list[i];
    if (l.type === type && l.callback === callback && l.capture === capture) return i;
  }
  return -1;
};
const dropListener = (t, listener) => {
  listener.removed = true;
  const list = t.listeners;
  for (let i = 0; i < list.length; i++) {
    if (list[i] === listener) { ArraySplice(list, i, 1); return; }
  }
};
const hasListener = (t, type) => {
  for (let i = 0; i < t.listeners.length; i++) if (t.listeners[i].type === type) return true;
  return false;
};

// dispatch runs the listeners; an exception of one is reported and the next still runs
// (https://dom.spec.whatwg.org/#concept-event-dispatch). Returns false if the event was canceled. returned: a bare
// list that takes what listeners return.
const dispatch = (t, event, returned) => {
  const e = eventState(event);
  e.dispatching = true;
  e.target = e.currentTarget = t.wrapper;
  e.phase = 2;
  const list = ArraySlice(t.listeners);
  for (let round = 0; round < 2 && !e.stopped; round++) { // capturing ones first, as at a target in a tree
    for (let i = 0; i < list.length && !e.stoppedNow; i++) {
      const l = list[i];
      if (l.removed || l.type !== e.type || l.capture !== (round === 0)) continue;
      if (l.once) dropListener(t, l);
      e.passive = l.passive;
      const result = invoke(t, l.callback, event, e);
      if (returned !== undefined) returned[returned.length] = result;
      e.passive = false;
    }
  }
  e.phase = 0;
  e.currentTarget = null;
  e.dispatching = false;
  e.stopped = e.stoppedNow = false;
  return !e.canceled;
};

const invoke = (t, callback, event, e) => {
  try {
    if (callback instanceof HandlerAttribute) {
      return callback.invoke(t, event, e);
    } else if (typeof callback === "function") {
      return ReflectApply(callback, t.wrapper, [event]);
    } else {
      const f = callback.handleEvent;
      if (typeof f !== "function") throw new TypeError("The listener's handleEvent is not a function.");
      return ReflectApply(f, callback, [event]);
    }
  } catch (error) {
    reportException(error);
  }
};

// fire dispatches an event of the runtime's own making.
const fire = (t, event, returned = undefined) => {
  eventState(event).trusted = true;
  return dispatch(t, event, returned);
};

// HandlerAttribute is the listener behind an `on...` attribute
// (https://html.spec.whatwg.org/#event-handler-attributes). It is never handed to a tenant.
class HandlerAttribute {
  constructor() { this.value = null; }
  invoke(t, event, e) {
    if (typeof this.value !== "function") return undefined;
    let result;
    if (t === globalTarget && e.type === "error" && event instanceof ErrorEvent) {
      result = ReflectApply(this.value, t.wrapper, [event.message, event.filename, event.lineno, event.colno, event.error]);
      if (result === true) e.canceled = true;
      return result;
    }
    result = ReflectApply(this.value, t.wrapper, [event]);
    if (result === false && e.cancelable) e.canceled = true;
    return result;
  }
}
bare(HandlerAttribute);

// getHandler and setHandler read and write such an attribute.
const getHandler = (t, type) => (t.handlers === undefined ? null : t.handlers[type]?.value ?? null);
const setHandler = (t, type, value) => {
  if (t.handlers === undefined) t.handlers = { __proto__: null };
  let h = t.handlers[type];
  if (!isObject(value)) {
    if (h === undefined) return;
    delete t.handlers[type];
    const i = findListener(t, type, h, false);
    if (i >= 0) dropListener(t, t.listeners[i]);
    return;
  }
  if (h === undefined) {
    h = t.handlers[type] = new HandlerAttribute();
    t.listeners[t.listeners.length] = new Listener(type, h, false, false, false);
    if (t === globalTarget) noteGlobalListener(type);
  }
  h.value = value;
};

// defineHandler adds the attribute `on` + type to an object whose `this` is an EventTarget; `brand`
// throws for one that is not of the right kind.
const defineHandler = (object, type, brand = noop) => {
  const name = `on${type}`;
  const d = ObjectGetOwnPropertyDescriptor({
    get [name]() { brand(this); return getHandler(targetState(this), type); },
    set [name](v) { brand(this); setHandler(targetState(this), type, v); },
  }, name);
  ObjectDefineProperty(object, name, { __proto__: null, get: d.get, set: d.set, enumerable: true, configurable: true });
};
