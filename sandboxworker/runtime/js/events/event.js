// Event and its kin (https://dom.spec.whatwg.org/#events).

// EventState is what dispatch works on; tenants hold the Event around it.
class EventState {
  constructor(type, init) {
    this.type = type;
    this.bubbles = !!init.bubbles;
    this.cancelable = !!init.cancelable;
    this.composed = !!init.composed;
    this.target = null;
    this.currentTarget = null;
    this.phase = 0;
    this.canceled = false;
    this.stopped = false;
    this.stoppedNow = false;
    this.passive = false;
    this.dispatching = false;
    this.initialized = true;
    this.trusted = false;
    this.timeStamp = performanceNow();
    this.inner = undefined; // per-class record of FetchEvent and ExtendableEvent
  }
}
bare(EventState);

let eventState, isEvent, fetchEventAnswer;
class Event {
  #e;
  static {
    eventState = (event) => event.#e;
    isEvent = (v) => isObject(v) && #e in v;
  }
  constructor(type, init = undefined) {
    needArgs("Event constructor", arguments.length, 1);
    const name = toDOMString(type);
    this.#e = new EventState(name, toDictionary(init, "Event init"));
    // [LegacyUnforgeable]: an own accessor.
    ObjectDefineProperty(this, "isTrusted", trustedDescriptor);
  }
  get type() { return this.#e.type; }
  get target() { return this.#e.target; }
  get srcElement() { return this.#e.target; }
  get currentTarget() { return this.#e.currentTarget; }
  composedPath() { const t = this.#e.currentTarget; return t === null ? [] : [t]; }
  get eventPhase() { return this.#e.phase; }
  stopPropagation() { this.#e.stopped = true; }
  get cancelBubble() { return this.#e.stopped; }
  set cancelBubble(v) { if (v) this.#e.stopped = true; else void this.#e; }
  stopImmediatePropagation() { this.#e.stopped = this.#e.stoppedNow = true; }
  get bubbles() { return this.#e.bubbles; }
  get cancelable() { return this.#e.cancelable; }
  get returnValue() { return !this.#e.canceled; }
  set returnValue(v) { if (!v) this.preventDefault(); else void this.#e; }
  preventDefault() {
    const e = this.#e;
    if (e.cancelable && !e.passive) e.canceled = true;
  }
  get defaultPrevented() { return this.#e.canceled; }
  get composed() { return this.#e.composed; }
  get timeStamp() { return this.#e.timeStamp; }
  initEvent(type, bubbles = false, cancelable = false) {
    needArgs("initEvent", arguments.length, 1);
    const e = this.#e;
    const name = toDOMString(type);
    if (e.dispatching) return;
    e.type = name;
    e.bubbles = !!bubbles;
    e.cancelable = !!cancelable;
    e.target = null;
    e.trusted = e.stopped = e.stoppedNow = e.canceled = false;
  }
}
const trustedDescriptor = {
  __proto__: null, enumerable: true, configurable: false, set: undefined,
  get: ObjectGetOwnPropertyDescriptor({ get isTrusted() { return eventState(this).trusted; } }, "isTrusted").get,
};
defineInterface(Event, "Event", { NONE: 0, CAPTURING_PHASE: 1, AT_TARGET: 2, BUBBLING_PHASE: 3 });

// https://dom.spec.whatwg.org/#interface-customevent
class CustomEvent extends Event {
  #detail;
  constructor(type, init = undefined) {
    needArgs("CustomEvent constructor", arguments.length, 1);
    super(type, init);
    const detail = toDictionary(init, "CustomEvent init").detail;
    this.#detail = detail === undefined ? null : detail;
  }
  get detail() { return this.#detail; }
  initCustomEvent(type, bubbles = false, cancelable = false, detail = null) {
    needArgs("initCustomEvent", arguments.length, 1);
    if (eventState(this).dispatching) return;
    this.#detail = detail;
    this.initEvent(type, bubbles, cancelable);
  }
}
defineInterface(CustomEvent, "CustomEvent");

// https://html.spec.whatwg.org/#errorevent
class ErrorEvent extends Event {
  #message = ""; #filename = ""; #lineno = 0; #colno = 0; #error;
  constructor(type, init = undefined) {
    needArgs("ErrorEvent constructor", arguments.length, 1);
    super(type, init);
    const d = toDictionary(init, "ErrorEvent init");
    if (d.colno !== undefined) this.#colno = toNumber(d.colno) >>> 0;
    this.#error = d.error;
    if (d.filename !== undefined) this.#filename = toUSVString(d.filename);
    if (d.lineno !== undefined) this.#lineno = toNumber(d.lineno) >>> 0;
    if (d.message !== undefined) this.#message = toDOMString(d.message);
  }
  get message() { return this.#message; }
  get filename() { return this.#filename; }
  get lineno() { return this.#lineno; }
  get colno() { return this.#colno; }
  get error() { return this.#error; }
}
defineInterface(ErrorEvent, "ErrorEvent");

const toPort = (v) => {
  if (!messageUnit.loaded || !messageUnit.get().isPort(v)) throw new TypeError("The value is not a MessagePort.");
  return v;
};
// https://html.spec.whatwg.org/#messageevent
class MessageEvent extends Event {
  #data = null; #origin = ""; #lastEventId = ""; #source = null; #ports;
  constructor(type, init = undefined) {
    needArgs("MessageEvent constructor", arguments.length, 1);
    super(type, init);
    const d = toDictionary(init, "MessageEvent init");
    if (d.data !== undefined) this.#data = d.data;
    if (d.lastEventId !== undefined) this.#lastEventId = toDOMString(d.lastEventId);
    if (d.origin !== undefined) this.#origin = toUSVString(d.origin);
    this.#ports = ObjectFreeze(d.ports === undefined ? [] : toSequence(d.ports, "ports", toPort));
    if (d.source !== undefined && d.source !== null) this.#source = toPort(d.source);
  }
  initMessageEvent(type, bubbles = false, cancelable = false, data = null, origin = "", lastEventId = "", source = null, ports = []) {
    void this.#data;
    needArgs("initMessageEvent", arguments.length, 1);
    const o = toUSVString(origin), id = toDOMString(lastEventId), s = source === null || source === undefined ? null : toPort(source);
    const list = ObjectFreeze(toSequence(ports, "ports", toPort));
    if (eventState(this).dispatching) return;
    this.initEvent(type, bubbles, cancelable);
    this.#data = data;
    this.#origin = o;
    this.#lastEventId = id;
    this.#source = s;
    this.#ports = list;
  }
  get data() { return this.#data; }
  get origin() { return this.#origin; }
  get lastEventId() { return this.#lastEventId; }
  get source() { return this.#source; }
  get ports() { return this.#ports; }
}
defineInterface(MessageEvent, "MessageEvent");

// https://websockets.spec.whatwg.org/#the-closeevent-interface
class CloseEvent extends Event {
  #wasClean = false; #code = 0; #reason = "";
  constructor(type, init = undefined) {
    needArgs("CloseEvent constructor", arguments.length, 1);
    super(type, init);
    const d = toDictionary(init, "CloseEvent init");
    if (d.code !== undefined) this.#code = toUnsignedShort(d.code);
    if (d.reason !== undefined) this.#reason = toUSVString(d.reason);
    this.#wasClean = !!d.wasClean;
  }
  get wasClean() { return this.#wasClean; }
  get code() { return this.#code; }
  get reason() { return this.#reason; }
}
defineInterface(CloseEvent, "CloseEvent");

// https://html.spec.whatwg.org/#promiserejectionevent
class PromiseRejectionEvent extends Event {
  #promise; #reason;
  constructor(type, init) {
    needArgs("PromiseRejectionEvent constructor", arguments.length, 2);
    super(type, init);
    const d = toDictionary(init, "PromiseRejectionEvent init");
    if (!isObject(d.promise)) throw new TypeError("PromiseRejectionEvent init: promise is required.");
    this.#promise = d.promise;
    this.#reason = d.reason;
  }
  get promise() { return this.#promise; }
  get reason() { return this.#reason; }
}
defineInterface(PromiseRejectionEvent, "PromiseRejectionEvent");

// Service-worker events (https://w3c.github.io/ServiceWorker/#extendableevent-interface). `inner` of
// one the runtime dispatches is its Invocation; one that a tenant made has none and extends nothing.
class ExtendableEvent extends Event {
  constructor(type, init = undefined) {
    needArgs("ExtendableEvent constructor", arguments.length, 1);
    super(type, init);
  }
  waitUntil(promise) {
    const inv = eventState(this).inner;
    needArgs("waitUntil", arguments.length, 1);
    if (inv === undefined) throw newDOMException("The event was not dispatched by the host.", "InvalidStateError");
    inv.waitUntil(promise);
  }
}
defineInterface(ExtendableEvent, "ExtendableEvent");

class FetchEvent extends ExtendableEvent {
  #request; #answer = undefined;
  static { fetchEventAnswer = (event) => event.#answer; }
  constructor(type, init) {
    needArgs("FetchEvent constructor", arguments.length, 2);
    super(type, init);
    const d = toDictionary(init, "FetchEvent init");
    if (!isRequest(d.request)) throw new TypeError("FetchEvent init: request is required and must be a Request.");
    this.#request = d.request;
  }
  get request() { return this.#request; }
  // respondWith takes a Response or a promise of one; the answer is kept as given.
  respondWith(response) {
    needArgs("respondWith", arguments.length, 1);
    const e = eventState(this);
    if (e.inner === undefined || !e.dispatching) {
      throw newDOMException("respondWith() must be called while the fetch event is dispatched.", "InvalidStateError");
    }
    if (this.#answer !== undefined) {
      throw newDOMException("respondWith() was already called for this event.", "InvalidStateError");
    }
    e.stopped = e.stoppedNow = true;
    this.#answer = { __proto__: null, value: response };
  }
  passThroughOnException() {
    const inv = eventState(this).inner;
    if (inv !== undefined) inv.passThrough = true;
  }
}
defineInterface(FetchEvent, "FetchEvent");
