test(() => {}, "ends");
promise_test(() => new Promise(() => setInterval(() => {}, 5)), "hangs");
