// The modules of the runtime's own: what `import` gives for a name that no bundle has. Each is made when it
// is first imported.

const builtinUnits = ObjectFreeze({ __proto__: null, "node:async_hooks": asyncHooksUnit, "node:internal/env": nodeEnvUnit });
const builtins = new SafeMap();

// builtin gives the exports of a module, or undefined.
const builtin = (name) => {
  const unit = builtinUnits[name];
  if (unit === undefined) return undefined;
  let exports = builtins.get(name);
  if (exports === undefined) {
    const made = unit.get();
    const all = {}, names = ObjectKeys(made);
    for (let i = 0; i < names.length; i++) {
      ObjectDefineProperty(all, names[i], { __proto__: null, value: made[names[i]], writable: true, enumerable: true, configurable: true });
    }
    exports = ObjectFreeze(ObjectAssign({ __proto__: null }, made, { __proto__: null, default: all }));
    builtins.set(name, exports);
  }
  return exports;
};
