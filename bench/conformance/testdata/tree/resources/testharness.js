// A stand-in for the harness of a real checkout, with as much of its interface as this tree's tests use.
(function (scope) {
  const tests = [], callbacks = [];
  const status = { status: 0, message: null };
  let loaded = false, complete = false, pending = 0;
  const end = () => {
    if (complete || !loaded || pending) return;
    complete = true;
    for (const f of callbacks) f(tests, status);
  };
  const begin = (name) => {
    const t = { name: name ?? scope.META_TITLE, status: 3, message: null };
    tests.push(t);
    return t;
  };
  const settle = (t, error) => {
    if (complete) return;
    t.status = error ? 1 : 0;
    t.message = error ? String(error.message) : null;
  };
  scope.test = (f, name) => {
    const t = begin(name);
    try { f(); settle(t); } catch (error) { settle(t, error); }
  };
  scope.promise_test = (f, name) => {
    const t = begin(name);
    pending++;
    Promise.resolve().then(f).then(() => settle(t), (error) => settle(t, error)).then(() => { pending--; end(); });
  };
  scope.assert_equals = (a, b) => { if (!Object.is(a, b)) throw new Error(`expected ${b} but got ${a}`); };
  scope.add_completion_callback = (f) => callbacks.push(f);
  scope.timeout = () => {
    if (complete) return;
    status.status = 2;
    for (const t of tests) if (t.status === 3) t.status = 2;
    pending = 0;
    end();
  };
  scope.addEventListener("install", () => { loaded = true; end(); });
  scope.addEventListener("error", (e) => { status.status = 1; status.message = e.message; });
})(self);
