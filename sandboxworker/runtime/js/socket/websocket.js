// WebSocket and WebSocketPair (https://websockets.spec.whatwg.org/, and accept() as Workers have it).
//
// A pair is two endpoints in this isolate; what one sends the other gets. The one that is given to a
// Response is coupled to the wire: what its peer sends goes to the client, what the client sends its
// peer gets. Messages wait for accept(); what waits is not granted again, so a client that nobody
// listens to stops at its window.

const CONNECTING = 0, OPEN = 1, CLOSING = 2, CLOSED = 3;
const OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, LAST = 0x80; // schema/frame.capnp Message
const PART_COST = 64; // ipc.MessageCost
const PART_BYTES = 65535; // with its flag at most CHUNK_BYTES
const MESSAGE_LIMIT_BYTES = 1048576; // limits.DefaultWire().Message
// How long a close is not answered because listeners are still at work on the messages before it. The gateway
// answers for a worker after 8 s (supervisor/socket).
const LINGER_MS = 7000;
const BUFFER_BYTES = 8388608; // what one socket may have sent that its client has not taken

class SocketState {
  constructor(wrapper) {
    this.wrapper = wrapper;
    this.peer = undefined; // SocketState
    this.wire = undefined; // SocketWire, once coupled
    this.accepted = false;
    this.used = false; // coupled or accepted: it can be only one of them
    this.ready = OPEN;
    this.queue = new Fifo(); // {op, data, code, reason, clean, cost, wire}: arrived, not dispatched
    this.closedIn = false;
    this.closedOut = false;
    this.busy = 0; // promises that listeners of messages gave and that have not settled
    this.answer = undefined; // {code, reason, timer}: how the other end's close is answered, once they have
    this.protocol = "";
    this.url = "";
  }
  send(m) {
    if (this.peer.wire !== undefined) this.peer.wire.send(m);
    else this.peer.arrive(m, true);
  }
  // hear takes what came over this endpoint's own wire: it is for the other end.
  hear(m) {
    const { wire } = this.peer;
    if (wire === undefined) {
      this.peer.arrive(m, false);
      return;
    }
    // From wire to wire: a worker that passes an upstream's WebSocket on.
    if (wire.buffered > BUFFER_BYTES) m = { __proto__: null, op: OP_CLOSE, code: 1013, reason: "the other side does not read", clean: true, cost: m.cost, wire: m.wire };
    wire.send(m);
    if (m.wire !== undefined) m.wire.grantBack(m.cost);
  }
  // arrive takes what the other end said. Between the two ends of a pair it comes in a later microtask.
  arrive(m, local) {
    this.queue.push(m);
    if (!this.accepted) {
      if (m.op === OP_CLOSE) this.answerClose(m.code, m.reason); // nobody listens: it must not stay half open
      return;
    }
    if (local) PromiseThen(PromiseResolve(undefined), () => this.dispatch());
    else this.dispatch();
  }
  dispatch() {
    const { targetState: stateOf, fire, MessageEvent, CloseEvent } = eventsUnit.get();
    while (this.accepted && this.queue.length > 0) {
      const m = this.queue.shift();
      if (this.closedIn) continue;
      if (m.op === OP_CLOSE) {
        this.closedIn = true;
        this.ready = CLOSING;
        if (!m.clean || !this.linger(m.code, m.reason)) {
          this.answerClose(m.code, m.reason);
          this.ready = CLOSED;
        }
        fire(stateOf(this.wrapper), new CloseEvent("close", { __proto__: null, code: m.code, reason: m.reason, wasClean: m.clean }));
      } else {
        const returned = bareList();
        fire(stateOf(this.wrapper), new MessageEvent("message", { __proto__: null, data: m.data }), returned);
        for (let i = 0; i < returned.length; i++) this.attend(returned[i]);
      }
      if (m.wire !== undefined) m.wire.grantBack(m.cost);
    }
  }
  // attend has a close wait for what a listener does after its return.
  attend(promise) {
    if (!isObject(promise)) return;
    const done = () => {
      if (--this.busy === 0) this.settleClose();
    };
    this.busy++;
    // Its rejection stays unhandled, for whom it concerns.
    try { PromiseThen(promise, done, (error) => { done(); throw error; }); } catch { this.busy--; } // it is no promise
  }
  // linger says whether the answer to a close has to wait.
  linger(code, reason) {
    if (this.busy === 0 || this.closedOut) return false;
    let timer;
    try { timer = addTimer(() => this.settleClose(), LINGER_MS, false); } catch { return false; } // too many timers
    this.answer = { __proto__: null, code, reason, timer };
    return true;
  }
  settleClose() {
    const { answer } = this;
    if (answer === undefined) return;
    this.answer = undefined;
    const t = timersById.get(answer.timer);
    if (t !== undefined) killTimer(t);
    this.answerClose(answer.code, answer.reason);
    this.ready = CLOSED;
  }
  answerClose(code, reason) {
    if (this.closedOut) return;
    this.closedOut = true;
    if (code === 1006) code = 1005;
    this.send({ __proto__: null, op: OP_CLOSE, code, reason, clean: true });
  }
  close(code, reason) {
    if (this.closedOut) return;
    if (this.answer !== undefined) { // the other end has closed: listeners are still to be waited for
      this.answer.code = code;
      this.answer.reason = reason;
      return;
    }
    this.closedOut = true;
    if (this.ready < CLOSING) this.ready = CLOSING;
    this.send({ __proto__: null, op: OP_CLOSE, code, reason, clean: true });
  }
}
bare(SocketState);

// SocketWire is the coupled endpoint's other side: the stream of an invocation.
class SocketWire {
  constructor(inv, state) {
    this.inv = inv;
    this.state = state; // SocketState
    this.window = WINDOW_BYTES;
    this.out = new Fifo(); // {op, bytes, at}
    this.buffered = 0;
    this.parts = bareList();
    this.total = 0;
    this.closedIn = false;
    this.closedOut = false;
  }
  get open() { return !(this.closedIn && this.closedOut); }
  // send is what the tenant's endpoint said.
  send(m) {
    if (this.closedOut || this.inv.ended) return;
    if (m.op === OP_CLOSE) {
      let bytes = new Uint8Array(0);
      if (m.code !== 1005) {
        const reason = host.utf8Encode(m.reason);
        bytes = new Uint8Array(2 + TypedArrayByteLength(reason));
        bytes[0] = m.code >> 8;
        bytes[1] = m.code & 255;
        TypedArraySet(bytes, reason, 2);
      }
      this.out.push({ __proto__: null, op: OP_CLOSE, bytes, at: 0 });
    } else {
      const bytes = m.op === OP_TEXT ? host.utf8Encode(m.data) : new Uint8Array(m.data);
      this.buffered += TypedArrayByteLength(bytes);
      this.out.push({ __proto__: null, op: m.op, bytes, at: 0 });
    }
    this.run();
  }
  run() {
    while (this.out.length > 0) {
      const m = this.out.peek();
      const n = TypedArrayByteLength(m.bytes), left = n - m.at;
      const room = this.window - PART_COST;
      if (room < left && room < 4096) return;
      const size = MathMin(left, room, PART_BYTES);
      const last = size === left;
      const part = new Uint8Array(size + 1);
      part[0] = last ? m.op | LAST : m.op;
      TypedArraySet(part, subarrayU8(m.bytes, m.at, m.at + size), 1);
      try { host.chunk(this.inv.id, part); } catch { return; } // the turn's output is full: the next grant goes on
      this.window -= size + PART_COST;
      m.at += size;
      if (m.op !== OP_CLOSE) this.buffered -= size;
      if (!last) continue;
      this.out.shift();
      if (m.op === OP_CLOSE) {
        this.closedOut = true;
        this.out.clear();
        this.over();
      }
    }
  }
  grant(n) {
    this.window += n;
    this.run();
  }
  grantBack(n) { if (!this.inv.ended && n > 0) host.credit(this.inv.id, n); }
  // chunk is a part of what the client said, its flag before it.
  chunk(u8) {
    if (this.closedIn) return;
    const flag = u8[0], op = flag & 15;
    const bytes = subarrayU8(u8, 1, TypedArrayByteLength(u8));
    const cost = TypedArrayByteLength(bytes) + PART_COST;
    if (op === OP_CLOSE) {
      this.closedIn = true;
      let code = 1005, reason = "";
      if (TypedArrayByteLength(bytes) >= 2) {
        code = bytes[0] << 8 | bytes[1];
        reason = host.utf8Decode(subarrayU8(bytes, 2, TypedArrayByteLength(bytes)), false, true);
      }
      this.state.hear({ __proto__: null, op, code: this.state.peer.wire !== undefined && code === 1006 ? 1011 : code, reason, clean: code !== 1006, cost, wire: this });
      this.over();
      return;
    }
    this.parts[this.parts.length] = bytes;
    this.total += TypedArrayByteLength(bytes);
    if ((flag & LAST) === 0) {
      this.grantBack(cost); // whole messages are what a window of their own has no room for
      return;
    }
    const parts = [];
    for (let i = 0; i < this.parts.length; i++) ArrayPush(parts, this.parts[i]);
    const all = concatBytes(parts, this.total);
    this.parts = bareList();
    this.total = 0;
    const data = op === OP_TEXT ? host.utf8Decode(all, false, true) : TypedArrayBuffer(TypedArraySliceU8(all)); // a lone part is a view
    this.state.hear({ __proto__: null, op, data, cost, wire: this });
  }
  end() {}
  // over ends the invocation when both sides have closed.
  over() {
    if (!this.open) this.inv.socketOver();
  }
  // lost: the invocation ends, or its client went without a word.
  lost() {
    if (this.closedIn) return;
    this.closedIn = this.closedOut = true;
    this.out.clear();
    const { peer } = this.state;
    const m = { __proto__: null, op: OP_CLOSE, code: peer.wire === undefined ? 1006 : 1011, reason: "", clean: false, cost: 0 };
    if (peer.wire === undefined) peer.arrive(m, true);
    else if (!peer.wire.inv.ended) peer.wire.send(m);
  }
  forget() {
    this.closedIn = this.closedOut = true;
    this.out.clear();
    this.parts = bareList();
  }
}
bare(SocketWire);

let socketState, isSocket;
const { EventTarget: SocketTarget } = eventsUnit.get();
class WebSocket extends SocketTarget {
  #s;
  static {
    socketState = (v) => v.#s;
    isSocket = (v) => isObject(v) && #s in v;
  }
  constructor(url, protocols = undefined) {
    super();
    if (url === kInternal) { this.#s = new SocketState(this); return; }
    needArgs("WebSocket constructor", arguments.length, 1);
    const s = this.#s = new SocketState(this);
    s.ready = CONNECTING;
    s.accepted = s.used = true;
    connect(s, toUSVString(url), protocols);
  }
  accept() {
    const s = this.#s;
    if (s.wire !== undefined) throw new TypeError("accept(): this WebSocket was given to a Response; accept the other one of the pair.");
    if (s.accepted) return;
    s.accepted = s.used = true;
    if (s.queue.length > 0) PromiseThen(PromiseResolve(undefined), () => s.dispatch());
  }
  send(message) {
    const s = this.#s;
    needArgs("WebSocket.send", arguments.length, 1);
    if (!s.accepted) throw new TypeError("send(): call accept() on this WebSocket first.");
    let m;
    if (isObject(message) && isBufferSource(message)) m = { __proto__: null, op: OP_BINARY, data: TypedArrayBuffer(copyBytes(message)) };
    else m = { __proto__: null, op: OP_TEXT, data: toUSVString(message) };
    if (s.ready === CONNECTING) throw newDOMException("send(): the connection is not open yet; wait for the event \"open\".", "InvalidStateError");
    if (s.closedOut) throw new TypeError("send(): this WebSocket is closed or closing.");
    const size = m.op === OP_TEXT ? m.data.length : ArrayBufferByteLength(m.data);
    if (size > MESSAGE_LIMIT_BYTES || (m.op === OP_TEXT && size * 3 > MESSAGE_LIMIT_BYTES && TypedArrayByteLength(host.utf8Encode(m.data)) > MESSAGE_LIMIT_BYTES)) {
      throw new TypeError(`send(): a message may have ${MESSAGE_LIMIT_BYTES} bytes.`);
    }
    const { wire } = s.peer;
    if (wire !== undefined && wire.buffered + size > BUFFER_BYTES) {
      throw newDOMException(`send(): the other side does not read: ${wire.buffered} bytes wait for it, and ${BUFFER_BYTES} may.`, "QuotaExceededError");
    }
    s.send(m);
  }
  close(code = undefined, reason = undefined) {
    const s = this.#s;
    let n = 1005, text = "";
    if (code !== undefined) {
      n = toUnsignedShort(code);
      if (n !== 1000 && n !== 1001 && n !== 1003 && !(n >= 1007 && n <= 1014) && !(n >= 3000 && n <= 4999)) {
        throw newDOMException(`close(): the code ${n} cannot be sent; use 1000 or one from 3000 to 4999.`, "InvalidAccessError");
      }
    }
    if (reason !== undefined) {
      text = toUSVString(reason);
      if (TypedArrayByteLength(host.utf8Encode(text)) > 123) throw newDOMException("close(): the reason has more than 123 bytes.", "SyntaxError");
      if (code === undefined) n = 1000;
    }
    if (!s.used) s.accepted = s.used = true;
    if (s.ready === CONNECTING) { s.closedOut = true; s.ready = CLOSING; return; } // before it is open: it will be closed then
    s.close(n, text);
  }
  get readyState() { return this.#s.ready; }
  get bufferedAmount() { const s = this.#s; return s.peer?.wire === undefined ? 0 : s.peer.wire.buffered; }
  get url() { return this.#s.url; }
  get protocol() { return this.#s.protocol; }
  get extensions() { void this.#s; return ""; }
  get binaryType() { void this.#s; return "arraybuffer"; }
  set binaryType(v) {
    void this.#s;
    if (`${v}` !== "arraybuffer") throw newDOMException("binaryType: only \"arraybuffer\" is served.", "NotSupportedError");
  }
}
for (let i = 0, types = ["open", "message", "close", "error"]; i < types.length; i++) eventsUnit.get().defineHandler(WebSocket.prototype, types[i]);
defineInterface(WebSocket, "WebSocket", { CONNECTING, OPEN, CLOSING, CLOSED });

function WebSocketPair() {
  if (new.target === undefined) throw new TypeError("WebSocketPair: use new.");
  const a = new WebSocket(kInternal), b = new WebSocket(kInternal);
  const x = socketState(a), y = socketState(b);
  x.peer = y;
  y.peer = x;
  const put = (key, value) => ObjectDefineProperty(this, key, { __proto__: null, value, enumerable: true });
  put("0", a);
  put("1", b);
}

// join couples an endpoint to an upstream: its other end is that subrequest's wire.
const join = (s, sub) => {
  const far = new SocketState(undefined);
  s.peer = far;
  far.peer = s;
  far.used = true;
  return (far.wire = new SocketWire(sub, far));
};

// upstream makes the WebSocket of a response of status 101 to a fetch().
const upstream = (sub) => {
  const ws = new WebSocket(kInternal);
  sub.socket = join(socketState(ws), sub);
  return ws;
};

// connect is new WebSocket(url): a subrequest that ends in the events of the socket.
const connect = (s, url, protocols) => {
  let list = [];
  if (protocols !== undefined) list = typeof protocols === "string" ? [protocols] : toSequence(protocols, "WebSocket protocols", toUSVString);
  let href = url;
  if (StringStartsWith(StringToLowerCase(url), "ws:")) href = `http:${StringSlice(url, 3)}`;
  else if (StringStartsWith(StringToLowerCase(url), "wss:")) href = `https:${StringSlice(url, 4)}`;
  let request;
  try {
    request = new Request(href);
  } catch {
    throw newDOMException(`WebSocket: ${JSONStringify(StringSlice(url, 0, 200))} is not a URL of ws: or wss:.`, "SyntaxError");
  }
  s.url = url;
  const headers = requestHeaders(requestState(request));
  headers.append("upgrade", "websocket");
  if (list.length > 0) headers.append("sec-websocket-protocol", ArrayJoin(list, ", "));
  const { targetState: stateOf, fire, Event, ErrorEvent, CloseEvent } = eventsUnit.get();
  const failed = (error) => {
    s.ready = CLOSED;
    s.closedIn = s.closedOut = true;
    fire(stateOf(s.wrapper), new ErrorEvent("error", { __proto__: null, message: `${error?.message ?? "the connection failed"}`, error }));
    fire(stateOf(s.wrapper), new CloseEvent("close", { __proto__: null, code: 1006, reason: "", wasClean: false }));
  };
  PromiseThen(fetchUnit.get().subrequest(requestState(request)), (response) => {
    const r = responseState(response);
    if (r.webSocket === undefined) {
      failed(new TypeError(`the server answered with status ${r.status}`));
      return;
    }
    const given = socketState(r.webSocket);
    s.peer = given.peer; // this socket in the place of the response's
    s.peer.peer = s;
    s.protocol = responseHeaders(r).get("sec-websocket-protocol") ?? "";
    if (s.closedOut) {
      s.closedOut = false;
      s.close(1000, "");
      return;
    }
    s.ready = OPEN;
    fire(stateOf(s.wrapper), new Event("open"));
    s.dispatch();
  }, failed);
};

// couple gives the client's end of a pair to the client. Throws if that cannot be.
const couple = (inv, response) => {
  const s = socketState(response.webSocket);
  if (s.used || s.wire !== undefined) throw new TypeError("The Response's webSocket was accepted or given away before; return the other one of the pair.");
  host.respond(inv.id, 101, responseFlat(response), 0, undefined);
  s.used = true;
  const wire = s.wire = inv.socket = new SocketWire(inv, s);
  while (s.queue.length > 0) wire.send(s.queue.shift()); // said before there was anybody to hear it
};

return { __proto__: null, WebSocket, WebSocketPair, isSocket, couple, upstream };
