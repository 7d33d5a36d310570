// META: global=window
test(() => {}, "x");
