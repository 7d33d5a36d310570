// META: script=gone.js
test(() => {}, "x");
