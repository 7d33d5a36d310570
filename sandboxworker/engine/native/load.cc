// The turn that loads a tenant: compile its bundle, evaluate it, hand it to the runtime, and say
// where it went wrong if it did.

#include <algorithm>

#include "codecache.h"
#include "modules.h"
#include "turn.h"

namespace bulkhead {
namespace {

void Fail(bh_isolate* i, const Diagnostic& d) {
  bh_record r{};
  r.kind = BH_DIAGNOSTIC;
  r.a = d.line;
  r.id = d.column;
  i->out.Append(r, d.file, d.message);
  bh_record more{};
  more.kind = BH_EXCERPT;
  i->out.Append(more, d.excerpt, d.stack);
}

void FailPlain(bh_isolate* i, const std::string& file, const std::string& message) {
  Diagnostic d;
  d.file = file;
  d.message = message;
  Fail(i, d);
}

// Reports an exception of the tenant's start-up code: place from V8, text from the runtime.
void FailWith(bh_isolate* i, v8::Local<v8::Context> context, v8::Local<v8::Value> error,
              v8::Local<v8::Message> message, const std::string& file) {
  if (i->stopping()) return;  // the turn's status says it all
  v8::Isolate* iso = i->iso;
  if (message.IsEmpty()) message = v8::Exception::CreateMessage(iso, error);
  Diagnostic d = DescribeMessage(iso, context, message, error);
  if (d.file.empty() || d.file == "bulkhead:runtime") {
    d = Diagnostic{.file = ResourceName(file), .excerpt = {}, .message = d.message, .stack = {}};
  }
  v8::Local<v8::Value> argv[] = {error}, text;
  if (CallHandler(i, context, kDescribeError, 0, 1, argv).ToLocal(&text) && text->IsString()) {
    v8::Local<v8::String> stack = text.As<v8::String>();
    if (!TooLongToRead(i, stack)) d.stack = Shortened(iso, stack, 8u << 10);
  }
  Fail(i, d);
}

// Compiles everything the main module imports statically, so that an import of nothing is
// reported at its place. False: a diagnostic was written.
bool CompileGraph(bh_isolate* i, v8::Local<v8::Context> context, size_t main) {
  v8::Isolate* iso = i->iso;
  std::vector<size_t> todo = {main};
  std::vector<bool> seen(i->modules.size());
  seen[main] = true;
  while (!todo.empty()) {
    v8::HandleScope scope(iso);
    size_t at = todo.back();
    todo.pop_back();
    std::string name = i->modules[at].name;
    v8::Local<v8::Module> module;
    {
      v8::TryCatch caught(iso);
      if (!Compile(i, context, at).ToLocal(&module)) {
        FailWith(i, context, caught.Exception(), caught.Message(), name);
        return false;
      }
    }
    if (!module->IsSourceTextModule()) continue;
    v8::Local<v8::FixedArray> requests = module->GetModuleRequests();
    for (int n = 0; n < requests->Length(); n++) {
      auto request = requests->Get(context, n).As<v8::ModuleRequest>();
      std::string wanted = ToUtf8(iso, request->GetSpecifier());
      size_t to = Resolve(i, wanted, name);
      if (to == kNotFound) {
        v8::Location place = module->SourceOffsetToLocation(request->GetSourceOffset());
        Diagnostic d;
        d.file = ResourceName(name);
        d.line = static_cast<uint32_t>(place.GetLineNumber()) + 1;
        d.column = static_cast<uint32_t>(place.GetColumnNumber()) + 1;
        d.message = "Cannot find module \"" + wanted.substr(0, 200) + "\" in this worker's bundle";
        Fail(i, d);
        return false;
      }
      if (to >= seen.size()) seen.resize(to + 1);  // a module of the runtime's
      if (!seen[to]) {
        seen[to] = true;
        todo.push_back(to);
      }
    }
  }
  return true;
}

// Evaluates the main module until its promise settles. Top-level await may wait for microtasks,
// not for I/O or timers: there are none before the first request.
bool Evaluate(bh_isolate* i, v8::Local<v8::Context> context, size_t main) {
  v8::Isolate* iso = i->iso;
  const std::string name = i->modules[main].name;
  v8::Local<v8::Module> module = i->modules[main].module.Get(iso);
  v8::Local<v8::Value> result;
  {
    v8::TryCatch caught(iso);
    if (module->InstantiateModule(context, ResolveImport).IsNothing() ||
        !module->Evaluate(context).ToLocal(&result) || !result->IsPromise()) {
      FailWith(i, context, caught.Exception(), caught.Message(), name);
      return false;
    }
  }
  v8::Local<v8::Promise> done = result.As<v8::Promise>();
  // Its failure is ours to report, not an unhandled rejection: the report would read the error's
  // stack, and V8 forgets the place of an error whose stack has been read.
  done->MarkAsHandled();
  std::erase_if(i->unhandled, [&](const PendingRejection& r) { return r.promise == done; });
  RunMicrotasks(i, context);
  if (i->stopping()) return false;
  if (done->State() == v8::Promise::kPending) {
    PumpForegroundTasks(iso);
    RunMicrotasks(i, context);
    if (i->stopping()) return false;
  }
  switch (done->State()) {
    case v8::Promise::kFulfilled:
      return true;
    case v8::Promise::kRejected:
      FailWith(i, context, done->Result(), {}, name);
      return false;
    case v8::Promise::kPending: {
      auto stalled = module->GetStalledTopLevelAwaitMessages(iso);
      Diagnostic d;
      if (!stalled.second.empty()) d = DescribeMessage(iso, context, stalled.second[0], {});
      if (d.file.empty()) d.file = ResourceName(name);
      d.message = "Top-level await never settles: start-up code can wait for neither I/O nor timers";
      Fail(i, d);
      return false;
    }
  }
  return false;
}

v8::MaybeLocal<v8::Array> EnvArray(bh_isolate* i) {
  v8::Isolate* iso = i->iso;
  std::vector<v8::Local<v8::Value>> flat;
  for (const EnvEntry& e : i->env) {
    flat.push_back(Utf8(iso, e.name));
    flat.push_back(OneByte(iso, e.json ? "json" : "text"));
    flat.push_back(Utf8(iso, e.value));
  }
  return v8::Array::New(iso, flat.data(), flat.size());
}

void Load(bh_isolate* i, v8::Local<v8::Context> context, const std::string& main_name) {
  v8::Isolate* iso = i->iso;
  context->AllowCodeGenerationFromStrings(i->eval_allowed);
  size_t main = Lookup(i, main_name);
  if (main == kNotFound || i->modules[main].kind != kEsm) {
    return FailPlain(i, ResourceName(main_name), "The bundle has no JavaScript module of this name");
  }
  if (CallHandler(i, context, kStart, 0, 0, nullptr).IsEmpty()) {
    if (!i->stopping()) FailPlain(i, ResourceName(main_name), "internal: the runtime did not start");
    return;
  }
  if (!CompileGraph(i, context, main) || !Evaluate(i, context, main)) return;

  v8::Local<v8::Array> env;
  if (!EnvArray(i).ToLocal(&env)) return;
  v8::Local<v8::Value> argv[] = {i->modules[main].module.Get(iso)->GetModuleNamespace(), env};
  v8::Local<v8::Value> names;
  v8::TryCatch caught(iso);
  iso->SetContinuationPreservedEmbedderData(v8::Undefined(iso));
  if (!i->handlers[kLoad].Get(iso)->Call(context, v8::Undefined(iso), 2, argv).ToLocal(&names)) {
    return FailWith(i, context, caught.Exception(), caught.Message(), main_name);
  }
  for (EnvEntry& e : i->env) {
    i->bundle_bytes -= e.name.size() + e.value.size();
    explicit_bzero(e.value.data(), e.value.size());
  }
  i->env = {};
  std::string joined;
  if (names->IsArray()) {
    v8::Local<v8::Array> list = names.As<v8::Array>();
    for (uint32_t n = 0; n < std::min(list->Length(), 64u); n++) {
      v8::Local<v8::Value> item;
      if (!list->Get(context, n).ToLocal(&item)) return;
      if (!item->IsString()) continue;
      if (TooLongToRead(i, item.As<v8::String>())) continue;
      if (!joined.empty()) joined += '\n';
      joined += Shortened(iso, item.As<v8::String>(), 64);
    }
  }
  bh_record r{};
  r.kind = BH_LOADED;
  i->out.Append(r, joined, {});
}

}  // namespace
}  // namespace bulkhead

extern "C" {

void bh_set_limits(bh_isolate* i, uint64_t memory, int eval_allowed, int wasm_allowed,
                   uint32_t timers, uint32_t pending) {
  i->memory_limit = memory;
  i->out.Limit(memory);
  i->eval_allowed = eval_allowed != 0;
  i->wasm_allowed = wasm_allowed != 0;
  v8::Isolate* iso = i->iso;
  bulkhead::Held held(i);
  v8::Isolate::Scope isolate_scope(iso);
  v8::HandleScope handle_scope(iso);
  v8::Local<v8::Context> context = i->context.Get(iso);
  v8::Context::Scope context_scope(context);
  i->MeasureMemory();  // sets the cap of its buffers
  if (!i->host.IsEmpty()) {
    auto set = [&](const char* name, uint32_t n) {
      i->host.Get(iso)
          ->Set(context, bulkhead::OneByte(iso, name), v8::Integer::NewFromUnsigned(iso, n))
          .Check();
    };
    set("timerLimit", timers);
    set("pendingLimit", pending);
  }
}

void bh_add_module(bh_isolate* i, const char* name, size_t name_len, uint8_t kind,
                   const void* code, size_t code_len) {
  bulkhead::BundleModule m;
  m.name = std::string(name, name_len);
  m.kind = kind;
  m.code = std::string(static_cast<const char*>(code), code_len);
  m.source_len = static_cast<uint32_t>(code_len);
  m.source = kind == bulkhead::kEsm ? bulkhead::Fingerprint(m.code) : 0;
  i->module_by_name.emplace(m.name, i->modules.size());  // of two with one name the first counts
  i->bundle_bytes += m.code.size();
  i->modules.push_back(std::move(m));
}

void bh_add_env(bh_isolate* i, const char* name, size_t name_len, int json, const char* value,
                size_t value_len) {
  i->bundle_bytes += name_len + value_len;
  i->env.push_back({std::string(name, name_len), json != 0, std::string(value, value_len)});
}

bh_turn* bh_load(bh_isolate* i, double now_ms, const char* main_name, size_t main_len) {
  std::string main(main_name, main_len);
  bulkhead::TurnScope turn(i, now_ms);
  if (!i->usable) return turn.Finish(true);
  bulkhead::Load(i, turn.context(), main);
  turn.Settle();
  if (!i->stopping()) i->MeasureMemory();
  return turn.Finish(false);
}

}  // extern "C"
