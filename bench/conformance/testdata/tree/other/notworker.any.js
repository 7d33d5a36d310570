// META: global=window,!worker
test(() => {}, "x");
