// MessageChannel and MessagePort (https://html.spec.whatwg.org/#channel-messaging). Both ends are in this
// isolate: a message is cloned when it is posted and its event is a task of a later part of the same turn.

const { cloneWithTransfer, transferList } = cloneUnit.get();
const { EventTarget, MessageEvent, Event, fire, targetState, defineHandler, getHandler, setHandler } = eventsUnit.get();

class PortState {
  constructor() {
    this.wrapper = undefined;
    this.other = undefined; // PortState it is entangled with
    this.queue = new Fifo(); // {value, ports, frame}, until it is started
    this.started = false;
    this.detached = false; // transferred or closed
  }
}
bare(PortState);

let portState, setPortState, isPort;
class MessagePort extends EventTarget {
  #p;
  static {
    portState = (v) => v.#p;
    setPortState = (v, p) => { v.#p = p; p.wrapper = v; };
    isPort = (v) => isObject(v) && #p in v;
  }
  constructor() {
    if (arguments[0] !== kInternal) throw illegalConstructor();
    super();
    setPortState(this, arguments[1]);
  }
  postMessage(message, options = undefined) {
    const p = this.#p;
    needArgs("MessagePort.postMessage", arguments.length, 1);
    let list;
    if (isObject(options) && typeof options[SymbolIterator] === "function") {
      list = transferList(options, "postMessage: the transfer list");
    } else {
      const { transfer } = toDictionary(options, "postMessage options");
      if (transfer !== undefined) list = transferList(transfer, "postMessage option transfer");
    }
    let doomed = false;
    if (list !== undefined) {
      for (let i = 0; i < list.length; i++) {
        if (list[i] === this) throw newDOMException("postMessage: a port cannot be sent through itself.", "DataCloneError");
        if (p.other !== undefined && list[i] === p.other.wrapper) doomed = true;
      }
    }
    const { value, ports } = cloneWithTransfer(message, list);
    const { other } = p;
    if (other === undefined || doomed) return;
    other.queue.push({ __proto__: null, value, ports, frame: host.getContext() });
    if (other.started) addTask(deliver, other);
  }
  start() { startPort(this.#p); }
  close() {
    const p = this.#p;
    p.detached = true;
    const { other } = p;
    if (other === undefined) return;
    p.other = other.other = undefined;
    // What was sent before still arrives; then the other end learns of it.
    other.queue.push({ __proto__: null, closed: true, frame: host.getContext() });
    addTask(deliver, other);
  }
  get onmessage() { void this.#p; return getHandler(targetState(this), "message"); }
  set onmessage(value) {
    const p = this.#p;
    setHandler(targetState(this), "message", value);
    startPort(p);
  }
}
defineHandler(MessagePort.prototype, "messageerror", isPortOrThrow);
defineHandler(MessagePort.prototype, "close", isPortOrThrow);
defineInterface(MessagePort, "MessagePort");
function isPortOrThrow(v) { if (!isPort(v)) throw illegalInvocation(); }

const startPort = (p) => {
  if (p.started || p.detached) return;
  p.started = true;
  for (let i = 0; i < p.queue.length; i++) addTask(deliver, p);
};

// deliver fires the event of the oldest message, if the port is still where it was.
const deliver = (p) => {
  const m = p.queue.peek();
  if (m === undefined || (!p.started && !m.closed)) return;
  p.queue.shift();
  if (m.frame !== undefined && m.frame.inv !== undefined && m.frame.inv.ended) return;
  host.setContext(m.frame);
  const target = targetState(p.wrapper);
  if (m.closed) {
    p.detached = true;
    fire(target, new Event("close"));
  } else {
    fire(target, new MessageEvent("message", { __proto__: null, data: m.value, ports: m.ports }));
  }
  host.setContext(undefined);
};

// portTransfer moves the entanglement and what waits to a new object.
const portTransfer = (port) => ({
  __proto__: null,
  port: true,
  check() {
    if (portState(port).detached) throw newDOMException("A MessagePort that was closed or transferred could not be cloned.", "DataCloneError");
  },
  move() {
    const p = portState(port);
    const left = new PortState();
    left.detached = true;
    setPortState(port, left);
    p.started = false;
    return new MessagePort(kInternal, p);
  },
});

class MessageChannel {
  #port1; #port2;
  constructor() {
    const a = new PortState(), b = new PortState();
    a.other = b;
    b.other = a;
    this.#port1 = new MessagePort(kInternal, a);
    this.#port2 = new MessagePort(kInternal, b);
  }
  get port1() { return this.#port1; }
  get port2() { return this.#port2; }
}
defineInterface(MessageChannel, "MessageChannel");

return { __proto__: null, MessageChannel, MessagePort, isPort, portTransfer };
