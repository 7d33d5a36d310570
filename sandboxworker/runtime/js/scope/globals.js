// The global scope: what a worker finds on globalThis
// (https://html.spec.whatwg.org/#the-workerglobalscope-common-interface, https://min-common-api.proposal.wintertc.org/).
// Its functions are made as methods of an object, because methods are no constructors.

const { queueMicrotask } = { queueMicrotask(callback) {
  needArgs("queueMicrotask", arguments.length, 1);
  toCallback(callback, "queueMicrotask: the argument");
  // A promise reaction carries the async context; an exception must be reported, not become a rejection.
  PromiseThen(PromiseResolve(undefined), () => {
    try { ReflectApply(callback, undefined, []); } catch (error) { reportException(error); }
  });
} };

const { structuredClone } = { structuredClone(value, options = undefined) {
  needArgs("structuredClone", arguments.length, 1);
  const { transfer } = toDictionary(options, "structuredClone options");
  const { cloneWithTransfer, transferList } = cloneUnit.get();
  return cloneWithTransfer(value, transfer === undefined ? undefined : transferList(transfer, "structuredClone option transfer")).value;
} };

const { reportError } = { reportError(error) {
  needArgs("reportError", arguments.length, 1);
  reportException(error, true);
} };

const lazyGroups = [
  [urlUnit, ["URL", "URLSearchParams"]],
  [urlPatternUnit, ["URLPattern"]],
  [encodingUnit, ["TextEncoder", "TextDecoder"]],
  [streamsUnit, ["ReadableStream", "ReadableStreamDefaultReader", "ReadableStreamBYOBReader", "ReadableStreamDefaultController",
    "ReadableByteStreamController", "ReadableStreamBYOBRequest", "WritableStream", "WritableStreamDefaultWriter",
    "WritableStreamDefaultController", "TransformStream", "TransformStreamDefaultController", "ByteLengthQueuingStrategy",
    "CountQueuingStrategy", "TextEncoderStream", "TextDecoderStream", "IdentityTransformStream", "FixedLengthStream"]],
  [compressUnit, ["CompressionStream", "DecompressionStream"]],
  [blobUnit, ["Blob", "File", "FormData"]],
  [readerUnit, ["FileReader", "ProgressEvent"]],
  [eventsUnit, ["Event", "EventTarget", "CustomEvent", "ErrorEvent", "MessageEvent", "CloseEvent", "PromiseRejectionEvent",
    "ExtendableEvent", "FetchEvent", "AbortController", "AbortSignal", "WorkerGlobalScope", "ServiceWorkerGlobalScope"]],
  [messageUnit, ["MessageChannel", "MessagePort"]],
  [domExceptionUnit, ["DOMException"]],
  [socketUnit, ["WebSocket", "WebSocketPair"]],
  [cryptoUnit, ["Crypto", "CryptoKey", "SubtleCrypto"]],
  [performanceUnit, ["Performance", "PerformanceEntry", "PerformanceMark", "PerformanceMeasure"]],
  [navigatorUnit, ["Navigator"]],
  [consoleUnit, ["console"]],
  [rewriterUnit, ["HTMLRewriter"]],
  [cacheUnit, ["Cache", "CacheStorage"]],
];
// Attributes of the global: enumerable, unlike interface objects.
const lazyAttributes = [
  [cryptoUnit, "crypto"], [performanceUnit, "performance"], [navigatorUnit, "navigator"], [schedulerUnit, "scheduler"], [cacheUnit, "caches"],
];

// scopeAttributes are those of the mixin that WorkerGlobalScope includes; its prototype has them as well, once
// it is made (https://html.spec.whatwg.org/#windoworworkerglobalscope).
const scopeAttributes = { __proto__: null };

const installGlobals = () => {
  const hidden = (name, value) => ObjectDefineProperty(global, name,
    { __proto__: null, value, writable: true, enumerable: false, configurable: true });
  const shown = (name, value) => ObjectDefineProperty(global, name,
    { __proto__: null, value, writable: true, enumerable: true, configurable: true });

  // No shared memory and no blocking (DESIGN invariant 7).
  delete global.SharedArrayBuffer;
  if (isObject(global.Atomics)) {
    delete global.Atomics.wait;
    delete global.Atomics.waitAsync;
    delete global.Atomics.notify;
    delete global.Atomics.pause;
  }

  for (let i = 0; i < lazyGroups.length; i++) {
    const unit = lazyGroups[i][0], names = lazyGroups[i][1];
    const make = (name) => unit.get()[name];
    for (let j = 0; j < names.length; j++) defineLazy(global, names[j], make);
  }
  hidden("Headers", Headers);
  hidden("Request", Request);
  hidden("Response", Response);
  hidden("ExecutionContext", ExecutionContext);

  const functions = { atob, btoa, clearInterval, clearTimeout, fetch, queueMicrotask, reportError, setInterval, setTimeout, structuredClone };
  const names = ObjectKeys(functions);
  for (let i = 0; i < names.length; i++) shown(names[i], functions[names[i]]);

  ObjectDefineProperty(global, "self", {
    __proto__: null, get: ObjectGetOwnPropertyDescriptor({ get self() { return global; } }, "self").get,
    set(value) { shown("self", value); }, enumerable: true, configurable: true,
  });
  ObjectDefineProperty(global, "isSecureContext", {
    __proto__: null, get: ObjectGetOwnPropertyDescriptor({
      get isSecureContext() {
        if (this !== undefined && this !== null && this !== global) throw illegalInvocation();
        return true; // what is for secure contexts only is here, however the request came
      },
    }, "isSecureContext").get, set: undefined, enumerable: true, configurable: true,
  });
  for (let i = 0; i < lazyAttributes.length; i++) {
    const unit = lazyAttributes[i][0], name = lazyAttributes[i][1];
    const d = ObjectGetOwnPropertyDescriptor({
      get [name]() {
        if (this !== undefined && this !== null && this !== global) throw illegalInvocation();
        return unit.get()[name];
      },
      set [name](value) {
        if (this !== undefined && this !== null && this !== global) throw illegalInvocation();
        shown(name, value);
      },
    }, name);
    const a = { __proto__: null, get: d.get, set: d.set, enumerable: true, configurable: true };
    ObjectDefineProperty(global, name, a);
    if (unit === performanceUnit) scopeAttributes[name] = a; // [Replaceable], unlike the two others
    if (unit === cryptoUnit || unit === cacheUnit) scopeAttributes[name] = { __proto__: null, get: d.get, set: undefined, enumerable: true, configurable: true };
  }

  installEventTarget();
  installWasmStreaming();
};

// installEventTarget puts the EventTarget methods and the `on...` attributes on the global without
// making the events unit: the first use does.
const installEventTarget = () => {
  const methods = {
    addEventListener(type, callback) {
      return ReflectApply(eventsUnit.get().EventTarget.prototype.addEventListener, this, arguments);
    },
    removeEventListener(type, callback) {
      return ReflectApply(eventsUnit.get().EventTarget.prototype.removeEventListener, this, arguments);
    },
    dispatchEvent(event) {
      return ReflectApply(eventsUnit.get().EventTarget.prototype.dispatchEvent, this, arguments);
    },
  };
  const names = ObjectKeys(methods);
  for (let i = 0; i < names.length; i++) {
    ObjectDefineProperty(global, names[i],
      { __proto__: null, value: methods[names[i]], writable: true, enumerable: true, configurable: true });
  }
  const handlers = ["error", "unhandledrejection", "rejectionhandled"];
  for (let i = 0; i < handlers.length; i++) {
    const type = handlers[i], name = `on${type}`;
    const d = ObjectGetOwnPropertyDescriptor({
      get [name]() {
        if (!eventsUnit.loaded) return null;
        const { getHandler, targetState } = eventsUnit.get();
        return getHandler(targetState(this), type);
      },
      set [name](value) {
        const { setHandler, targetState } = eventsUnit.get();
        setHandler(targetState(this), type, value);
      },
    }, name);
    ObjectDefineProperty(global, name, { __proto__: null, get: d.get, set: d.set, enumerable: true, configurable: true });
  }
};
