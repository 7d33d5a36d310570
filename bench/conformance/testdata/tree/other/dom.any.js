test(() => document.createElement("a"), "x");
