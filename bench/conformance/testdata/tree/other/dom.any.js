test(() => { if (self.document) document.createElement("a"); }, "x");
