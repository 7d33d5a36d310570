// Performance (https://w3c.github.io/hr-time/) on the frozen clock, and navigator.

// The time origin is when the isolate's tenant started, as the frozen clock has it.
let timeOrigin = 0;
const performanceNow = () => host.now() - timeOrigin;

const performanceUnit = new Unit(() => {
  const { EventTarget } = eventsUnit.get();
  class Performance extends EventTarget {
    #brand;
    constructor() {
      if (arguments[0] !== kInternal) throw illegalConstructor();
      super();
    }
    get timeOrigin() { void this.#brand; return timeOrigin; }
    now() { void this.#brand; return performanceNow(); }
    toJSON() { void this.#brand; return { timeOrigin }; }
  }
  defineInterface(Performance, "Performance");
  return { __proto__: null, Performance, performance: new Performance(kInternal) };
});

// https://html.spec.whatwg.org/#navigatorid
const navigatorUnit = new Unit(() => {
  class Navigator {
    #brand;
    constructor() { if (arguments[0] !== kInternal) throw illegalConstructor(); }
    get userAgent() { void this.#brand; return "bulkhead"; }
    get hardwareConcurrency() { void this.#brand; return 1; }
    get language() { void this.#brand; return "en"; }
  }
  defineInterface(Navigator, "Navigator");
  return { __proto__: null, Navigator, navigator: new Navigator(kInternal) };
});
