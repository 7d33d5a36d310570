// What the native layer keeps for one isolate, and the helpers its files share.
//
// Ownership: Go owns a bh_isolate between bh_isolate_new and bh_isolate_dispose, and it the
// v8::Isolate. Handles kept here are v8::Global and are reset, under a Locker, before V8 disposes.
//
// Trust: everything that comes out of JavaScript is hostile. No function here coerces a JS value
// (a coercion runs the tenant's code in the middle of ours): types are checked, and what does not
// fit is a TypeError. Pointers into a buffer are never kept across a call into JavaScript.

#ifndef BULKHEAD_INSTANCE_H_
#define BULKHEAD_INSTANCE_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "alloc.h"
#include "blocks.h"
#include "dormant.h"
#include "segments.h"
#include "slabs.h"
#include "native.h"
#include "v8.h"

struct bh_isolate;

namespace bulkhead {

// Functions the runtime hands back from its bootstrap, in the order of kHandlerNames.
enum Handler : uint8_t {
  kStart, kLoad, kRequest, kChunk, kEnd, kAbort, kWindow, kTimer, kOp, kRejection, kIdle,
  kDescribeError, kBuiltin, kHandlerCount
};

extern const char* const kHandlerNames[kHandlerCount];

// Output of a turn: records, one after the other, in one growing buffer. A large one is a slab.
class Output {
 public:
  Output() = default;
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  ~Output() { Wipe(); }
  // False when the turn has written kMaxBytes: the caller throws, nothing was added.
  bool Append(bh_record head, std::string_view one, std::string_view two);
  // Reserves a record whose second part the caller fills in place; nullptr when full.
  uint8_t* Begin(bh_record head, std::string_view one, size_t two_len);
  // A BH_CHUNK: as Append, laid out so that a frame can be made of it where it is.
  bool Chunk(bh_record head, std::string_view data);
  void Clear();
  void Wipe();
  uint8_t* data() const { return bytes_; }
  size_t size() const { return size_; }
  size_t capacity() const { return capacity_; }
  size_t most() const { return most_ + kReserveBytes; }  // that any one record may take
  // At most half of a tenant's memory may be output that is not read yet.
  void Limit(uint64_t memory) {
    if (memory > 0 && memory / 2 < most_) most_ = static_cast<size_t>(memory / 2);
  }

 private:
  bool Grow(size_t size);

  // The runtime sends at most a window at once; only logs and operations can get anywhere near.
  static constexpr size_t kMaxBytes = 32u << 20;
  // Kept for responses and ends, so that a flood of the others cannot make an invocation hang.
  static constexpr size_t kReserveBytes = 1u << 20;
  static constexpr size_t kKeepBytes = 64u << 10;
  uint8_t* bytes_ = nullptr;
  size_t size_ = 0, capacity_ = 0;
  bool slab_ = false;  // bytes_ is one
  size_t most_ = kMaxBytes;
};

struct BundleModule {
  std::string name;  // absolute, "/worker.js"
  uint8_t kind;
  std::string code;   // dropped once compiled
  std::string cache;  // V8's cached data for it, may be empty; dropped once compiled
  uint32_t source_len;
  uint64_t source;    // fingerprint of code
  v8::Global<v8::Module> module;
  v8::Global<v8::Value> value;  // default export of a synthetic module
};

struct PendingRejection {
  v8::Global<v8::Promise> promise;
  v8::Global<v8::Value> reason;
  v8::Global<v8::Value> context;
};

// A resizable ArrayBuffer that lives (resizable.cc).
struct Resizable {
  bh_isolate* owner;
  size_t at;     // in owner->resizables
  uint64_t max;  // bytes
  v8::Global<v8::ArrayBuffer> buffer;  // weak
};

struct EnvEntry {
  std::string name;
  bool json;
  std::string value;
};

}  // namespace bulkhead

// The instance behind the C handle. Fields without a lock are used only by the thread that
// holds the isolate's v8::Locker.
struct bh_isolate {
  v8::Isolate* iso = nullptr;
  v8::Global<v8::Context> context;
  v8::Global<v8::UnboundScript> runtime_script;
  v8::Global<v8::Object> host;
  v8::Global<v8::Function> handlers[bulkhead::kHandlerCount];
  v8::Global<v8::Function> data_clone_error;
  std::shared_ptr<bh_allocator> allocator;  // V8 and every backing store hold it too
  bulkhead::Blocks blocks;      // V8's, of malloc
  bulkhead::Segments segments;  // V8's, mapped
  bulkhead::Dormant dormant;    // what of both was given back

  bulkhead::Output out;
  bh_turn turn{};
  double clock_ms = 0;       // JS time; never goes back
  double next_timer_ms = -1;
  uint32_t next_timer_inv = 0;
  bool usable = false;       // bootstrapped, and not out of memory
  bool eval_allowed = false;
  bool wasm_allowed = false;
  int heap_extensions = 0;   // times the near-heap-limit callback gave more room
  uint64_t heap_max = 0;     // bytes: V8's own limit
  uint64_t memory_limit = 0; // bytes: heap, external and ours together
  uint64_t bundle_bytes = 0; // code of modules not compiled yet, and the env until it is handed over

  std::vector<bulkhead::BundleModule> modules;
  uint32_t cached_modules = 0;  // compiled from the code cache
  std::unordered_map<std::string, size_t> module_by_name;
  std::unordered_multimap<int, size_t> module_by_hash;
  std::vector<bulkhead::EnvEntry> env;

  std::vector<bulkhead::PendingRejection> unhandled;
  std::vector<bulkhead::PendingRejection> handled_later;

  std::vector<std::unique_ptr<bulkhead::Resizable>> resizables;
  size_t resizables_asked = 0;    // allowed and not made yet
  uint64_t resizable_space = 0;   // bytes of address space of all of them
  bool resizables_made = false;   // ever

  // A collection for someone who wanted room found none: until the next one, or the next turn, it is not
  // worth another. A loop of such calls would be a loop of collections, which V8 stops late.
  bool heap_full = false;

  // What V8 has taken from operator new in small pieces while the tenant ran, less what it gave back:
  // the descriptions of buffers, which are several times the size of a small buffer. May be below zero,
  // as some of it is older than the first turn.
  int64_t native_bytes = 0;
  uint64_t native_checked = 0;    // native and buffer bytes when they last led to a collection

  std::mutex turn_mu;      // guards in_turn and, with it, whether a termination may be requested
  bool in_turn = false;    // guarded by turn_mu; written by the thread that has the isolate
  std::atomic<uint8_t> reason{0};

  std::atomic<uint64_t> heap_bytes{0};
  uint64_t trimmed_bytes = 0;  // heap and external after the last collection of bh_trim; 0: none yet
  std::atomic<uint64_t> external_bytes{0};

  static bh_isolate* From(v8::Isolate* iso) {
    return static_cast<bh_isolate*>(iso->GetData(0));
  }
  bool stopping() const { return reason.load(std::memory_order_relaxed) != BH_REASON_NONE; }
  // Ask V8 to unwind the running turn, from the thread that runs it. Between turns (a collection of
  // Trim finds the tenant over its limit) nothing is asked: it would stop whatever comes next. The next
  // turn measures for itself.
  void StopForMemory();
  // What this layer holds for the tenant.
  uint64_t OwnBytes() const { return out.capacity() + bundle_bytes; }
  // Bytes outside the heap, given V8's own count of them.
  uint64_t ExternalBytes(uint64_t counted) const {
    return std::max(counted, allocator->used()) + OwnBytes() + NativeBytes();
  }
  // Give back what of V8's memory can be written anew. Nobody may enter before the next Held.
  void Sleep();
  uint64_t NativeBytes() const { return native_bytes > 0 ? static_cast<uint64_t>(native_bytes) : 0; }
  // Refresh the usage figures; true when the tenant is over its limit.
  bool MeasureMemory();
};

namespace bulkhead {

// Holds an isolate, awake. There is no v8::Locker but in here: V8's memory is not all there before.
class Held {
 public:
  explicit Held(bh_isolate* i) : locker_(Awake(i)) {}

 private:
  static v8::Isolate* Awake(bh_isolate* i) {
    i->dormant.Wake();
    return i->iso;
  }
  v8::Locker locker_;
};

using Args = v8::FunctionCallbackInfo<v8::Value>;

v8::Local<v8::String> OneByte(v8::Isolate* iso, std::string_view s);
// UTF-8 with malformed parts replaced; the empty string when it is too long for V8.
v8::Local<v8::String> Utf8(v8::Isolate* iso, std::string_view s);
std::string ToUtf8(v8::Isolate* iso, v8::Local<v8::String> s);
// The first `most` bytes of it, cut at a character.
std::string Shortened(v8::Isolate* iso, v8::Local<v8::String> s, size_t most);
// Whether `bytes` more on V8's heap leave it within its limit. What is asked for in one piece and does
// not fit ends the process: V8 asks NearHeapLimit once, and that gives a fixed step. Collects garbage
// before it says no.
bool HasRoom(bh_isolate* i, uint64_t bytes);
// Reading a string flattens it: one of 512 MB built by repeat() costs nothing until then, and would
// take V8 past its heap, and with it the process. Nobody here reads one for which this is true.
bool TooLongToRead(bh_isolate* i, v8::Local<v8::String> s);
// A fresh Uint8Array that owns a copy; empty, without an exception, when memory is refused.
v8::MaybeLocal<v8::Uint8Array> Bytes(v8::Isolate* iso, const void* data, size_t len);

void ThrowTypeError(v8::Isolate* iso, const char* message);
void ThrowRangeError(v8::Isolate* iso, const char* message);

// Contents of a view at this moment. Small ones are copied to `storage` because V8 keeps them
// on its moving heap; the span dies with the next call into JavaScript.
class ViewBytes {
 public:
  explicit ViewBytes(v8::Local<v8::ArrayBufferView> view)
      : span_(view->GetContents(v8::MemorySpan<uint8_t>(storage_, sizeof storage_))) {}
  std::string_view view() const {
    return {reinterpret_cast<const char*>(span_.data()), span_.size()};
  }

 private:
  uint8_t storage_[128];
  v8::MemorySpan<uint8_t> span_;
};

// Where and why something failed, for the BH_DIAGNOSTIC record.
struct Diagnostic {
  std::string file, excerpt, message, stack;
  uint32_t line = 0, column = 0;
};
Diagnostic DescribeMessage(v8::Isolate* iso, v8::Local<v8::Context> context,
                           v8::Local<v8::Message> message, v8::Local<v8::Value> error);


// Call a handler. Empty when it threw; a termination is left pending, anything else is reported
// to the tenant's log as an internal error of invocation `inv`.
v8::MaybeLocal<v8::Value> CallHandler(bh_isolate* i, v8::Local<v8::Context> context, Handler h,
                                      uint32_t inv, int argc, v8::Local<v8::Value>* argv);
// Microtasks, then rejections, until both are dry or the turn is stopped.
void RunMicrotasks(bh_isolate* i, v8::Local<v8::Context> context);
void PumpForegroundTasks(v8::Isolate* iso);
void ForgetForegroundTasks(v8::Isolate* iso);

// The frozen clock: thread-local, in force while one of these lives.
class FrozenClock {
 public:
  explicit FrozenClock(double ms);
  ~FrozenClock();
  static void Set(double ms);
};

// Lowest address JavaScript may use on this thread's stack (see process.cc).
uintptr_t StackLimit();
// Room below it for V8's own C++ frames, bytes.
constexpr size_t kReserve = 192u << 10;

// Install callbacks and host functions (host.cc, modules.cc).
v8::Local<v8::Object> MakeHost(v8::Isolate* iso, v8::Local<v8::Context> context);
void InstallTextFunctions(v8::Isolate* iso, v8::Local<v8::Context> c, v8::Local<v8::Object> host);
void InstallValueFunctions(v8::Isolate* iso, v8::Local<v8::Context> c, v8::Local<v8::Object> host);
void InstallCloneFunctions(v8::Isolate* iso, v8::Local<v8::Context> c, v8::Local<v8::Object> host);
void InstallResizableFunctions(v8::Isolate* iso, v8::Local<v8::Context> c,
                               v8::Local<v8::Object> host);
// Counts a resizable buffer until it is collected.
void KeepCount(bh_isolate* i, v8::Local<v8::ArrayBuffer> buffer);
// How many resizable buffers serialized bytes can hold at most.
size_t MostResizable(std::string_view serialized);
// Counts the resizable buffers in what a deserializer made. False: there are too many, or an exception
// is pending.
bool CountResizable(bh_isolate* i, v8::Local<v8::Context> context, v8::Local<v8::Value> clone);
void InstallUrlFunctions(v8::Isolate* iso, v8::Local<v8::Context> c, v8::Local<v8::Object> host);
void InstallUrlPatternFunctions(v8::Isolate* iso, v8::Local<v8::Context> c, v8::Local<v8::Object> host);
void SetFunction(v8::Isolate* iso, v8::Local<v8::Context> c, v8::Local<v8::Object> target,
                 const char* name, v8::FunctionCallback callback);
void InstallModuleCallbacks(v8::Isolate* iso);
// Whether this process may run Wasm at all; wasm.cc keeps shared memories out of it.
bool ProcessHasWasm();
bool GateWasm(v8::Isolate* iso, v8::Local<v8::Context> context);
bool WasmIsShared(std::string_view bytes);

v8::Local<v8::String> RuntimeSource(v8::Isolate* iso);
std::string_view ProcessData(uint32_t n);
std::string_view CodeCache();
void SetCodeCache(std::string bytes);

}  // namespace bulkhead

#endif  // BULKHEAD_INSTANCE_H_
