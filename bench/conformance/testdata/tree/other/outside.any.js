// META: script=../../../../etc/passwd
test(() => {}, "x");
