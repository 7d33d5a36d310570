// Birth, rest and death of an isolate, and the callbacks it is born with.
//
// Isolate, context and disposal are made here and not by v8go: its isolates carry a second context
// that nobody runs, and take their allocator from a global.

#include <cstring>
#include <memory>

#include "fault.h"
#include "instance.h"

namespace bulkhead {
namespace {

// Gives room for unwinding: the terminated code still allocates on its way out.
size_t NearHeapLimit(void* data, size_t current, size_t) {
  auto* i = static_cast<bh_isolate*>(data);
  i->StopForMemory();
  // A builtin that cannot be interrupted may come here again. After the last extension V8 aborts
  // the process: one shard lost is less than the shared cage.
  return i->heap_extensions++ < BH_HEAP_STEPS ? current + BH_HEAP_STEP : current;
}

void AfterGC(v8::Isolate*, v8::GCType, v8::GCCallbackFlags, void* data) {
  auto* i = static_cast<bh_isolate*>(data);
  i->heap_full = false;
  if (i->MeasureMemory()) i->StopForMemory();
  i->native_checked = i->NativeBytes() + i->allocator->used();
}

// Full collections come by the size of the heap, which knows little of small buffers: 64 bytes each,
// beside some 400 outside it. A look after each small collection finds what they leave out.
void AfterScavenge(v8::Isolate* iso, v8::GCType, v8::GCCallbackFlags, void* data) {
  auto* i = static_cast<bh_isolate*>(data);
  uint64_t outside = i->NativeBytes() + i->allocator->used();
  if (i->memory_limit == 0 || !i->in_turn || i->heap_bytes.load() + outside <= i->memory_limit) return;
  // What a collection left is not worth another one before there is more.
  if (outside < i->native_checked + i->memory_limit / 8) return;
  i->native_checked = outside;
  iso->RequestInterrupt([](v8::Isolate* iso, void*) { iso->LowMemoryNotification(); }, nullptr);
}

void OnPromiseReject(v8::PromiseRejectMessage message) {
  v8::Local<v8::Promise> promise = message.GetPromise();
  v8::Isolate* iso = v8::Isolate::GetCurrent();
  bh_isolate* i = bh_isolate::From(iso);
  if (i == nullptr || i->stopping()) return;
  // A flood of rejections is held alive only up to here; the rest goes unreported.
  constexpr size_t kMost = 4096;
  v8::HandleScope scope(iso);
  switch (message.GetEvent()) {
    case v8::kPromiseRejectWithNoHandler: {
      if (i->unhandled.size() >= kMost) return;
      PendingRejection r;
      r.promise.Reset(iso, promise);
      r.reason.Reset(iso, message.GetValue());
      r.context.Reset(iso, iso->GetContinuationPreservedEmbedderData());
      i->unhandled.push_back(std::move(r));
      return;
    }
    case v8::kPromiseHandlerAddedAfterReject: {
      for (auto it = i->unhandled.begin(); it != i->unhandled.end(); ++it) {
        if (it->promise == promise) {
          i->unhandled.erase(it);
          return;
        }
      }
      if (i->handled_later.size() >= kMost) return;
      PendingRejection r;
      r.promise.Reset(iso, promise);
      r.reason.Reset(iso, promise->Result());
      r.context.Reset(iso, iso->GetContinuationPreservedEmbedderData());
      i->handled_later.push_back(std::move(r));
      return;
    }
    default:
      return;  // resolving twice is no error of anyone
  }
}

// Without a listener V8 prints uncaught errors of microtasks and tasks to stdout.
void OnMessage(v8::Local<v8::Message> message, v8::Local<v8::Value> error) {
  v8::Isolate* iso = v8::Isolate::GetCurrent();
  bh_isolate* i = bh_isolate::From(iso);
  if (i == nullptr || i->stopping()) return;
  v8::HandleScope scope(iso);
  Diagnostic d = DescribeMessage(iso, iso->GetCurrentContext(), message, error);
  std::string text = d.message;
  if (!d.file.empty()) text += "\n    at " + d.file + ":" + std::to_string(d.line);
  bh_record head{};
  head.kind = BH_LOG;
  head.mode = 4;
  i->out.Append(head, text, {});
}

bool WasmAllowed(v8::Local<v8::Context>, v8::Local<v8::String>) {
  bh_isolate* i = bh_isolate::From(v8::Isolate::GetCurrent());
  return i != nullptr && i->wasm_allowed;
}

// How V8 sizes the heap of an isolate: small at first, at most `heap_max` for both generations.
v8::ResourceConstraints Constraints(uint64_t heap_max) {
  constexpr size_t kInitial = 1u << 20;  // it grows on demand
  v8::ResourceConstraints rc;
  rc.ConfigureDefaultsFromHeapSize(kInitial, heap_max);
  return rc;
}

}  // namespace
}  // namespace bulkhead

void bh_isolate::Sleep() {
  // V8's cache of Wasm code by address, 1,024 entries of 48 bytes: who frees a module clears it in every
  // isolate that had the module, on whatever thread.
  constexpr size_t kWasmLookup = size_t{1024} * 48;
  blocks.Each([&](uintptr_t at, size_t size) {
    if (size != kWasmLookup || !bulkhead::ProcessHasWasm()) dormant.Sleep(at, size, {});
  });
  segments.Each([&](uintptr_t at, size_t size, bulkhead::Protection p) { dormant.Sleep(at, size, p); });
}

extern "C" {

bh_isolate* bh_isolate_new(uint64_t heap_max) {
  auto i = std::make_unique<bh_isolate>();
  i->heap_max = heap_max;
  i->allocator = std::make_shared<bh_allocator>();
  v8::Isolate::CreateParams params;
  params.array_buffer_allocator_shared = i->allocator;
  params.constraints = bulkhead::Constraints(heap_max);
  bulkhead::BlocksBeingMade making(&i->blocks);
  bulkhead::SegmentsBeingMade mapping(&i->segments);
  v8::Isolate* iso = v8::Isolate::New(params);
  i->iso = iso;
  iso->SetData(0, i.get());

  bulkhead::Held held(i.get());
  v8::Isolate::Scope isolate_scope(iso);
  v8::HandleScope scope(iso);
  iso->SetStackLimit(bulkhead::StackLimit());
  iso->SetMicrotasksPolicy(v8::MicrotasksPolicy::kExplicit);
  bulkhead::RecordFatalErrorsOf(iso);
  iso->SetPromiseRejectCallback(bulkhead::OnPromiseReject);
  iso->AddMessageListener(bulkhead::OnMessage);
  iso->SetAllowAtomicsWait(false);
  iso->SetAllowWasmCodeGenerationCallback(bulkhead::WasmAllowed);
  iso->AddNearHeapLimitCallback(bulkhead::NearHeapLimit, i.get());
  iso->AddGCEpilogueCallback(bulkhead::AfterGC, i.get(), v8::kGCTypeMarkSweepCompact);
  iso->AddGCEpilogueCallback(bulkhead::AfterScavenge, i.get(), v8::kGCTypeScavenge);
  bulkhead::InstallModuleCallbacks(iso);
  i->context.Reset(iso, v8::Context::New(iso));
  return i.release();
}

// Bytes by which an isolate may have grown since it was last collected for a trim to leave it at that.
constexpr uint64_t kWorthCollecting = 64 << 10;

// Not LowMemoryNotification: it collects until nothing more goes, takes twice the time for the last
// 4 KiB, and drops the bytecode that the next request compiles again.
int bh_trim(bh_isolate* i, int collect) {
  if (!i->usable) return 0;
  bh_drop_output(i);
  v8::Isolate* iso = i->iso;
  {
    bulkhead::Held held(i);
    bulkhead::CountSmall counting(&i->native_bytes);
    v8::Isolate::Scope isolate_scope(iso);
    v8::HandleScope handle_scope(iso);
    iso->SetStackLimit(bulkhead::StackLimit());
    bulkhead::FrozenClock clock(i->clock_ms);
    // Nothing of the tenant runs: what finalization registries have to say waits for the next I/O.
    // A whole collection costs milliseconds, which a tenant that is asked now and then would cost each time.
    i->MeasureMemory();
    uint64_t all = i->heap_bytes.load() + i->external_bytes.load();
    if (collect == 0) collect = i->trimmed_bytes == 0 || all > i->trimmed_bytes + kWorthCollecting;
    if (collect != 0) {
      iso->MemoryPressureNotification(v8::MemoryPressureLevel::kCritical);
      iso->MemoryPressureNotification(v8::MemoryPressureLevel::kNone);
      i->MeasureMemory();
      i->trimmed_bytes = i->heap_bytes.load() + i->external_bytes.load();
    }
  }
  i->Sleep();  // to leave an isolate is to write to it
  return collect;
}

size_t bh_dormant_check(bh_isolate* i, size_t* wrong) {
  struct Copy {
    uintptr_t at;
    std::string bytes;
  };
  std::vector<Copy> before;
  auto copy = [&](uintptr_t at, size_t size) {
    before.push_back({at, std::string(reinterpret_cast<const char*>(at), size)});
  };
  i->dormant.Wake();
  i->blocks.Each(copy);
  i->segments.Each([&](uintptr_t at, size_t size, bulkhead::Protection) { copy(at, size); });
  i->Sleep();
  size_t given = i->dormant.bytes();
  i->dormant.Wake();
  *wrong = 0;
  for (const Copy& c : before) {
    if (memcmp(reinterpret_cast<const void*>(c.at), c.bytes.data(), c.bytes.size()) != 0) ++*wrong;
  }
  return given;
}

void bh_dormant_guard(void) { bulkhead::Dormant::Guard(); }

void bh_isolate_dispose(bh_isolate* i) {
  std::unique_ptr<bh_isolate> gone(i);
  v8::Isolate* iso = i->iso;
  {
    bulkhead::Held held(i);
    v8::Isolate::Scope isolate_scope(iso);
    iso->SetPromiseRejectCallback(nullptr);
    iso->RemoveMessageListeners(bulkhead::OnMessage);
    iso->RemoveGCEpilogueCallback(bulkhead::AfterGC, i);
    iso->RemoveGCEpilogueCallback(bulkhead::AfterScavenge, i);
    iso->RemoveNearHeapLimitCallback(bulkhead::NearHeapLimit, 0);
    for (auto& m : i->modules) explicit_bzero(m.code.data(), m.code.size());
    for (auto& e : i->env) explicit_bzero(e.value.data(), e.value.size());
    iso->SetData(0, nullptr);
    gone.reset();  // its handles need the lock
    bulkhead::ForgetForegroundTasks(iso);
  }
  iso->Dispose();
}

}  // extern "C"
