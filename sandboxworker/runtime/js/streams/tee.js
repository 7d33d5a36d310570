// Tee (https://streams.spec.whatwg.org/#abstract-opdef-readablestreamtee).

// readableStreamTee returns the states of the two branches as {a, b}. With clone, the second branch
// gets copies of buffers, as Fetch's "clone a body" wants.
const readableStreamTee = (s, clone) =>
  (s.controller instanceof ByteController ? byteStreamTee(s) : defaultTee(s, clone));

const cloneChunk = (chunk) => {
  if (ArrayBufferIsView(chunk) && TypedArrayTag(chunk) === "Uint8Array") return copyBytes(chunk);
  return host.structuredClone(chunk, undefined);
};

const defaultTee = (s, clone) => {
  const reader = acquireDefaultReader(s);
  let reading = false, readAgain = false, canceled1 = false, canceled2 = false, reason1, reason2;
  let branch1, branch2;
  const cancelD = deferred();
  const pull = () => {
    if (reading) { readAgain = true; return undefinedPromise(); }
    reading = true;
    defaultReaderRead(reader, {
      __proto__: null,
      chunk: (chunk) => PromiseThen(undefinedPromise(), () => {
        readAgain = false;
        let second = chunk;
        if (clone && !canceled2) {
          try { second = cloneChunk(chunk); } catch (e) {
            defaultControllerError(branch1.controller, e);
            defaultControllerError(branch2.controller, e);
            cancelD.resolve(readableStreamCancel(s, e));
            return;
          }
        }
        if (!canceled1) defaultControllerEnqueue(branch1.controller, chunk);
        if (!canceled2) defaultControllerEnqueue(branch2.controller, second);
        reading = false;
        if (readAgain) pull();
      }),
      close: () => {
        reading = false;
        if (!canceled1) defaultControllerClose(branch1.controller);
        if (!canceled2) defaultControllerClose(branch2.controller);
        if (!canceled1 || !canceled2) cancelD.resolve(undefined);
      },
      error: () => { reading = false; },
    });
    return undefinedPromise();
  };
  const cancel1 = (reason) => {
    canceled1 = true;
    reason1 = reason;
    if (canceled2) cancelD.resolve(readableStreamCancel(s, [reason1, reason2]));
    return cancelD.promise;
  };
  const cancel2 = (reason) => {
    canceled2 = true;
    reason2 = reason;
    if (canceled1) cancelD.resolve(readableStreamCancel(s, [reason1, reason2]));
    return cancelD.promise;
  };
  branch1 = createReadableStream(undefined, pull, cancel1);
  branch2 = createReadableStream(undefined, pull, cancel2);
  PromiseThen(reader.closed.promise, undefined, (e) => {
    defaultControllerError(branch1.controller, e);
    defaultControllerError(branch2.controller, e);
    if (!canceled1 || !canceled2) cancelD.resolve(undefined);
  });
  return { __proto__: null, a: branch1, b: branch2 };
};

const byteStreamTee = (s) => {
  let reader = acquireDefaultReader(s);
  let reading = false, againFor1 = false, againFor2 = false, canceled1 = false, canceled2 = false, reason1, reason2;
  let branch1, branch2;
  const cancelD = deferred();
  const forwardError = (r) => {
    PromiseThen(r.closed.promise, undefined, (e) => {
      if (r !== reader) return;
      byteControllerError(branch1.controller, e);
      byteControllerError(branch2.controller, e);
      if (!canceled1 || !canceled2) cancelD.resolve(undefined);
    });
  };
  const fail = (e) => {
    byteControllerError(branch1.controller, e);
    byteControllerError(branch2.controller, e);
    cancelD.resolve(readableStreamCancel(s, e));
  };
  const again = () => {
    reading = false;
    if (againFor1) pull1(); else if (againFor2) pull2();
  };
  const pullWithDefault = () => {
    if (reader.byob) {
      readerRelease(reader);
      reader = acquireDefaultReader(s);
      forwardError(reader);
    }
    defaultReaderRead(reader, {
      __proto__: null,
      chunk: (chunk) => PromiseThen(undefinedPromise(), () => {
        againFor1 = againFor2 = false;
        let second = chunk;
        if (!canceled1 && !canceled2) {
          try { second = copyBytes(chunk); } catch (e) { fail(e); return; }
        }
        if (!canceled1) byteControllerEnqueue(branch1.controller, chunk);
        if (!canceled2) byteControllerEnqueue(branch2.controller, second);
        again();
      }),
      close: () => {
        reading = false;
        if (!canceled1) byteControllerClose(branch1.controller);
        if (!canceled2) byteControllerClose(branch2.controller);
        if (branch1.controller.pendingPullIntos.length > 0) byteControllerRespond(branch1.controller, 0);
        if (branch2.controller.pendingPullIntos.length > 0) byteControllerRespond(branch2.controller, 0);
        if (!canceled1 || !canceled2) cancelD.resolve(undefined);
      },
      error: () => { reading = false; },
    });
  };
  const pullWithBYOB = (view, for2) => {
    if (!reader.byob) {
      readerRelease(reader);
      reader = acquireBYOBReader(s);
      forwardError(reader);
    }
    const mine = for2 ? branch2 : branch1, other = for2 ? branch1 : branch2;
    byobReaderRead(reader, view, 1, {
      __proto__: null,
      chunk: (chunk) => PromiseThen(undefinedPromise(), () => {
        againFor1 = againFor2 = false;
        const mineCanceled = for2 ? canceled2 : canceled1, otherCanceled = for2 ? canceled1 : canceled2;
        if (!otherCanceled) {
          let copy;
          try { copy = copyBytes(chunk); } catch (e) { fail(e); return; }
          if (!mineCanceled) byteControllerRespondWithNewView(mine.controller, chunk);
          byteControllerEnqueue(other.controller, copy);
        } else if (!mineCanceled) {
          byteControllerRespondWithNewView(mine.controller, chunk);
        }
        again();
      }),
      close: (chunk) => {
        reading = false;
        const mineCanceled = for2 ? canceled2 : canceled1, otherCanceled = for2 ? canceled1 : canceled2;
        if (!mineCanceled) byteControllerClose(mine.controller);
        if (!otherCanceled) byteControllerClose(other.controller);
        if (chunk !== undefined) {
          if (!mineCanceled) byteControllerRespondWithNewView(mine.controller, chunk);
          if (!otherCanceled && other.controller.pendingPullIntos.length > 0) byteControllerRespond(other.controller, 0);
        }
        if (!mineCanceled || !otherCanceled) cancelD.resolve(undefined);
      },
      error: () => { reading = false; },
    });
  };
  const pullFor = (branch, for2) => {
    reading = true;
    const request = branch.controller.wrapper.byobRequest;
    if (request === null) pullWithDefault(); else pullWithBYOB(byobRequestState(request).view, for2);
    return undefinedPromise();
  };
  const pull1 = () => {
    if (reading) { againFor1 = true; return undefinedPromise(); }
    return pullFor(branch1, false);
  };
  const pull2 = () => {
    if (reading) { againFor2 = true; return undefinedPromise(); }
    return pullFor(branch2, true);
  };
  const cancel1 = (reason) => {
    canceled1 = true;
    reason1 = reason;
    if (canceled2) cancelD.resolve(readableStreamCancel(s, [reason1, reason2]));
    return cancelD.promise;
  };
  const cancel2 = (reason) => {
    canceled2 = true;
    reason2 = reason;
    if (canceled1) cancelD.resolve(readableStreamCancel(s, [reason1, reason2]));
    return cancelD.promise;
  };
  branch1 = createByteStream(undefined, pull1, cancel1);
  branch2 = createByteStream(undefined, pull2, cancel2);
  forwardError(reader);
  return { __proto__: null, a: branch1, b: branch2 };
};
