// A body as it arrives from the gateway: a request's, or that of the response to a subrequest.
//
// The gateway sends within a window; each byte that the tenant's code takes is granted back
// (host.credit), so a body nobody reads stops at the window and costs the isolate no more than that.

class WireBody {
  constructor(inv, first, whole, what) {
    this.inv = inv; // Invocation or Subrequest
    this.what = what; // "request" or "response", for people
    this.queue = new Fifo();
    this.ended = whole;
    this.failure = undefined; // {error} once the rest will never come
    this.stream = undefined; // state of the ReadableStream, once made
    this.wanted = false; // the stream was asked for bytes that are not here
    this.collector = undefined; // of readAll
    this.parts = undefined;
    this.total = 0;
    this.enough = undefined; // of readAll
    this.credited = 0; // bytes at the head of the queue that were granted before
    if (first !== undefined && TypedArrayByteLength(first) > 0) this.queue.push(first);
    this.counted = !whole; // a whole body needs no credit
  }
  // waiting says whether the invocation waits for bytes of the client.
  get waiting() { return !this.ended && this.failure === undefined && (this.wanted || this.collector !== undefined); }
  take() {
    const u8 = this.queue.shift();
    const n = TypedArrayByteLength(u8) - this.credited;
    this.credited = 0;
    if (n > 0 && this.counted && !this.ended && !this.inv.ended) host.credit(this.inv.id, n);
    return u8;
  }
  // readAll gives all bytes; with enough, of the parts and their length, only those up to where it says so.
  readAll(enough = undefined) {
    if (this.failure !== undefined) return PromiseReject(this.failure.error);
    this.parts = [];
    this.enough = enough;
    const d = this.collector = deferred();
    this.collect();
    return d.promise;
  }
  collect() {
    while (this.queue.length > 0) {
      const u8 = this.take();
      ArrayPush(this.parts, u8);
      this.total += TypedArrayByteLength(u8);
      if (this.enough !== undefined && this.enough(this.parts, this.total)) {
        this.collected();
        return;
      }
    }
    if (this.ended) this.collected();
  }
  collected() {
    const { parts, collector } = this;
    this.parts = this.collector = this.enough = undefined;
    collector.resolve(parts.length === 0 ? new Uint8Array(0) : concatBytes(parts, this.total));
  }
  // unread puts bytes back that were read.
  unread(u8) {
    const n = TypedArrayByteLength(u8);
    if (n === 0 || this.failure !== undefined) return;
    const { queue } = this;
    this.queue = new Fifo();
    this.queue.push(u8);
    this.credited = n;
    while (queue.length > 0) this.queue.push(queue.shift());
  }
  toStream() {
    const streams = streamsUnit.get();
    this.stream = streams.createByteStream(undefined, () => {
      this.pump(true);
      return PromiseResolve(undefined);
    }, () => {
      this.drop();
      return PromiseResolve(undefined);
    });
    if (this.failure !== undefined) streams.byteControllerError(this.stream.controller, this.failure.error);
    else if (this.ended && this.queue.length === 0) streams.byteControllerClose(this.stream.controller);
    return this.stream;
  }
  // pump moves one chunk into the stream; asked: the stream wants one.
  pump(asked) {
    if (asked) this.wanted = true;
    if (!this.wanted) return;
    if (this.queue.length > 0) {
      this.wanted = false;
      streamsUnit.get().byteControllerEnqueue(this.stream.controller, this.take());
    }
    if (this.ended && this.queue.length === 0) closeByteStream(this.stream);
  }
  // drop throws the rest away: the stream was cancelled.
  drop() {
    this.queue.clear();
    if (!this.ended && this.failure === undefined) {
      this.failure = { __proto__: null, error: new TypeError(`The ${this.what} body was cancelled.`) };
      if (!this.inv.ended) this.inv.refuse();
    }
  }
  chunk(u8) {
    if (this.ended || this.failure !== undefined || TypedArrayByteLength(u8) === 0) return;
    this.queue.push(u8);
    if (this.collector !== undefined) this.collect();
    else if (this.stream !== undefined) this.pump(false);
  }
  end() {
    if (this.ended || this.failure !== undefined) return;
    this.ended = true;
    if (this.collector !== undefined) this.collect();
    else if (this.stream !== undefined && this.queue.length === 0) closeByteStream(this.stream);
  }
  // forget ends it without telling anyone: what waits for it waits for ever.
  forget() {
    this.failure ??= { __proto__: null, error: new TypeError("The invocation this body belongs to was stopped.") };
    this.queue.clear();
    this.collector = this.parts = this.stream = undefined;
  }
  fail(error) {
    if (this.failure !== undefined) return;
    this.failure = { __proto__: null, error };
    this.queue.clear();
    const { collector } = this;
    this.collector = this.parts = undefined;
    if (collector !== undefined) collector.reject(error);
    if (this.stream !== undefined) streamsUnit.get().byteControllerError(this.stream.controller, error);
  }
}
bare(WireBody);
