// Asynchronous operations done by the host after the turn. (Subrequests are not among them.)

// Codes are allocated in sandboxworker/runtime/ops.go.
const OP_DIGEST = 1, OP_HMAC_SIGN = 2, OP_HMAC_VERIFY = 3, OP_CRYPTO = 4, OP_DEFLATE = 5, OP_INFLATE = 6;

const ops = new SafeMap(); // id -> {d, inv}
let nextOp = 1;

// startOp returns a promise of {meta, data}. A refusal rejects with what `fail` makes of its message.
const startOp = (code, meta, data, fail) => {
  const inv = currentInvocation();
  if (inv !== undefined && inv.ended) return PromiseReject(new TypeError("The invocation this code belongs to has ended."));
  const refusal = pendingRefusal();
  if (refusal !== undefined) return PromiseReject(refusal);
  const id = nextOp++;
  host.op(code, id, inv === undefined ? 0 : inv.id, meta, data); // throws if the turn's output is full
  const d = deferred();
  ops.set(id, { __proto__: null, d, inv, fail });
  opsPending++;
  if (inv !== undefined) inv.ops++;
  return d.promise;
};

const finishOp = (id, ok, meta, data) => {
  const op = ops.get(id);
  if (op === undefined) return;
  ops.delete(id);
  opsPending--;
  if (op.inv !== undefined) {
    op.inv.ops--;
    if (op.inv.ended) return; // the promise stays pending for ever, and is collected
  }
  if (ok) op.d.resolve({ __proto__: null, meta, data });
  else op.d.reject(op.fail(meta));
};
