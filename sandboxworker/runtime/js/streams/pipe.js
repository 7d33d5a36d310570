// pipeTo (https://streams.spec.whatwg.org/#readable-stream-pipe-to) and ReadableStream.from
// (https://streams.spec.whatwg.org/#readable-stream-from-iterable).

const readableStreamPipeTo = (source, dest, { preventAbort, preventCancel, preventClose, signal }) => {
  const reader = acquireDefaultReader(source);
  const writer = acquireWriter(dest);
  source.disturbed = true;
  let shuttingDown = false;
  let currentWrite = undefinedPromise();
  const done = deferred();
  let onAbort;

  const finalize = (isError, error) => {
    writerRelease(writer);
    readerRelease(reader);
    if (signal !== undefined) eventsUnit.get().signalRemove(signal, onAbort);
    if (isError) done.reject(error); else done.resolve(undefined);
  };
  const waitForWrites = () => {
    const last = currentWrite;
    return PromiseThen(last, () => (last === currentWrite ? undefined : waitForWrites()));
  };
  const afterWrites = (f) => {
    if (dest.state === W_WRITABLE && !closeQueuedOrInFlight(dest)) PromiseThen(waitForWrites(), f);
    else f();
  };
  const shutdownWithAction = (action, isError, error) => {
    if (shuttingDown) return;
    shuttingDown = true;
    afterWrites(() => PromiseThen(action(), () => finalize(isError, error), (e) => finalize(true, e)));
  };
  const shutdown = (isError, error) => {
    if (shuttingDown) return;
    shuttingDown = true;
    afterWrites(() => finalize(isError, error));
  };

  if (signal !== undefined) {
    const { signalState, signalAdd } = eventsUnit.get();
    onAbort = () => {
      const { reason } = signalState(signal);
      const actions = bareList();
      if (!preventAbort) {
        actions[actions.length] = () => (dest.state === W_WRITABLE ? writableStreamAbort(dest, reason) : undefinedPromise());
      }
      if (!preventCancel) {
        actions[actions.length] = () => (source.state === READABLE ? readableStreamCancel(source, reason) : undefinedPromise());
      }
      shutdownWithAction(() => waitForAll(actions), true, reason);
    };
    if (signalState(signal).aborted) {
      onAbort();
      return done.promise;
    }
    signalAdd(signal, onAbort);
  }

  const whenSourceErrored = (e) => {
    if (preventAbort) shutdown(true, e); else shutdownWithAction(() => writableStreamAbort(dest, e), true, e);
  };
  const whenDestErrored = (e) => {
    if (preventCancel) shutdown(true, e); else shutdownWithAction(() => readableStreamCancel(source, e), true, e);
  };
  const whenSourceClosed = () => {
    if (preventClose) shutdown(false); else shutdownWithAction(() => writerCloseWithErrorPropagation(writer), false);
  };

  // Errors must be propagated forward before they are propagated backward.
  if (source.state === ERRORED) whenSourceErrored(source.error);
  else PromiseThen(reader.closed.promise, undefined, whenSourceErrored);
  if (dest.state === W_ERRORED) whenDestErrored(dest.error);
  else PromiseThen(writer.closed.promise, undefined, whenDestErrored);
  if (source.state === CLOSED) whenSourceClosed();
  else PromiseThen(reader.closed.promise, whenSourceClosed, noop);
  if (closeQueuedOrInFlight(dest) || dest.state === W_CLOSED) {
    const e = new TypeError("The destination stream closed before all data could be piped to it.");
    if (preventCancel) shutdown(true, e); else shutdownWithAction(() => readableStreamCancel(source, e), true, e);
  }

  const step = () => {
    if (shuttingDown) return;
    // Chunks are taken only while the destination wants more: back-pressure.
    PromiseThen(writer.ready.promise, () => {
      if (shuttingDown) return;
      defaultReaderRead(reader, {
        __proto__: null,
        chunk: (chunk) => {
          // Writing in a task of its own lets an error of the source, already known, win.
          currentWrite = PromiseThen(undefinedPromise(), () => PromiseThen(writerWrite(writer, chunk), undefined, noop));
          PromiseThen(undefinedPromise(), step);
        },
        close: noop,
        error: noop,
      });
    }, noop);
  };
  step();
  return done.promise;
};

// waitForAll runs the actions and settles when all have, with the first rejection
// (https://webidl.spec.whatwg.org/#waiting-for-all-promise). Promise.all would look up patchable methods.
const waitForAll = (actions) => {
  const d = deferred();
  let left = actions.length;
  if (left === 0) d.resolve(undefined);
  const one = () => { if (--left === 0) d.resolve(undefined); };
  const promises = [];
  for (let i = 0; i < actions.length; i++) ArrayPush(promises, actions[i]());
  for (let i = 0; i < promises.length; i++) PromiseThen(promises[i], one, d.reject);
  return d.promise;
};

const SymbolAsyncFrom = "ReadableStream.from";
const readableStreamFromIterable = (iterable) => {
  if (iterable === undefined || iterable === null) throw new TypeError(`${SymbolAsyncFrom}: the argument is not iterable.`);
  let sync = false;
  let method = iterable[SymbolAsyncIterator];
  if (method === undefined || method === null) {
    method = iterable[SymbolIterator];
    sync = true;
  }
  if (typeof method !== "function") throw new TypeError(`${SymbolAsyncFrom}: the argument is not iterable.`);
  const iterator = ReflectApply(method, iterable, []);
  if (!isObject(iterator)) throw new TypeError(`${SymbolAsyncFrom}: the iterator is not an object.`);
  const { next } = iterator;
  let s;
  // A synchronous iterator's values are awaited, as for-await does.
  const settle = (result) => {
    if (!sync) return PromiseResolve(result);
    if (!isObject(result)) return PromiseReject(new TypeError(`${SymbolAsyncFrom}: the iterator's result is not an object.`));
    const done = !!result.done;
    return PromiseThen(PromiseResolve(result.value), (value) => ({ done, value }));
  };
  const pull = () => {
    let p;
    try { p = settle(ReflectApply(next, iterator, [])); } catch (e) { return PromiseReject(e); }
    return PromiseThen(p, (result) => {
      if (!isObject(result)) throw new TypeError(`${SymbolAsyncFrom}: the iterator's result is not an object.`);
      if (result.done) defaultControllerClose(s.controller);
      else defaultControllerEnqueue(s.controller, result.value);
    });
  };
  const cancel = (reason) => {
    let p;
    try {
      const f = iterator.return;
      if (f === undefined || f === null) return undefinedPromise();
      if (typeof f !== "function") throw new TypeError(`${SymbolAsyncFrom}: the iterator's return is not a function.`);
      p = settle(ReflectApply(f, iterator, [reason]));
    } catch (e) {
      return PromiseReject(e);
    }
    return PromiseThen(p, (result) => {
      if (!isObject(result)) throw new TypeError(`${SymbolAsyncFrom}: the iterator's result is not an object.`);
    });
  };
  s = createReadableStream(undefined, pull, cancel, 0);
  return s.wrapper;
};
