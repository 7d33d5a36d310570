// One turn: deliver an event, run microtasks dry, collect the output.

#include "turn.h"

#include <time.h>

#include <algorithm>
#include <string>
#include <utility>

namespace bulkhead {

int64_t ThreadCpuNanos() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

namespace {

// The data property `name` of an object or of what it inherits from; empty when there is none, or an
// accessor or a proxy stands before it. Nothing of the tenant's is called.
v8::MaybeLocal<v8::Value> DataProperty(v8::Isolate* iso, v8::Local<v8::Context> context,
                                       v8::Local<v8::Value> object, const char* name) {
  constexpr int kMostHops = 10'000;
  v8::Local<v8::String> key = OneByte(iso, name), value_key = OneByte(iso, "value");
  for (int hop = 0; hop < kMostHops && object->IsObject() && !object->IsProxy(); hop++) {
    v8::Local<v8::Value> found, value;
    if (!object.As<v8::Object>()->GetOwnPropertyDescriptor(context, key).ToLocal(&found)) return {};
    if (found->IsObject()) {
      if (!found.As<v8::Object>()->HasOwnProperty(context, value_key).FromMaybe(false)) return {};
      return found.As<v8::Object>()->Get(context, value_key);
    }
    object = object.As<v8::Object>()->GetPrototypeV2();
  }
  return {};
}

// Whether V8's text about an error would be too long to make: it joins the error's name and message,
// wherever they come from, and aborts when the two are longer than any string may be.
bool TextTooLong(bh_isolate* i, v8::Local<v8::Context> context, v8::Local<v8::Value> error) {
  if (error->IsString()) return TooLongToRead(i, error.As<v8::String>());
  v8::Isolate* iso = i->iso;
  if (error->IsSymbol()) {
    v8::Local<v8::Value> said = error.As<v8::Symbol>()->Description(iso);
    return said->IsString() && TooLongToRead(i, said.As<v8::String>());
  }
  if (!error->IsObject()) return false;
  v8::TryCatch ignored(iso);
  for (const char* name : {"message", "name"}) {
    v8::HandleScope scope(iso);
    v8::Local<v8::Value> value;
    if (!DataProperty(iso, context, error, name).ToLocal(&value)) continue;
    if (value->IsString() && TooLongToRead(i, value.As<v8::String>())) return true;
    if (value->IsObject()) return true;  // V8 would look into it as well
  }
  return false;
}

// V8's text about an uncaught error, or ours in its place.
std::string UncaughtText(bh_isolate* i, v8::Local<v8::Context> context,
                         v8::Local<v8::Message> message, v8::Local<v8::Value> error) {
  v8::Isolate* iso = i->iso;
  v8::Local<v8::String> said;
  if (!error.IsEmpty() && error->IsObject() && !error->IsNativeError()) {
    // Of these V8 says the class, by names of any length.
    said = error->IsProxy() ? OneByte(iso, "Object") : error.As<v8::Object>()->GetConstructorName();
    if (!TooLongToRead(i, said)) return "Uncaught #<" + Shortened(iso, said, 256) + ">";
  } else if (error.IsEmpty() || !TextTooLong(i, context, error)) {
    said = message->Get();
    if (!TooLongToRead(i, said)) return Shortened(iso, said, 8u << 10);
  }
  return "Uncaught exception with a message too long for this worker's memory limit";
}

// At most `most` characters of a line around `at`, both UTF-16.
std::string Around(v8::Isolate* iso, v8::Local<v8::String> line, uint32_t at, uint32_t most) {
  auto length = static_cast<uint32_t>(line->Length());
  if (TooLongToRead(bh_isolate::From(iso), line)) return {};
  uint32_t from = at > most / 2 && length > most ? std::min(at - most / 2, length) : 0;
  std::vector<uint16_t> units(std::min(most, length - from));
  line->WriteV2(iso, from, static_cast<uint32_t>(units.size()), units.data());
  v8::Local<v8::String> part;
  if (!v8::String::NewFromTwoByte(iso, units.data(), v8::NewStringType::kNormal,
                                  static_cast<int>(units.size())).ToLocal(&part)) {
    return {};
  }
  return ToUtf8(iso, part);
}

}  // namespace

Diagnostic DescribeMessage(v8::Isolate* iso, v8::Local<v8::Context> context,
                           v8::Local<v8::Message> message, v8::Local<v8::Value> error) {
  constexpr uint32_t kExcerpt = 200;
  Diagnostic d;
  bh_isolate* i = bh_isolate::From(iso);
  d.message = UncaughtText(i, context, message, error);
  // The tenant's word too, by a sourceURL comment.
  v8::Local<v8::Value> name = message->GetScriptResourceName();
  if (!name.IsEmpty() && name->IsString() && !TooLongToRead(i, name.As<v8::String>())) {
    d.file = Shortened(iso, name.As<v8::String>(), 1u << 10);
  }
  d.line = static_cast<uint32_t>(message->GetLineNumber(context).FromMaybe(0));
  int column = message->GetStartColumn(context).FromMaybe(-1);
  d.column = column < 0 ? 0 : static_cast<uint32_t>(column) + 1;
  v8::Local<v8::String> line;
  if (message->GetSourceLine(context).ToLocal(&line)) {
    d.excerpt = Around(iso, line, column < 0 ? 0 : static_cast<uint32_t>(column), kExcerpt);
  }
  return d;
}

v8::MaybeLocal<v8::Value> CallHandler(bh_isolate* i, v8::Local<v8::Context> context, Handler h,
                                      uint32_t inv, int argc, v8::Local<v8::Value>* argv) {
  v8::Isolate* iso = i->iso;
  v8::EscapableHandleScope scope(iso);
  v8::TryCatch caught(iso);
  iso->SetContinuationPreservedEmbedderData(v8::Undefined(iso));
  v8::Local<v8::Value> result;
  if (i->handlers[h].Get(iso)->Call(context, v8::Undefined(iso), argc, argv).ToLocal(&result)) {
    return scope.Escape(result);
  }
  if (!caught.HasTerminated() && !i->stopping()) {
    std::string text = std::string("internal: handler ") + kHandlerNames[h] + " threw";
    if (!caught.Message().IsEmpty()) {
      Diagnostic d = DescribeMessage(iso, context, caught.Message(), caught.Exception());
      text += ": " + d.message + " at " + d.file + ":" + std::to_string(d.line);
    }
    bh_record log{};
    log.kind = BH_LOG;
    log.mode = 4;
    log.inv = inv;
    i->out.Append(log, text, {});
    if (h == kRequest) {
      bh_record done{};
      done.kind = BH_FINISHED;
      done.mode = 13;  // internalError, schema/outcome.capnp
      done.inv = inv;
      i->out.Append(done, text, {});
    }
  }
  return {};
}

namespace {

void ReportRejections(bh_isolate* i, v8::Local<v8::Context> context, int kind,
                      std::vector<PendingRejection> list) {
  v8::Isolate* iso = i->iso;
  for (auto& r : list) {
    if (i->stopping()) return;
    v8::HandleScope scope(iso);
    v8::Local<v8::Value> argv[] = {v8::Integer::New(iso, kind), r.promise.Get(iso),
                                   r.reason.Get(iso), r.context.Get(iso)};
    (void)CallHandler(i, context, kRejection, 0, 4, argv);
  }
}

}  // namespace

void RunMicrotasks(bh_isolate* i, v8::Local<v8::Context> context) {
  for (;;) {
    i->iso->PerformMicrotaskCheckpoint();
    if (i->stopping()) return;
    if (i->unhandled.empty() && i->handled_later.empty()) return;
    // Handlers may reject promises of their own; the CPU limit ends a chain of them.
    ReportRejections(i, context, 0, std::exchange(i->unhandled, {}));
    ReportRejections(i, context, 1, std::exchange(i->handled_later, {}));
  }
}

TurnScope::TurnScope(bh_isolate* i, double now_ms)
    : i_(i),
      cpu_start_(ThreadCpuNanos()),
      held_(i),
      counting_(&i->native_bytes),
      isolate_scope_(i->iso),
      handle_scope_(i->iso),
      context_(i->context.Get(i->iso)),
      context_scope_(context_),
      clock_(Advance(i, now_ms)) {
  i->iso->SetStackLimit(StackLimit());
  i->out.Clear();
  i->heap_full = false;
  std::lock_guard<std::mutex> lock(i->turn_mu);
  i->reason.store(BH_REASON_NONE);
  i->in_turn = true;
}

double TurnScope::Advance(bh_isolate* i, double now_ms) {
  // NaN compares false and leaves the clock alone.
  if (now_ms > i->clock_ms) i->clock_ms = now_ms;
  return i->clock_ms;
}

void TurnScope::Settle() {
  // idle runs at most one task of the runtime's own and says whether it wants to be called again;
  // the CPU limit ends a chain of them.
  for (;;) {
    if (i_->stopping()) return;
    RunMicrotasks(i_, context_);
    if (i_->stopping()) return;
    v8::HandleScope scope(i_->iso);
    v8::Local<v8::Value> more;
    if (!CallHandler(i_, context_, kIdle, 0, 0, nullptr).ToLocal(&more) || !more->IsTrue()) break;
  }
  if (!i_->stopping()) RunMicrotasks(i_, context_);
}

// V8 counts external memory as it goes; the heap's figure is that of the last full collection.
// Only when the sum looks too big is the (slow) truth worth finding.
void TurnScope::CheckMemory() {
  v8::Isolate* iso = i_->iso;
  uint64_t counted =
      i_->ExternalBytes(static_cast<uint64_t>(iso->AdjustAmountOfExternalAllocatedMemory(0)));
  i_->external_bytes.store(counted, std::memory_order_relaxed);
  if (i_->memory_limit == 0 || counted + i_->heap_bytes.load() <= i_->memory_limit) return;
  iso->LowMemoryNotification();
  if (i_->MeasureMemory()) i_->StopForMemory();
}

bh_turn* TurnScope::Finish(bool fatal) {
  if (!fatal && !i_->stopping()) CheckMemory();
  {
    std::lock_guard<std::mutex> lock(i_->turn_mu);
    i_->in_turn = false;
  }
  bh_turn* t = &i_->turn;
  t->reason = i_->reason.load();
  t->status = BH_OK;
  if (t->reason != BH_REASON_NONE) {
    i_->iso->CancelTerminateExecution();
    i_->unhandled.clear();
    i_->handled_later.clear();
    t->status = t->reason == BH_REASON_MEMORY ? BH_OUT_OF_MEMORY : BH_TERMINATED;
    if (t->status == BH_OUT_OF_MEMORY) i_->usable = false;
  }
  if (fatal) t->status = BH_FATAL;
  t->next_timer_ms = i_->next_timer_ms;
  t->next_timer_inv = i_->next_timer_inv;
  t->out = i_->out.data();
  t->out_len = i_->out.size();
  t->cpu_ns = ThreadCpuNanos() - cpu_start_;
  return t;
}

namespace {

// Events from outside let FinalizationRegistry callbacks and other tasks of V8 run first: their
// timing then tells nothing that the event itself does not (DESIGN, invariant 7).
template <typename Deliver>
bh_turn* Turn(bh_isolate* i, double now_ms, bool io, Deliver deliver) {
  TurnScope turn(i, now_ms);
  if (!i->usable) return turn.Finish(true);
  if (io) PumpForegroundTasks(i->iso);
  if (!i->stopping()) deliver(turn.context());
  turn.Settle();
  return turn.Finish(false);
}

v8::Local<v8::Value> Number(bh_isolate* i, uint32_t n) {
  return v8::Integer::NewFromUnsigned(i->iso, n);
}

// Bytes for JavaScript, or undefined for none. False: no memory; the turn is stopped.
bool BytesArg(bh_isolate* i, const void* data, size_t len, v8::Local<v8::Value>* out) {
  v8::Local<v8::Uint8Array> bytes;
  if (!Bytes(i->iso, data, len).ToLocal(&bytes)) {
    i->StopForMemory();
    return false;
  }
  *out = bytes;
  return true;
}

std::string_view View(const void* p, size_t n) {
  return n == 0 ? std::string_view() : std::string_view(static_cast<const char*>(p), n);
}

}  // namespace
}  // namespace bulkhead

using bulkhead::CallHandler;

extern "C" {

void bh_drop_output(bh_isolate* i) {
  i->out.Wipe();
  i->turn.out = nullptr;
  i->turn.out_len = 0;
}

bh_turn* bh_request(bh_isolate* i, double now_ms, uint32_t inv, const char* method,
                    size_t method_len, const char* url, size_t url_len, const void* headers,
                    size_t headers_len, uint8_t body_mode, const void* body, size_t body_len,
                    const char* request_id, size_t request_id_len, uint8_t attempt) {
  return bulkhead::Turn(i, now_ms, true, [&](v8::Local<v8::Context> context) {
    v8::Local<v8::Value> bytes = v8::Undefined(i->iso);
    if (body_mode != 0 && !bulkhead::BytesArg(i, body, body_len, &bytes)) return;
    v8::Local<v8::Value> argv[] = {
        bulkhead::Number(i, inv),
        bulkhead::OneByte(i->iso, bulkhead::View(method, method_len)),
        bulkhead::Utf8(i->iso, bulkhead::View(url, url_len)),
        bulkhead::OneByte(i->iso, bulkhead::View(headers, headers_len)),
        bulkhead::Number(i, body_mode),
        bytes,
        bulkhead::OneByte(i->iso, bulkhead::View(request_id, request_id_len)),
        bulkhead::Number(i, attempt)};
    (void)CallHandler(i, context, bulkhead::kRequest, inv, 8, argv);
  });
}

bh_turn* bh_chunk(bh_isolate* i, double now_ms, uint32_t inv, const void* data, size_t len) {
  return bulkhead::Turn(i, now_ms, true, [&](v8::Local<v8::Context> context) {
    v8::Local<v8::Value> bytes;
    if (!bulkhead::BytesArg(i, data, len, &bytes)) return;
    v8::Local<v8::Value> argv[] = {bulkhead::Number(i, inv), bytes};
    (void)CallHandler(i, context, bulkhead::kChunk, inv, 2, argv);
  });
}

bh_turn* bh_end(bh_isolate* i, double now_ms, uint32_t inv) {
  return bulkhead::Turn(i, now_ms, true, [&](v8::Local<v8::Context> context) {
    v8::Local<v8::Value> argv[] = {bulkhead::Number(i, inv)};
    (void)CallHandler(i, context, bulkhead::kEnd, inv, 1, argv);
  });
}

bh_turn* bh_abort(bh_isolate* i, double now_ms, uint32_t inv, uint8_t reason, const char* message,
                  size_t len) {
  return bulkhead::Turn(i, now_ms, true, [&](v8::Local<v8::Context> context) {
    v8::Local<v8::Value> argv[] = {bulkhead::Number(i, inv), bulkhead::Number(i, reason),
                                   bulkhead::Utf8(i->iso, bulkhead::View(message, len))};
    (void)CallHandler(i, context, bulkhead::kAbort, inv, 3, argv);
  });
}

bh_turn* bh_window(bh_isolate* i, double now_ms, uint32_t inv, uint32_t n) {
  return bulkhead::Turn(i, now_ms, true, [&](v8::Local<v8::Context> context) {
    v8::Local<v8::Value> argv[] = {bulkhead::Number(i, inv), bulkhead::Number(i, n)};
    (void)CallHandler(i, context, bulkhead::kWindow, inv, 2, argv);
  });
}

bh_turn* bh_timer(bh_isolate* i, double nominal_ms) {
  // The runtime arms again while it runs what is due.
  i->next_timer_ms = -1;
  return bulkhead::Turn(i, nominal_ms, false, [&](v8::Local<v8::Context> context) {
    // One timer callback a call, microtasks between them, as the HTML standard has it.
    for (;;) {
      v8::HandleScope scope(i->iso);
      v8::Local<v8::Value> argv[] = {v8::Number::New(i->iso, nominal_ms)};
      v8::Local<v8::Value> more;
      if (!CallHandler(i, context, bulkhead::kTimer, 0, 1, argv).ToLocal(&more)) return;
      if (i->stopping() || !more->IsTrue()) return;
      bulkhead::RunMicrotasks(i, context);
      if (i->stopping()) return;
    }
  });
}

bh_turn* bh_op_result(bh_isolate* i, double now_ms, uint32_t op, int ok, const char* meta,
                      size_t meta_len, const void* data, size_t len) {
  return bulkhead::Turn(i, now_ms, true, [&](v8::Local<v8::Context> context) {
    v8::Local<v8::Value> bytes = v8::Undefined(i->iso);
    if (len > 0 && !bulkhead::BytesArg(i, data, len, &bytes)) return;
    v8::Local<v8::Value> argv[] = {bulkhead::Number(i, op), v8::Boolean::New(i->iso, ok != 0),
                                   bulkhead::Utf8(i->iso, bulkhead::View(meta, meta_len)), bytes};
    (void)CallHandler(i, context, bulkhead::kOp, 0, 4, argv);
  });
}

}  // extern "C"
