@0xd6b1f0a7c3e84f12;
# How an invocation ends. Every invocation of tenant code ends in exactly one of
# these; the same names stand in the header `bulkhead-outcome`, in logs, metrics
# and tests. The set is closed: adding one is a change of contract.

using Go = import "/go.capnp";
$Go.package("gen");
$Go.import("bulkhead/schema/gen");

enum Outcome {
  unknown @0;
  # Never sent. A zero on the wire is a protocol violation, not an outcome.
  ok @1;
  # The handler settled and its response, if any, was sent whole.
  exception @2;
  # The handler threw, rejected, returned something that is not a Response, or can never settle.
  exceededCpu @3;
  # Used more CPU time than its limit, on the executor's thread clock.
  exceededMemory @4;
  # The tenant's heap, buffers and Wasm memories together passed the limit.
  exceededWallTime @5;
  # Took longer than its wall-clock limit, waiting included.
  crashed @6;
  # The shard died while this invocation was executing in it.
  killed @7;
  # Ended by the operator, by policy, or with a shard that was stopped.
  loadShed @8;
  # Refused before it began: a queue or a limit was full.
  canceled @9;
  # The client went away first.
  scriptNotFound @10;
  # No tenant answers for this host name.
  notLoaded @11;
  # The tenant exists but could not be compiled or started.
  protocolViolation @12;
  # The shard broke the protocol while it held this invocation.
  internalError @13;
  # A fault of bulkhead itself.
}

struct Done {
  outcome @0 :Outcome;
  message @1 :Text;
  # What the tenant's developer should read: error and stack, or limit and use. At most 8 KiB.
  cpuMicros @2 :UInt64;
  # CPU of this invocation as the shard counted it, µs. A claim: the gateway never bills by it alone.
}
