// What the rest of the runtime takes from the events unit.

// The global object's interface objects (https://html.spec.whatwg.org/#the-workerglobalscope-common-interface).
class WorkerGlobalScope extends EventTarget {
  constructor() { super(); throw illegalConstructor(); }
}
class ServiceWorkerGlobalScope extends WorkerGlobalScope {}
defineInterface(WorkerGlobalScope, "WorkerGlobalScope");
defineInterface(ServiceWorkerGlobalScope, "ServiceWorkerGlobalScope");

const scopeNames = ObjectKeys(scopeAttributes);
for (let i = 0; i < scopeNames.length; i++) ObjectDefineProperty(WorkerGlobalScope.prototype, scopeNames[i], scopeAttributes[scopeNames[i]]);

// The global becomes an instance of them here: nobody can have asked before the unit was made. What a
// tenant did to its prototype meanwhile stays.
if (ObjectGetPrototypeOf(global) === globalPrototype) ReflectSetPrototypeOf(global, ServiceWorkerGlobalScope.prototype);

return {
  __proto__: null,
  Event, EventTarget, CustomEvent, ErrorEvent, MessageEvent, CloseEvent, PromiseRejectionEvent,
  ExtendableEvent, FetchEvent, AbortController, AbortSignal, WorkerGlobalScope, ServiceWorkerGlobalScope,
  globalTarget, eventState, targetState, fire, hasListener, defineHandler, getHandler, setHandler,
  newSignal, signalState, isAbortSignal, signalAdd, signalRemove, signalAbort, dependentSignal, signalHasListeners,
  fetchEventAnswer, isEvent,
};
