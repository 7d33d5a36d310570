// Subrequests: a fetch() on its way through the gateway. It belongs to the invocation in whose
// context it was made and ends with it.

const OP_FETCH = 16; // sandboxworker/runtime/ops.go
const MAX_OPEN = 64; // limits.DefaultWire().StreamFetch; the next wait here
const redirectModes = ["follow", "error", "manual"]; // schema/frame.capnp Fetch.Redirect

const QUEUED = 0, ASKED = 1, ANSWERED_HEAD = 2, OVER = 3;
const fetches = new SafeMap(); // id -> Subrequest
let lastFetch = 0;

const freshId = () => {
  do { lastFetch = lastFetch >= 0x7fffffff ? 1 : lastFetch + 1; } while (fetches.has(FETCH_BIT + lastFetch));
  return FETCH_BIT + lastFetch;
};

class Subrequest {
  constructor(inv, request, d, target) {
    // {binding, call} of a service binding, or of a cache; undefined: it goes out. functions: those in a call's
    // arguments. inv: the invocation that has to ask, if not the one whose code runs.
    this.target = target;
    this.inv = inv;
    this.request = request; // RequestState
    this.d = d; // of the promise fetch() gave
    this.id = 0;
    this.state = QUEUED;
    this.ended = false; // what WireBody and Pump ask of whom they belong to
    this.wire = undefined; // WireBody of the response
    this.pump = undefined; // of the request's body
    this.socket = undefined; // SocketWire, once it is a WebSocket
    this.onAbort = undefined;
    fetchesPending++;
  }
  get label() { return this.target?.label ?? "fetch failed"; } // what its errors begin with
  start() {
    const { inv, request, target } = this;
    const headers = requestHeaders(request).copy();
    headers.delete("content-length"); // it follows from the body
    const upgrade = target === undefined && request.method === "GET" && StringToLowerCase(headers.get("upgrade") ?? "") === "websocket";
    const b = request.body;
    let mode = 0, data, length;
    if (b !== null) {
      mode = 2;
      if (b.stream === undefined && b.kind !== B_WIRE) {
        b.used = true;
        data = sourceBytes(b);
        length = TypedArrayByteLength(data);
        if (length <= CHUNK_BYTES) {
          mode = 1;
        } else {
          this.pump = new Pump(this, undefined);
          this.pump.pending = data;
          this.pump.closing = true;
          data = undefined;
        }
      } else {
        const streams = streamsUnit.get();
        const stream = streams.readableState(bodyStream(b));
        this.pump = new Pump(this, streams.acquireDefaultReader(stream));
        this.pump.pending = b.prefix;
        if (b.prefix === undefined) length = streams.fixedLengthOf(stream);
      }
      if (mode === 2 && length !== undefined) headers.append("content-length", `${length}`);
    }
    const { url } = request;
    const hash = StringIndexOf(url, "#");
    let redirect = 0;
    while (redirectModes[redirect] !== request.options.redirect) redirect++;
    this.id = freshId();
    host.op(OP_FETCH, this.id, inv.id,
      `${request.method}\n${hash < 0 ? url : StringSlice(url, 0, hash)}\n${redirect}\n${mode}\n${
        target === undefined ? "0\n" : `${target.binding}\n${target.call}`}\n${upgrade ? 1 : 0}\n${headers.flat()}`, data);
    this.state = ASKED;
    fetches.set(this.id, this);
    inv.fetching++;
    if (this.pump !== undefined) this.pump.run();
  }
  // follow has it end when the signal aborts.
  follow(signal) {
    const { signalAdd, signalState } = eventsUnit.get();
    this.onAbort = signalAdd(signal, () => this.abort(signalState(signal).reason));
  }
  unfollow() {
    if (this.onAbort === undefined) return;
    eventsUnit.get().signalRemove(this.request.follow, this.onAbort);
    this.onAbort = undefined;
  }
  abort(reason) {
    this.onAbort = undefined;
    if (this.inv.ended) return;
    const { state } = this;
    if (state === ASKED || state === ANSWERED_HEAD) this.tell();
    this.over();
    if (state === QUEUED) cancelUnsent(this.request.body, reason);
    if (state === QUEUED || state === ASKED) this.d.reject(reason);
    this.wire?.fail(reason);
    this.pump?.stop(reason);
    this.socket?.lost();
  }
  // tell says to the host that nothing more is wanted. If the turn's output is full, the end of the
  // invocation says it.
  tell() { try { host.refuse(this.id); } catch { /* see above */ } }
  // over: nothing comes any more, though what has come may wait to be read.
  over() {
    if (this.state === OVER) return;
    const started = this.state !== QUEUED;
    this.state = OVER;
    fetchesPending--;
    this.ended = true;
    const { inv } = this;
    if (this.wire === undefined || this.wire.queue.length === 0) {
      this.unfollow();
      inv.fetches.delete(this);
    }
    if (!started) return;
    fetches.delete(this.id);
    inv.fetching--;
    startQueued(inv);
  }
  // result is the head, or the reason why there is none.
  result(ok, meta) {
    if (this.state !== ASKED) return;
    if (!ok) {
      this.fail(new TypeError(`${this.label}: ${meta}`));
      return;
    }
    this.state = ANSWERED_HEAD;
    let at = 0;
    const field = () => {
      const end = StringIndexOf(meta, "\n", at), s = StringSlice(meta, at, end);
      at = end + 1;
      return s;
    };
    const r = new ResponseState();
    r.type = "basic";
    r.status = +field();
    r.statusText = field();
    r.url = field();
    r.redirected = field() === "1";
    const streamed = field() === "1";
    r.headers = headerListFromFlat(StringSlice(meta, at), true);
    if (streamed) {
      this.wire = new WireBody(this, undefined, false, "response");
      r.body = new Body(B_WIRE, this.wire);
    } else if (r.status === 101) {
      r.webSocket = socketUnit.get().upstream(this);
    } else {
      this.over();
    }
    this.d.resolve(new Response(kInternal, r));
  }
  fail(error) {
    this.over();
    this.d.reject(error);
    this.pump?.stop(error);
  }
  chunk(u8) { (this.socket ?? this.wire)?.chunk(u8); }
  socketOver() {
    if (this.state === OVER) return;
    this.tell();
    this.over();
  }
  end() {
    if (this.state !== ANSWERED_HEAD) return;
    this.wire.end();
    this.over();
  }
  // aborted is the gateway's word: on the request's body, or on the rest of the response.
  aborted(reason, message) {
    if (reason === ABORT_REFUSED) {
      this.pump?.stop(newDOMException("The server wants no more of the request's body.", "AbortError"));
      return;
    }
    const error = new TypeError(`${this.label}: ${message}`);
    this.over();
    this.pump?.stop(error);
    this.wire?.fail(error);
    this.socket?.lost();
  }
  // refuse: the tenant cancelled the response's body.
  refuse() {
    if (this.state === OVER) return;
    this.tell();
    this.over();
  }
  // The Pump's side.
  answered() {}
  bodyFailed(error) {
    if (this.state === OVER) return;
    const { state } = this;
    this.tell();
    this.over();
    const failed = new TypeError(`${this.label}: the ${this.target?.label === undefined ? "request" : "response"}'s body failed: ${StringSlice(describeError(error), 0, 500)}`, { cause: error });
    if (state === ASKED) this.d.reject(failed);
    this.wire?.fail(failed);
  }
  // expects says whether something from outside may still wake who waits for it.
  get expects() {
    return this.state === QUEUED || this.state === ASKED || (this.state === ANSWERED_HEAD &&
      ((this.socket !== undefined && this.socket.open) || (this.wire !== undefined && this.wire.waiting) || (this.pump !== undefined && this.pump.blocked)));
  }
  // orphan: its invocation is over. A promise of its head stays pending for ever, and is collected.
  orphan(killed) {
    const { wire, pump } = this;
    this.unfollow();
    if (this.state !== OVER) fetchesPending--;
    this.state = OVER;
    this.ended = true;
    fetches.delete(this.id);
    if (this.socket !== undefined) { if (killed) this.socket.forget(); else this.socket.lost(); }
    if (killed) {
      wire?.forget();
      if (pump !== undefined) pump.stopped = true;
      return;
    }
    wire?.fail(new TypeError("The response's body cannot be read any more: the invocation that fetched it has ended."));
    pump?.stop(newDOMException("The invocation has ended.", "AbortError"));
  }
}
bare(Subrequest);

const startQueued = (inv) => {
  while (inv.fetchQueue !== undefined && inv.fetchQueue.length > 0 && inv.fetching < MAX_OPEN && !inv.ended) {
    const s = inv.fetchQueue.shift();
    if (s.state !== QUEUED) continue; // aborted meanwhile
    try { s.start(); } catch (error) { s.fail(error); }
  }
};

const subrequest = (state, target = undefined) => {
  const inv = target?.inv ?? currentInvocation(), label = target?.label ?? "fetch failed";
  if (inv === undefined) return PromiseReject(new TypeError(`${label}: start-up code belongs to no request and makes none. Call fetch() in a handler.`));
  if (inv.ended) return PromiseReject(new TypeError(`${label}: the invocation this code belongs to has ended.`));
  const { url } = state;
  if (target === undefined && StringStartsWith(url, "data:")) return dataUnit.get().fetchData(state);
  if (target === undefined && StringStartsWith(url, "blob:")) return blobURLUnit.get().fetchBlob(state);
  if (!StringStartsWith(url, "https://") && !StringStartsWith(url, "http://")) {
    return PromiseReject(new TypeError(`fetch failed: the scheme of ${JSONStringify(StringSlice(url, 0, 100))} is not http or https.`));
  }
  const refusal = pendingRefusal();
  if (refusal !== undefined) return PromiseReject(refusal);
  const d = deferred();
  const s = new Subrequest(inv, state, d, target);
  // Before it starts: its body may fail at once, and then it is over.
  (inv.fetches ??= new SafeSet()).add(s);
  if (inv.fetching >= MAX_OPEN) {
    (inv.fetchQueue ??= new Fifo()).push(s);
  } else {
    try { s.start(); } catch (error) { // the turn's output was full
      s.over();
      throw error;
    }
  }
  if (state.follow !== undefined) s.follow(state.follow);
  return d.promise;
};

const inListOf = (inv) => {
  const all = bareList();
  SetForEach(inv.fetches, (s) => { all[all.length] = s; });
  return all;
};
// fetchesExpect says whether any subrequest of inv still waits for the outside.
const fetchesExpect = (inv) => {
  const all = inListOf(inv);
  for (let i = 0; i < all.length; i++) if (all[i].expects) return true;
  return false;
};
const orphanFetches = (inv) => {
  const all = inListOf(inv);
  inv.fetches = inv.fetchQueue = undefined;
  for (let i = 0; i < all.length; i++) all[i].orphan(inv.killed);
};

return {
  __proto__: null,
  subrequest, fetchesExpect, orphanFetches,
  fetchOf: (id) => fetches.get(id),
};
