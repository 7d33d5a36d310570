test(() => {}, "before");
throw new TypeError("thrown at the top");
