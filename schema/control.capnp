@0xf3a98c1e5d7b2046;
# The control channel: Cap'n Proto RPC between gateway and shard. Each side holds exactly one
# bootstrap capability of the other and can name nothing else (DESIGN: no ambient authority).

using Go = import "/go.capnp";
$Go.package("gen");
$Go.import("bulkhead/schema/gen");

interface Shard {
  # Implemented by the worker, called by the gateway.

  load @0 (tenant :UInt32, bundle :Bundle, env :List(EnvVar), limits :TenantLimits,
           host :TenantHost, codeCache :Data) -> (result :LoadResult);
  # Compile and start a tenant's code in an isolate of its own. `tenant` is a handle of the
  # gateway's choosing, unique for this shard's life. `host` is all the tenant's isolate can
  # reach; it is released on evict. A tenant whose code is wrong is an answer, not an error.
  # `codeCache` is what codeCache() gave for the same bundle, or empty. V8 takes it for its own
  # work without proof, so it never comes from a shard that another tenant has been in.

  evict @1 (tenant :UInt32) -> ();
  # Dispose of the isolate, wipe what it left. Its streams end `killed` if any are still open.
  # Returns when nothing of it is left in the process.

  stats @2 () -> (stats :ShardStats);

  drain @3 () -> ();
  # Returns when no invocation is running. New ones are still accepted: the gateway stops sending.

  codeCache @4 (tenant :UInt32) -> (cache :Data);
  # V8's code cache of a loaded tenant's modules, for later loads of the same bundle by workers of
  # the same profile. Empty if there is none to be had.

  configure @5 (memoryBytes :UInt64, maxTenants :UInt32) -> ();
  # What the process may hold and how many tenants it is to expect, before the first of them. The
  # kernel enforces the first; the shard keeps clear of it.
}

interface TenantHost {
  # Implemented by the gateway; one capability per loaded tenant.

  log @0 (entries :List(LogEntry)) -> stream;
  # Lines of the tenant's console and of its uncaught errors, in order. Bounded by policy.
}

struct Bundle {
  # What the bundler makes of a tenant's folder. Produced by a sealed child, so as hostile as a shard.
  main @0 :Text;
  # Name of the entry among `modules`.
  modules @1 :List(Module);
}

struct Module {
  name @0 :Text;
  # Absolute within the bundle, "/worker.js". Import specifiers are resolved against it as URLs are.
  kind @1 :Kind;
  code @2 :Data;
  sourceMap @3 :Data;
  # Source map v3 JSON for `esm`, may be empty. Never given to the isolate.

  enum Kind {
    esm @0;
    # UTF-8 source of an ES module.
    text @1;
    # Default export is a string.
    data @2;
    # Default export is an ArrayBuffer.
    json @3;
    # Default export is the parsed value.
    wasm @4;
    # Default export is a WebAssembly.Module.
  }
}

struct BundleResult {
  # What the bundling child writes to its output, once.
  bundle @0 :Bundle;
  # Empty when `errors` is not.
  errors @1 :List(Diagnostic);
  warnings @2 :List(Diagnostic);
}

struct Diagnostic {
  file @0 :Text;
  # Relative to the tenant's folder. Empty when it has no place.
  line @1 :UInt32;
  # From 1; 0 when unknown.
  column @2 :UInt32;
  # From 1, in UTF-16 units; 0 when unknown.
  excerpt @3 :Text;
  # The offending source line, at most 200 characters around the place.
  message @4 :Text;
}

struct EnvVar {
  name @0 :Text;
  union {
    text @1 :Text;
    json @2 :Text;
    # Parsed with JSON.parse before it is put into `env`.
    service @3 :UInt16;
    # A service binding: its number, from 1 in the order of the list, which Fetch.binding names it by.
  }
}

struct TenantLimits {
  # All effective values, already decided by policy. 0 never means "unlimited".
  cpuMs @0 :UInt32;
  # CPU of one invocation, ms.
  startupCpuMs @1 :UInt32;
  # CPU of compiling and evaluating the top level, ms.
  wallMs @2 :UInt32;
  # Wall clock of one invocation up to the end of its response, ms.
  waitUntilMs @3 :UInt32;
  # Wall clock after the response for waitUntil, ms.
  memoryBytes @4 :UInt64;
  # JS heap, buffers and Wasm memories together, bytes.
  logBytes @5 :UInt32;
  # Log text per invocation, bytes; the rest is dropped and counted.
  timers @6 :UInt32;
  # Timers pending at once per isolate.
  evalAllowed @7 :Bool;
  # eval and new Function.
  wasmAllowed @8 :Bool;
  subrequests @9 :UInt32;
  # fetch() calls of one invocation, redirects included.
  pending @10 :UInt32;
  # Operations, subrequests and waitUntil promises not settled yet, at once per isolate.
  responseBytes @11 :UInt64;
  # Body of one response, bytes.
  weight @12 :UInt32;
  # Share of the processors relative to the shard's other tenants, 1 to 10000; 100 is the usual.
}

struct LoadResult {
  union {
    loaded @0 :Loaded;
    failed @1 :LoadFailure;
  }
}

struct Loaded {
  handlers @0 :List(Text);
  # Names of the events the code answers: "fetch", "scheduled", ...
  cpuMicros @1 :UInt64;
}

struct LoadFailure {
  outcome @0 :import "outcome.capnp".Outcome;
  # exception, exceededCpu or exceededMemory.
  diagnostic @1 :Diagnostic;
  stack @2 :Text;
}

struct LogEntry {
  requestId @0 :Text;
  # Empty for start-up code.
  timeMs @1 :Float64;
  # JS time (the frozen clock), ms since 1970.
  level @2 :Level;
  text @3 :Text;
  truncated @4 :Bool;
  attempt @5 :UInt8;

  enum Level {
    debug @0;
    log @1;
    info @2;
    warn @3;
    error @4;
  }
}

struct ShardStats {
  tenants @0 :List(TenantStats);
  isolatesReady @1 :UInt32;
  # Isolates waiting in the pool, bootstrapped, without a tenant.
  executors @2 :UInt32;
  goHeapBytes @3 :UInt64;
}

struct TenantStats {
  tenant @0 :UInt32;
  heapBytes @1 :UInt64;
  externalBytes @2 :UInt64;
  # ArrayBuffers and other memory outside the heap.
  cpuMicros @3 :UInt64;
  # Since load.
  inFlight @4 :UInt32;
  bracketedMicros @5 :UInt64;
  # CPU since load while an invocation of the tenant was a clock: it had dealings with the outside often.
  requestMicros @6 :UInt64;
  # CPU since load otherwise, without the host's own work.
  lockstepMicros @7 :UInt64;
  # Of requestMicros, that of requests which each began when the one before had just ended, many in a row.
}
