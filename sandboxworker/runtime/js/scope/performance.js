// Performance (https://w3c.github.io/hr-time/) and User Timing (https://w3c.github.io/user-timing/) on the
// frozen clock, and navigator.

// The time origin is when the isolate's tenant started, as the frozen clock has it.
let timeOrigin = 0;
const performanceNow = () => host.now() - timeOrigin;

// MAX_ENTRIES bounds the marks and measures kept: a worker that never clears them runs for days. The oldest
// go first.
const MAX_ENTRIES = 10000;

const performanceUnit = new Unit(() => {
  const { EventTarget } = eventsUnit.get();
  let entries = bareList(); // by start time, equal ones in the order of making

  class PerformanceEntry {
    #name; #type; #start; #duration;
    constructor() {
      if (arguments[0] !== kInternal) throw illegalConstructor();
      this.#name = arguments[1];
      this.#type = arguments[2];
      this.#start = arguments[3];
      this.#duration = arguments[4];
    }
    get name() { return this.#name; }
    get entryType() { return this.#type; }
    get startTime() { return this.#start; }
    get duration() { return this.#duration; }
    toJSON() {
      const out = { name: this.#name, entryType: this.#type, startTime: this.#start, duration: this.#duration };
      const detail = detailOf(this);
      if (detail !== undefined) ObjectDefineProperty(out, "detail", { __proto__: null, value: detail, writable: true, enumerable: true, configurable: true });
      return out;
    }
    static of(v) { return { __proto__: null, name: v.#name, type: v.#type, start: v.#start }; }
  }
  const entryOf = PerformanceEntry.of;
  delete PerformanceEntry.of;
  defineInterface(PerformanceEntry, "PerformanceEntry");

  const cloned = (detail) => (detail === undefined || detail === null ? null : cloneUnit.get().cloneWithTransfer(detail, undefined).value);
  let markDetail, measureDetail;
  class PerformanceMark extends PerformanceEntry {
    #detail;
    static { markDetail = (v) => (#detail in v ? v.#detail : undefined); }
    constructor(markName, markOptions = undefined) {
      needArgs("PerformanceMark constructor", arguments.length, 1);
      const name = toDOMString(markName);
      const { detail, startTime } = toDictionary(markOptions, "mark options");
      let start = performanceNow();
      if (startTime !== undefined) {
        start = toTime(startTime, "startTime");
        if (start < 0) throw new TypeError("PerformanceMark: startTime must not be negative.");
      }
      super(kInternal, name, "mark", start, 0);
      this.#detail = cloned(detail);
    }
    get detail() { return this.#detail; }
  }
  class PerformanceMeasure extends PerformanceEntry {
    #detail;
    static { measureDetail = (v) => (#detail in v ? v.#detail : undefined); }
    constructor() {
      if (arguments[0] !== kInternal) throw illegalConstructor();
      super(kInternal, arguments[1], "measure", arguments[2], arguments[3]);
      this.#detail = arguments[4];
    }
    get detail() { return this.#detail; }
  }
  defineInterface(PerformanceMark, "PerformanceMark");
  defineInterface(PerformanceMeasure, "PerformanceMeasure");
  const detailOf = (e) => markDetail(e) ?? measureDetail(e) ?? (markDetail(e) === null || measureDetail(e) === null ? null : undefined);

  const toTime = (v, what) => {
    const n = toNumber(v);
    if (!NumberIsFinite(n)) throw new TypeError(`${what} is not a finite number.`);
    return n;
  };
  const keep = (e) => {
    if (entries.length >= MAX_ENTRIES) {
      const half = bareList();
      for (let i = MAX_ENTRIES >> 1; i < entries.length; i++) half[half.length] = entries[i];
      entries = half;
    }
    const { start } = entryOf(e);
    let i = entries.length;
    for (; i > 0 && entryOf(entries[i - 1]).start > start; i--) entries[i] = entries[i - 1];
    entries[i] = e;
    return e;
  };
  // markTime is https://w3c.github.io/user-timing/#convert-a-mark-to-a-timestamp: a name or a number.
  const toMark = (v) => (typeof v === "number" ? toTime(v, "The time of a mark") : toDOMString(v));
  const markTime = (v) => {
    if (typeof v === "number") {
      if (v < 0) throw new TypeError("performance.measure: a time must not be negative.");
      return v;
    }
    for (let i = entries.length - 1; i >= 0; i--) {
      const e = entryOf(entries[i]);
      if (e.type === "mark" && e.name === v) return e.start;
    }
    throw newDOMException(`performance.measure: there is no mark '${StringSlice(v, 0, 100)}'.`, "SyntaxError");
  };
  const select = (name, type) => {
    const out = [];
    for (let i = 0; i < entries.length; i++) {
      const e = entryOf(entries[i]);
      if ((name === undefined || e.name === name) && (type === undefined || e.type === type)) ArrayPush(out, entries[i]);
    }
    return out;
  };
  const clear = (name, type) => {
    const kept = bareList();
    for (let i = 0; i < entries.length; i++) {
      const e = entryOf(entries[i]);
      if (e.type !== type || (name !== undefined && e.name !== name)) kept[kept.length] = entries[i];
    }
    entries = kept;
  };

  class Performance extends EventTarget {
    #brand;
    constructor() {
      if (arguments[0] !== kInternal) throw illegalConstructor();
      super();
    }
    get timeOrigin() { void this.#brand; return timeOrigin; }
    now() { void this.#brand; return performanceNow(); }
    toJSON() { void this.#brand; return { timeOrigin }; }
    getEntries() { void this.#brand; return select(undefined, undefined); }
    getEntriesByType(type) {
      void this.#brand;
      needArgs("performance.getEntriesByType", arguments.length, 1);
      return select(undefined, toDOMString(type));
    }
    getEntriesByName(name, type = undefined) {
      void this.#brand;
      needArgs("performance.getEntriesByName", arguments.length, 1);
      const n = toDOMString(name);
      return select(n, type === undefined ? undefined : toDOMString(type));
    }
    mark(markName, markOptions = undefined) {
      void this.#brand;
      needArgs("performance.mark", arguments.length, 1);
      return keep(new PerformanceMark(markName, markOptions));
    }
    clearMarks(markName = undefined) { void this.#brand; clear(markName === undefined ? undefined : toDOMString(markName), "mark"); }
    // https://w3c.github.io/user-timing/#measure-method
    measure(measureName, startOrMeasureOptions = undefined, endMark = undefined) {
      void this.#brand;
      needArgs("performance.measure", arguments.length, 1);
      const name = toDOMString(measureName);
      let start, end, duration, detail, given = false;
      if (startOrMeasureOptions === undefined || startOrMeasureOptions === null || isObject(startOrMeasureOptions)) {
        const d = toDictionary(startOrMeasureOptions, "measure options");
        detail = d.detail;
        if (d.duration !== undefined) duration = toTime(d.duration, "measure options: duration");
        if (d.end !== undefined) end = toMark(d.end);
        if (d.start !== undefined) start = toMark(d.start);
        given = detail !== undefined || duration !== undefined || end !== undefined || start !== undefined;
      } else {
        start = toDOMString(startOrMeasureOptions);
      }
      const mark = endMark === undefined ? undefined : toDOMString(endMark);
      if (given) {
        if (mark !== undefined) throw new TypeError("performance.measure: an end mark and options exclude each other.");
        if (start === undefined && end === undefined) throw new TypeError("performance.measure: the options have neither start nor end.");
        if (start !== undefined && end !== undefined && duration !== undefined) {
          throw new TypeError("performance.measure: start, end and duration exclude each other.");
        }
      }
      let to;
      if (mark !== undefined) to = markTime(mark);
      else if (end !== undefined) to = markTime(end);
      else if (start !== undefined && duration !== undefined) to = markTime(start) + duration;
      else to = performanceNow();
      const from = start !== undefined ? markTime(start) : duration !== undefined && end !== undefined ? markTime(end) - duration : 0;
      return keep(new PerformanceMeasure(kInternal, name, from, to - from, cloned(detail)));
    }
    clearMeasures(measureName = undefined) { void this.#brand; clear(measureName === undefined ? undefined : toDOMString(measureName), "measure"); }
  }
  defineInterface(Performance, "Performance");
  return { __proto__: null, Performance, PerformanceEntry, PerformanceMark, PerformanceMeasure, performance: new Performance(kInternal) };
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
