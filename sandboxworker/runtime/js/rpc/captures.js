// Intrinsics that js/rpc relies on beyond core/primordials.js, captured like those before tenant code runs.
const MapSize = getterOf(Map.prototype, "size"), SetSize = getterOf(Set.prototype, "size");
const MapSet = uncurry(Map.prototype.set), SetAdd = uncurry(Set.prototype.add);
const errorClasses = ObjectFreeze({
  __proto__: null, Error, RangeError, SyntaxError, TypeError,
  EvalError: global.EvalError, ReferenceError: global.ReferenceError, URIError: global.URIError,
});
// entrypointBrand marks WorkerEntrypoint.prototype (supervisor/tenants/bundle): what derives from it can be
// called by other workers.
const entrypointBrand = Symbol.for("bulkhead.entrypoint");
