test(() => {}, "not reached"
