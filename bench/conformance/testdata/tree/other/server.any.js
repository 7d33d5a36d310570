// META: script=/common/get-host-info.sub.js
test(() => {}, "x");
