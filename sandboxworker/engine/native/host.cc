// The host object: what the runtime can ask of native code. Output, timers, operations and the
// async context are here; text, values, clone and URLs have files of their own.
//
// The object never reaches the tenant, but its arguments may come from it. Each function checks
// types without coercing and copies bytes at once.

#include "host.h"

namespace bulkhead {

bool UintArg(const Args& args, int n, uint32_t* out) {
  if (!args[n]->IsUint32()) {
    ThrowTypeError(args.GetIsolate(), "host: an unsigned integer was expected");
    return false;
  }
  *out = args[n].As<v8::Uint32>()->Value();
  return true;
}

bool StringArg(const Args& args, int n, v8::Local<v8::String>* out) {
  if (!args[n]->IsString()) {
    ThrowTypeError(args.GetIsolate(), "host: a string was expected");
    return false;
  }
  *out = args[n].As<v8::String>();
  if (TooLongToRead(bh_isolate::From(args.GetIsolate()), *out)) {
    ThrowRangeError(args.GetIsolate(), "The string is too long for this worker's memory limit");
    return false;
  }
  return true;
}

bool ViewArg(const Args& args, int n, v8::Local<v8::ArrayBufferView>* out) {
  if (!args[n]->IsArrayBufferView()) {
    ThrowTypeError(args.GetIsolate(), "host: a buffer view was expected");
    return false;
  }
  *out = args[n].As<v8::ArrayBufferView>();
  return true;
}

bool ObjectArg(const Args& args, int n, v8::Local<v8::Object>* out) {
  if (!args[n]->IsObject()) {
    ThrowTypeError(args.GetIsolate(), "host: an object was expected");
    return false;
  }
  *out = args[n].As<v8::Object>();
  return true;
}

void SetFunction(v8::Isolate* iso, v8::Local<v8::Context> c, v8::Local<v8::Object> target,
                 const char* name, v8::FunctionCallback callback) {
  v8::Local<v8::Function> f =
      v8::Function::New(c, callback, {}, 0, v8::ConstructorBehavior::kThrow).ToLocalChecked();
  target->Set(c, v8::String::NewFromUtf8(iso, name, v8::NewStringType::kInternalized)
                     .ToLocalChecked(), f).Check();
}

namespace {

bh_record Head(uint8_t kind, uint32_t inv) {
  bh_record r{};
  r.kind = kind;
  r.inv = inv;
  return r;
}

// The turn's output is full. It is the tenant's doing: an exception it can see.
void ThrowFull(v8::Isolate* iso) {
  ThrowRangeError(iso, "Too much output at once (over 32 MiB before the next I/O)");
}

std::string Latin1(v8::Isolate* iso, v8::Local<v8::String> s) {
  std::string out(static_cast<size_t>(s->Length()), '\0');
  s->WriteOneByteV2(iso, 0, static_cast<uint32_t>(out.size()),
                    reinterpret_cast<uint8_t*>(out.data()));
  return out;
}

// respond(inv, status, headersFlat, mode, body)
void Respond(const Args& args) {
  v8::Isolate* iso = args.GetIsolate();
  bh_isolate* i = bh_isolate::From(iso);
  uint32_t inv, status, mode;
  v8::Local<v8::String> headers;
  if (!UintArg(args, 0, &inv) || !UintArg(args, 1, &status) || !StringArg(args, 2, &headers) ||
      !UintArg(args, 3, &mode)) {
    return;
  }
  if (status < 100 || status > 599 || mode > 2) {
    return ThrowRangeError(iso, "host: status or body mode out of range");
  }
  if (!headers->ContainsOnlyOneByte()) {
    return ThrowTypeError(iso, "host: headers must be byte strings");
  }
  bh_record head = Head(BH_HEAD, inv);
  head.status = static_cast<uint16_t>(status);
  head.mode = static_cast<uint8_t>(mode);
  if (static_cast<size_t>(headers->Length()) > i->out.most()) return ThrowFull(iso);
  std::string flat = Latin1(iso, headers);
  bool fits = false;
  if (args[4]->IsUndefined()) {
    fits = i->out.Append(head, flat, {});
  } else if (args[4]->IsString()) {
    v8::Local<v8::String> body;
    if (!StringArg(args, 4, &body)) return;
    size_t len = body->Utf8LengthV2(iso);
    uint8_t* at = i->out.Begin(head, flat, len);
    fits = at != nullptr;
    if (fits && len > 0) {
      body->WriteUtf8V2(iso, reinterpret_cast<char*>(at), len,
                        v8::String::WriteFlags::kReplaceInvalidUtf8);
    }
  } else {
    v8::Local<v8::ArrayBufferView> body;
    if (!ViewArg(args, 4, &body)) return;
    fits = i->out.Append(head, flat, ViewBytes(body).view());
  }
  if (!fits) ThrowFull(iso);
}

// chunk(inv, u8). The runtime keeps the window itself: nothing is returned.
void Chunk(const Args& args) {
  uint32_t inv;
  v8::Local<v8::ArrayBufferView> data;
  if (!UintArg(args, 0, &inv) || !ViewArg(args, 1, &data)) return;
  bh_isolate* i = bh_isolate::From(args.GetIsolate());
  if (!i->out.Chunk(Head(BH_CHUNK, inv), ViewBytes(data).view())) {
    ThrowFull(args.GetIsolate());
  }
}

void Plain(const Args& args, uint8_t kind) {
  uint32_t inv;
  if (!UintArg(args, 0, &inv)) return;
  if (!bh_isolate::From(args.GetIsolate())->out.Append(Head(kind, inv), {}, {})) {
    ThrowFull(args.GetIsolate());
  }
}

void End(const Args& args) { Plain(args, BH_END); }

void Refuse(const Args& args) { Plain(args, BH_REFUSE); }

// What people read is cut here: the wire's own limit is 8 KiB.
constexpr size_t kMessageBytes = 8u << 10;

void Abort(const Args& args) {
  uint32_t inv;
  v8::Local<v8::String> message;
  if (!UintArg(args, 0, &inv) || !StringArg(args, 1, &message)) return;
  v8::Isolate* iso = args.GetIsolate();
  if (!bh_isolate::From(iso)->out.Append(Head(BH_ABORT, inv),
                                         Shortened(iso, message, 1u << 10), {})) {
    ThrowFull(iso);
  }
}

void Credit(const Args& args) {
  bh_record r = Head(BH_CREDIT, 0);
  uint32_t inv, n;
  if (!UintArg(args, 0, &inv) || !UintArg(args, 1, &n)) return;
  r.inv = inv;
  r.a = n;
  if (!bh_isolate::From(args.GetIsolate())->out.Append(r, {}, {})) ThrowFull(args.GetIsolate());
}

void Finish(const Args& args) {
  uint32_t inv, outcome;
  v8::Local<v8::String> message;
  if (!UintArg(args, 0, &inv) || !UintArg(args, 1, &outcome) || !StringArg(args, 2, &message)) {
    return;
  }
  v8::Isolate* iso = args.GetIsolate();
  if (outcome == 0 || outcome > 255) return ThrowRangeError(iso, "host: no such outcome");
  bh_record r = Head(BH_FINISHED, inv);
  r.mode = static_cast<uint8_t>(outcome);
  if (!bh_isolate::From(iso)->out.Append(r, Shortened(iso, message, kMessageBytes), {})) {
    ThrowFull(iso);
  }
}

void Log(const Args& args) {
  constexpr size_t kLineBytes = 64u << 10;  // longer lines are cut; the tenant's limit is Go's
  uint32_t inv, level;
  v8::Local<v8::String> text;
  if (!UintArg(args, 0, &inv) || !UintArg(args, 1, &level) || !StringArg(args, 2, &text)) return;
  v8::Isolate* iso = args.GetIsolate();
  if (level > 4) return ThrowRangeError(iso, "host: no such log level");
  bh_record r = Head(BH_LOG, inv);
  r.mode = static_cast<uint8_t>(level);
  if (!bh_isolate::From(iso)->out.Append(r, Shortened(iso, text, kLineBytes), {})) ThrowFull(iso);
}

// timer(due, inv): wake the runtime at JS time `due` (negative: not at all) on behalf of `inv`.
void Timer(const Args& args) {
  if (!args[0]->IsNumber()) {
    return ThrowTypeError(args.GetIsolate(), "host: a number was expected");
  }
  double due = args[0].As<v8::Number>()->Value();
  bh_isolate* i = bh_isolate::From(args.GetIsolate());
  i->next_timer_ms = due >= 0 ? due : -1;  // NaN is none
  i->next_timer_inv = args[1]->IsUint32() ? args[1].As<v8::Uint32>()->Value() : 0;
}

void Now(const Args& args) {
  args.GetReturnValue().Set(bh_isolate::From(args.GetIsolate())->clock_ms);
}

// op(code, id, inv, meta, u8): done in Go after the turn, answered by handlers.op.
void Op(const Args& args) {
  v8::Isolate* iso = args.GetIsolate();
  uint32_t code, id, inv;
  v8::Local<v8::String> meta;
  if (!UintArg(args, 0, &code) || !UintArg(args, 1, &id) || !UintArg(args, 2, &inv) ||
      !StringArg(args, 3, &meta)) {
    return;
  }
  bh_record r = Head(BH_OP, inv);
  r.a = code;
  r.id = id;
  // Looked at before it is copied: what does not fit the output would be held twice for nothing.
  if (meta->Utf8LengthV2(iso) > bh_isolate::From(iso)->out.most()) return ThrowFull(iso);
  bool fits;
  std::string text = ToUtf8(iso, meta);
  if (args[4]->IsUndefined()) {
    fits = bh_isolate::From(iso)->out.Append(r, text, {});
  } else {
    v8::Local<v8::ArrayBufferView> data;
    if (!ViewArg(args, 4, &data)) return;
    fits = bh_isolate::From(iso)->out.Append(r, text, ViewBytes(data).view());
  }
  if (!fits) ThrowFull(iso);
}

// readable(string): whether the host would read it. The runtime asks before it does so itself.
void Readable(const Args& args) {
  if (!args[0]->IsString()) {
    return ThrowTypeError(args.GetIsolate(), "host: a string was expected");
  }
  args.GetReturnValue().Set(
      !TooLongToRead(bh_isolate::From(args.GetIsolate()), args[0].As<v8::String>()));
}

void GetContext(const Args& args) {
  args.GetReturnValue().Set(args.GetIsolate()->GetContinuationPreservedEmbedderData());
}

void SetContext(const Args& args) {
  args.GetIsolate()->SetContinuationPreservedEmbedderData(args[0]);
}

void LazyGetter(v8::Local<v8::Name> name, const v8::PropertyCallbackInfo<v8::Value>& info) {
  v8::Isolate* iso = info.GetIsolate();
  v8::Local<v8::Value> argv[] = {name}, value;
  if (info.Data().As<v8::Function>()
          ->Call(iso->GetCurrentContext(), v8::Undefined(iso), 1, argv).ToLocal(&value)) {
    info.GetReturnValue().Set(value);
  }
}

// defineLazy(obj, name, fn): a data property whose value is made when it is first read.
void DefineLazy(const Args& args) {
  v8::Isolate* iso = args.GetIsolate();
  v8::Local<v8::Object> object;
  if (!ObjectArg(args, 0, &object)) return;
  if (!args[1]->IsName() || !args[2]->IsFunction()) {
    return ThrowTypeError(iso, "host: defineLazy takes an object, a name and a function");
  }
  if (args[1]->IsString() && TooLongToRead(bh_isolate::From(iso), args[1].As<v8::String>())) {
    return ThrowRangeError(iso, "host: the name is too long");
  }
  v8::Maybe<bool> done = object->SetLazyDataProperty(
      iso->GetCurrentContext(), args[1].As<v8::Name>(), LazyGetter, args[2], v8::DontEnum);
  if (done.IsJust()) args.GetReturnValue().Set(done.FromJust());
}

}  // namespace

v8::Local<v8::Object> MakeHost(v8::Isolate* iso, v8::Local<v8::Context> c) {
  v8::Local<v8::Object> host = v8::Object::New(iso, v8::Null(iso), nullptr, nullptr, 0);
  const struct {
    const char* name;
    v8::FunctionCallback callback;
  } functions[] = {
      {"respond", Respond}, {"chunk", Chunk},           {"end", End},
      {"abort", Abort},     {"credit", Credit},         {"refuse", Refuse},
      {"finish", Finish},   {"log", Log},               {"timer", Timer},
      {"now", Now},         {"op", Op},                 {"getContext", GetContext},
      {"setContext", SetContext}, {"defineLazy", DefineLazy}, {"readable", Readable},
  };
  for (const auto& f : functions) SetFunction(iso, c, host, f.name, f.callback);
  InstallTextFunctions(iso, c, host);
  InstallValueFunctions(iso, c, host);
  InstallCloneFunctions(iso, c, host);
  InstallUrlFunctions(iso, c, host);
  InstallUrlPatternFunctions(iso, c, host);
  InstallResizableFunctions(iso, c, host);
  return host;
}

}  // namespace bulkhead
