// What an isolate does between its birth and its death (life.cc): bootstrap, measure, terminate;
// and the helpers all files share.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "instance.h"

namespace bulkhead {

const char* const kHandlerNames[kHandlerCount] = {
    "start", "load",  "request", "chunk",     "end",  "abort",
    "window", "timer", "op",      "rejection", "idle", "describeError",
    "builtin"};

v8::Local<v8::String> OneByte(v8::Isolate* iso, std::string_view s) {
  v8::Local<v8::String> out;
  if (s.size() > static_cast<size_t>(v8::String::kMaxLength) ||
      !v8::String::NewFromOneByte(iso, reinterpret_cast<const uint8_t*>(s.data()),
                                  v8::NewStringType::kNormal, static_cast<int>(s.size()))
           .ToLocal(&out)) {
    return v8::String::Empty(iso);
  }
  return out;
}

v8::Local<v8::String> Utf8(v8::Isolate* iso, std::string_view s) {
  v8::Local<v8::String> out;
  if (s.size() > static_cast<size_t>(v8::String::kMaxLength) ||
      !v8::String::NewFromUtf8(iso, s.data(), v8::NewStringType::kNormal,
                               static_cast<int>(s.size()))
           .ToLocal(&out)) {
    return v8::String::Empty(iso);
  }
  return out;
}

std::string ToUtf8(v8::Isolate* iso, v8::Local<v8::String> s) {
  std::string out(s->Utf8LengthV2(iso), '\0');
  out.resize(s->WriteUtf8V2(iso, out.data(), out.size(),
                            v8::String::WriteFlags::kReplaceInvalidUtf8));
  return out;
}

bool HasRoom(bh_isolate* i, uint64_t bytes) {
  constexpr uint64_t kSmall = 1u << 20;  // V8's own slack is larger
  if (bytes <= kSmall) return true;
  v8::HeapStatistics hs;
  i->iso->GetHeapStatistics(&hs);
  if (hs.used_heap_size() + bytes <= hs.heap_size_limit()) return true;
  if (i->heap_full) return false;
  i->iso->LowMemoryNotification();
  i->iso->GetHeapStatistics(&hs);
  i->heap_full = hs.used_heap_size() + bytes > hs.heap_size_limit();
  return !i->heap_full;
}

bool TooLongToRead(bh_isolate* i, v8::Local<v8::String> s) {
  auto length = static_cast<uint64_t>(s->Length());
  uint64_t limit = i->memory_limit == 0 ? i->heap_max : std::min(i->memory_limit, i->heap_max);
  return length > limit / 4 || !HasRoom(i, s->IsOneByte() ? length : 2 * length);
}

std::string Shortened(v8::Isolate* iso, v8::Local<v8::String> s, size_t most) {
  std::string text(most, '\0');
  text.resize(s->WriteUtf8V2(iso, text.data(), most, v8::String::WriteFlags::kReplaceInvalidUtf8));
  return text;
}

v8::MaybeLocal<v8::Uint8Array> Bytes(v8::Isolate* iso, const void* data, size_t len) {
  v8::Local<v8::ArrayBuffer> buffer;
  if (!v8::ArrayBuffer::MaybeNew(iso, len, v8::BackingStoreInitializationMode::kUninitialized)
           .ToLocal(&buffer)) {
    return {};
  }
  if (len > 0) std::memcpy(buffer->Data(), data, len);
  return v8::Uint8Array::New(buffer, 0, len);
}

void ThrowTypeError(v8::Isolate* iso, const char* message) {
  iso->ThrowException(v8::Exception::TypeError(OneByte(iso, message)));
}

void ThrowRangeError(v8::Isolate* iso, const char* message) {
  iso->ThrowException(v8::Exception::RangeError(OneByte(iso, message)));
}

bool Output::Append(bh_record head, std::string_view one, std::string_view two) {
  uint8_t* at = Begin(head, one, two.size());
  if (at == nullptr) return false;
  if (!two.empty()) std::memcpy(at, two.data(), two.size());
  return true;
}

uint8_t* Output::Begin(bh_record head, std::string_view one, size_t two_len) {
  bool flood = head.kind == BH_LOG || head.kind == BH_CHUNK || head.kind == BH_OP;
  size_t most = flood ? most_ : most_ + kReserveBytes;
  if (one.size() > most || two_len > most ||
      size_ + sizeof head + one.size() + two_len > most) {
    return nullptr;
  }
  head.n1 = static_cast<uint32_t>(one.size());
  head.n2 = static_cast<uint32_t>(two_len);
  size_t at = size_;
  if (!Grow(at + sizeof head + one.size() + two_len)) return nullptr;
  std::memcpy(bytes_ + at, &head, sizeof head);
  if (!one.empty()) std::memcpy(bytes_ + at + sizeof head, one.data(), one.size());
  return bytes_ + at + sizeof head + one.size();
}

bool Output::Chunk(bh_record head, std::string_view data) {
  static constexpr char kRoom[BH_CHUNK_ROOM] = {};
  head.a = static_cast<uint32_t>(data.size());
  size_t padded = (data.size() + 7) / 8 * 8;
  uint8_t* at = Begin(head, {kRoom, sizeof kRoom}, padded);
  if (at == nullptr) return false;
  if (!data.empty()) std::memcpy(at, data.data(), data.size());
  std::memset(at + data.size(), 0, padded - data.size());
  return true;
}

bool Output::Grow(size_t size) {
  if (size > capacity_) {
    // By half, not to twice the size: it counts against the tenant. What is left behind is wiped.
    size_t capacity = std::max(size, size_ + size_ / 2);
    bool slab = size > kKeepBytes && size <= kSlabBytes;
    if (slab) capacity = kSlabBytes;
    auto* larger = slab ? TakeSlab() : static_cast<uint8_t*>(malloc(capacity));
    if (larger == nullptr) return false;
    if (size_ > 0) std::memcpy(larger, bytes_, size_);
    size_t kept = size_;
    Wipe();
    bytes_ = larger;
    capacity_ = capacity;
    slab_ = slab;
    size_ = kept;
  }
  size_ = size;
  return true;
}

void Output::Clear() {
  if (capacity_ > kKeepBytes) Wipe();
  size_ = 0;
}

// What a tenant wrote must not be found in the process after it has gone. free wipes (scrub.cc).
void Output::Wipe() {
  if (slab_) {
    GiveSlab(bytes_, size_);
  } else {
    free(bytes_);
  }
  bytes_ = nullptr;
  size_ = capacity_ = 0;
  slab_ = false;
}

namespace {

// Take away what would give JavaScript a second thread's view or a clock (DESIGN, invariant 7).
bool RemoveGlobals(v8::Isolate* iso, v8::Local<v8::Context> context) {
  v8::Local<v8::Object> global = context->Global();
  global->Delete(context, OneByte(iso, "SharedArrayBuffer")).Check();
  v8::Local<v8::Value> atomics;
  if (global->Get(context, OneByte(iso, "Atomics")).ToLocal(&atomics) && atomics->IsObject()) {
    atomics.As<v8::Object>()->Delete(context, OneByte(iso, "waitAsync")).Check();
  }
  if (ProcessHasWasm()) return GateWasm(iso, context);
  global->Delete(context, OneByte(iso, "WebAssembly")).Check();
  return true;
}

char* Message(const std::string& text) { return strdup(text.c_str()); }

char* CaughtMessage(v8::Isolate* iso, v8::Local<v8::Context> context, const v8::TryCatch& caught,
                    const char* step) {
  std::string text = std::string(step) + ": ";
  if (caught.HasTerminated()) return Message(text + "terminated");
  if (caught.Message().IsEmpty()) return Message(text + "no message");
  Diagnostic d = DescribeMessage(iso, context, caught.Message(), caught.Exception());
  return Message(text + d.message + " at " + d.file + ":" + std::to_string(d.line) + ":" +
                 std::to_string(d.column));
}

// Compile and run the runtime, call it with `host`, keep its handlers.
char* Bootstrap(bh_isolate* i, v8::Local<v8::Context> context) {
  v8::Isolate* iso = i->iso;
  v8::TryCatch caught(iso);
  v8::ScriptOrigin origin(OneByte(iso, "bulkhead:runtime"));
  std::string_view cache = CodeCache();
  std::unique_ptr<v8::ScriptCompiler::CachedData> cached;
  if (!cache.empty()) {
    cached = std::make_unique<v8::ScriptCompiler::CachedData>(
        reinterpret_cast<const uint8_t*>(cache.data()), static_cast<int>(cache.size()));
  }
  bool consume = cached != nullptr;
  v8::ScriptCompiler::Source source(RuntimeSource(iso), origin, cached.release());  // takes it
  v8::Local<v8::UnboundScript> unbound;
  if (!v8::ScriptCompiler::CompileUnboundScript(
           iso, &source,
           consume ? v8::ScriptCompiler::kConsumeCodeCache
                   : v8::ScriptCompiler::kNoCompileOptions)
           .ToLocal(&unbound)) {
    return CaughtMessage(iso, context, caught, "compile the runtime");
  }
  if (consume && source.GetCachedData()->rejected) {
    return Message("compile the runtime: BUG: V8 rejected this process's own code cache");
  }
  if (!consume) i->runtime_script.Reset(iso, unbound);

  v8::Local<v8::Value> entry, handlers;
  if (!unbound->BindToCurrentContext()->Run(context).ToLocal(&entry)) {
    return CaughtMessage(iso, context, caught, "run the runtime");
  }
  if (!entry->IsFunction()) return Message("run the runtime: its completion value is no function");
  v8::Local<v8::Object> host = MakeHost(iso, context);
  if (host.IsEmpty()) return CaughtMessage(iso, context, caught, "make the host object");
  i->host.Reset(iso, host);
  v8::Local<v8::Value> argv[] = {host};
  if (!entry.As<v8::Function>()->Call(context, v8::Undefined(iso), 1, argv).ToLocal(&handlers)) {
    return CaughtMessage(iso, context, caught, "start the runtime");
  }
  if (!handlers->IsObject()) return Message("start the runtime: it returned no handlers");
  for (int h = 0; h < kHandlerCount; h++) {
    v8::Local<v8::Value> f;
    if (!handlers.As<v8::Object>()->Get(context, OneByte(iso, kHandlerNames[h])).ToLocal(&f) ||
        !f->IsFunction()) {
      return Message(std::string("start the runtime: no handler named ") + kHandlerNames[h]);
    }
    i->handlers[h].Reset(iso, f.As<v8::Function>());
  }
  iso->PerformMicrotaskCheckpoint();
  i->out.Clear();  // the runtime rehearses: what it said is for nobody
  return nullptr;
}

}  // namespace
}  // namespace bulkhead

void bh_isolate::StopForMemory() {
  // Outside a turn (a trim, the making of a code cache) nothing of the tenant's runs. V8 would keep
  // the order and stop the next turn, which begins without a reason to end. What was measured ends
  // that turn where it is still true. Only this thread writes in_turn: it may read it without the lock.
  if (!in_turn) return;
  reason.store(BH_REASON_MEMORY);
  iso->TerminateExecution();
}

bool bh_isolate::MeasureMemory() {
  v8::HeapStatistics hs;
  iso->GetHeapStatistics(&hs);
  uint64_t heap = hs.used_heap_size();
  uint64_t external = ExternalBytes(hs.external_memory());
  heap_bytes.store(heap, std::memory_order_relaxed);
  external_bytes.store(external, std::memory_order_relaxed);
  if (memory_limit == 0) return false;
  // Buffers get what the heap leaves, less a margin in which the code that caught the RangeError
  // can go on.
  uint64_t spoken_for = heap + OwnBytes() + memory_limit / 16;
  allocator->SetCap(spoken_for < memory_limit ? memory_limit - spoken_for : 0);
  return heap + external > memory_limit;
}

extern "C" {

char* bh_bootstrap(bh_isolate* i, uint64_t memory_limit) {
  v8::Isolate* iso = i->iso;
  bulkhead::Held held(i);
  v8::Isolate::Scope isolate_scope(iso);
  v8::HandleScope handle_scope(iso);
  v8::Local<v8::Context> context = i->context.Get(iso);
  v8::Context::Scope context_scope(context);
  iso->SetStackLimit(bulkhead::StackLimit());
  bulkhead::FrozenClock clock(i->clock_ms);
  i->memory_limit = memory_limit;
  context->AllowCodeGenerationFromStrings(false);
  context->SetErrorMessageForCodeGenerationFromStrings(bulkhead::OneByte(
      iso, "Code generation from strings is off for this worker (limits: eval)"));
  if (!bulkhead::RemoveGlobals(iso, context)) return strdup("prepare the global object: refused");
  char* failed = bulkhead::Bootstrap(i, context);
  i->usable = failed == nullptr;
  i->MeasureMemory();
  return failed;
}

char* bh_make_code_cache(bh_isolate* i) {
  v8::Isolate* iso = i->iso;
  bulkhead::Held held(i);
  v8::Isolate::Scope isolate_scope(iso);
  v8::HandleScope handle_scope(iso);
  if (i->runtime_script.IsEmpty()) return strdup("make the code cache: a cache exists already");
  std::unique_ptr<v8::ScriptCompiler::CachedData> cache(
      v8::ScriptCompiler::CreateCodeCache(i->runtime_script.Get(iso)));
  i->runtime_script.Reset();
  if (cache == nullptr) return strdup("make the code cache: V8 made none");
  bulkhead::SetCodeCache(std::string(reinterpret_cast<const char*>(cache->data),
                                     static_cast<size_t>(cache->length)));
  return nullptr;
}

int bh_terminate(bh_isolate* i, uint8_t reason) {
  std::lock_guard<std::mutex> lock(i->turn_mu);
  if (!i->in_turn) return 0;
  uint8_t none = BH_REASON_NONE;
  i->reason.compare_exchange_strong(none, reason);
  i->iso->TerminateExecution();
  return 1;
}

void bh_usage(const bh_isolate* i, bh_usage_t* out) {
  out->heap_bytes = i->heap_bytes.load(std::memory_order_relaxed);
  out->external_bytes = i->external_bytes.load(std::memory_order_relaxed);
  out->external_bytes = std::max(out->external_bytes, i->allocator->used());
  out->limit_bytes = i->memory_limit;
}

void bh_free(char* message) { free(message); }

}  // extern "C"
