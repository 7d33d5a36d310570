// ES modules out of a tenant's bundle: resolution, compilation, synthetic modules, dynamic
// import, and the turn that loads a tenant.
//
// The bundle is all there is: a specifier that names nothing in it is an error, and resolution
// never touches a file.

#include <algorithm>
#include <memory>

#include "turn.h"

namespace bulkhead {
namespace {

// As schema/control.capnp, Module.Kind.
enum Kind : uint8_t { kEsm = 0, kText = 1, kData = 2, kJson = 3, kWasm = 4 };

constexpr size_t kNotFound = SIZE_MAX;

// Stack traces say "worker.js:3:7": the name without the bundle's leading slash.
std::string ResourceName(const std::string& name) {
  return !name.empty() && name[0] == '/' ? name.substr(1) : name;
}

// Joins `specifier` to the folder of `referrer` and takes "." and ".." out of it, as URL
// resolution does for paths. ".." never climbs above the root.
std::string ResolvePath(std::string_view specifier, std::string_view referrer) {
  std::string joined;
  if (specifier[0] == '/') {
    joined = specifier;
  } else {
    joined = std::string(referrer.substr(0, referrer.rfind('/') + 1)) + std::string(specifier);
  }
  std::vector<std::string_view> parts;
  for (size_t from = 1; from <= joined.size();) {
    size_t to = std::min(joined.find('/', from), joined.size());
    std::string_view part = std::string_view(joined).substr(from, to - from);
    from = to + 1;
    if (part == ".." && !parts.empty()) parts.pop_back();
    if (part != "." && part != ".." && !part.empty()) parts.push_back(part);
  }
  std::string out;
  for (std::string_view part : parts) out.append("/").append(part);
  return out.empty() ? "/" : out;
}

size_t Lookup(bh_isolate* i, const std::string& name) {
  auto it = i->module_by_name.find(name);
  return it == i->module_by_name.end() ? kNotFound : it->second;
}

size_t Resolve(bh_isolate* i, const std::string& specifier, const std::string& referrer) {
  if (specifier.empty()) return kNotFound;
  constexpr std::string_view kFile = "file://";
  std::string_view s = specifier;
  if (s.substr(0, kFile.size()) == kFile && s.size() > kFile.size()) s.remove_prefix(kFile.size());
  if (s[0] == '/' || s.substr(0, 2) == "./" || s.substr(0, 3) == "../" || s == "." || s == "..") {
    return Lookup(i, ResolvePath(s, referrer));
  }
  size_t exact = Lookup(i, specifier);  // "node:buffer" and the like, when a bundle has them
  return exact != kNotFound ? exact : Lookup(i, "/" + specifier);
}

size_t IndexOf(bh_isolate* i, v8::Local<v8::Module> module) {
  auto range = i->module_by_hash.equal_range(module->GetIdentityHash());
  for (auto it = range.first; it != range.second; ++it) {
    if (i->modules[it->second].module == module) return it->second;
  }
  return kNotFound;
}

void ThrowNotInBundle(v8::Isolate* iso, const std::string& specifier,
                      const std::string& referrer) {
  std::string text = "Cannot find module \"" + specifier.substr(0, 200) + "\" imported from \"" +
                     ResourceName(referrer).substr(0, 200) + "\" in this worker's bundle";
  iso->ThrowException(v8::Exception::Error(Utf8(iso, text)));
}

// Import attributes: `stride` values an attribute, key and value first. Only "type" is known, and
// it must agree with what the module is (TC39 import attributes; "text" and "bytes" likewise).
bool CheckAttributes(v8::Isolate* iso, v8::Local<v8::Context> context,
                     v8::Local<v8::FixedArray> attributes, int stride, uint8_t kind) {
  for (int n = 0; n + 1 < attributes->Length(); n += stride) {
    std::string key = ToUtf8(iso, attributes->Get(context, n).As<v8::String>());
    std::string value = ToUtf8(iso, attributes->Get(context, n + 1).As<v8::String>());
    bool fits = key == "type" && ((value == "json" && kind == kJson) ||
                                  (value == "text" && kind == kText) ||
                                  (value == "bytes" && kind == kData));
    if (!fits) {
      iso->ThrowException(v8::Exception::TypeError(
          Utf8(iso, "Import attribute " + key.substr(0, 100) + ": \"" + value.substr(0, 100) +
                        "\" does not fit this module")));
      return false;
    }
  }
  return true;
}

v8::MaybeLocal<v8::Value> EvaluateSynthetic(v8::Local<v8::Context> context,
                                            v8::Local<v8::Module> module) {
  v8::Isolate* iso = v8::Isolate::GetCurrent();
  bh_isolate* i = bh_isolate::From(iso);
  size_t at = IndexOf(i, module);
  if (at == kNotFound) {
    ThrowTypeError(iso, "BUG: a synthetic module that is not in the bundle");
    return {};
  }
  if (module->SetSyntheticModuleExport(iso, OneByte(iso, "default"), i->modules[at].value.Get(iso))
          .IsNothing()) {
    return {};
  }
  i->modules[at].value.Reset();
  v8::Local<v8::Promise::Resolver> done;
  if (!v8::Promise::Resolver::New(context).ToLocal(&done) ||
      done->Resolve(context, v8::Undefined(iso)).IsNothing()) {
    return {};
  }
  return done->GetPromise();
}

// The default export of a module that is not JavaScript.
v8::MaybeLocal<v8::Value> SyntheticValue(bh_isolate* i, v8::Local<v8::Context> context,
                                         const BundleModule& m) {
  v8::Isolate* iso = i->iso;
  switch (m.kind) {
    case kText:
      return Utf8(iso, m.code);
    case kJson:
      return v8::JSON::Parse(context, Utf8(iso, m.code));
    case kData: {
      v8::Local<v8::Uint8Array> bytes;
      if (!Bytes(iso, m.code.data(), m.code.size()).ToLocal(&bytes)) {
        ThrowRangeError(iso, "Array buffer allocation failed");
        return {};
      }
      return bytes->Buffer();
    }
    case kWasm: {
      if (!i->wasm_allowed) {
        ThrowTypeError(iso, "WebAssembly is off for this worker (limits: wasm; class of shard)");
        return {};
      }
      if (WasmIsShared(m.code)) {
        ThrowTypeError(iso, "Shared WebAssembly memories are off");
        return {};
      }
      v8::Local<v8::WasmModuleObject> module;
      if (!v8::WasmModuleObject::Compile(
               iso, {reinterpret_cast<const uint8_t*>(m.code.data()), m.code.size()})
               .ToLocal(&module)) {
        return {};
      }
      return module;
    }
    default:
      ThrowTypeError(iso, "The bundle holds a module of an unknown kind");
      return {};
  }
}

bool IsAscii(const std::string& s) {
  return std::all_of(s.begin(), s.end(), [](char c) { return static_cast<signed char>(c) >= 0; });
}

// The module at `at`, compiled on first use. Empty with an exception pending when it is wrong.
v8::MaybeLocal<v8::Module> Compile(bh_isolate* i, v8::Local<v8::Context> context, size_t at) {
  v8::Isolate* iso = i->iso;
  BundleModule& m = i->modules[at];
  if (!m.module.IsEmpty()) return m.module.Get(iso);
  v8::Local<v8::Module> module;
  v8::Local<v8::String> name = Utf8(iso, ResourceName(m.name));
  if (m.kind == kEsm) {
    v8::ScriptOrigin origin(name, 0, 0, false, -1, {}, false, false, true);
    v8::ScriptCompiler::Source source(
        IsAscii(m.code) ? OneByte(iso, m.code) : Utf8(iso, m.code), origin);
    if (!v8::ScriptCompiler::CompileModule(iso, &source).ToLocal(&module)) return {};
  } else {
    v8::Local<v8::Value> value;
    if (!SyntheticValue(i, context, m).ToLocal(&value)) return {};
    const v8::Local<v8::String> exports[] = {OneByte(iso, "default")};
    module = v8::Module::CreateSyntheticModule(iso, name, {exports, 1}, EvaluateSynthetic);
    m.value.Reset(iso, value);
  }
  m.module.Reset(iso, module);
  i->module_by_hash.emplace(module->GetIdentityHash(), at);
  explicit_bzero(m.code.data(), m.code.size());  // V8 has its copy
  m.code = std::string();
  return module;
}

v8::MaybeLocal<v8::Module> ResolveImport(v8::Local<v8::Context> context,
                                         v8::Local<v8::String> specifier,
                                         v8::Local<v8::FixedArray> attributes,
                                         v8::Local<v8::Module> referrer) {
  v8::Isolate* iso = v8::Isolate::GetCurrent();
  bh_isolate* i = bh_isolate::From(iso);
  size_t from = IndexOf(i, referrer);
  std::string base = from == kNotFound ? "/" : i->modules[from].name;
  std::string wanted = ToUtf8(iso, specifier);
  size_t at = Resolve(i, wanted, base);
  if (at == kNotFound) {
    ThrowNotInBundle(iso, wanted, base);
    return {};
  }
  if (!CheckAttributes(iso, context, attributes, 3, i->modules[at].kind)) return {};
  return Compile(i, context, at);
}

void ReturnData(const Args& args) { args.GetReturnValue().Set(args.Data()); }

// Second half of import(): a microtask, because a module may import itself dynamically while it
// is being evaluated, and V8 aborts when Evaluate is entered twice.
void FinishImport(const Args& args) {
  v8::Isolate* iso = args.GetIsolate();
  bh_isolate* i = bh_isolate::From(iso);
  v8::Local<v8::Context> context = iso->GetCurrentContext();
  v8::Local<v8::Array> job = args.Data().As<v8::Array>();
  v8::Local<v8::Value> promise, index, evaluated;
  if (!job->Get(context, 0).ToLocal(&promise) || !job->Get(context, 1).ToLocal(&index)) return;
  auto resolver = promise.As<v8::Promise::Resolver>();
  size_t at = index.As<v8::Uint32>()->Value();

  v8::TryCatch caught(iso);
  v8::Local<v8::Module> module;
  v8::Local<v8::Function> give_namespace;
  v8::Local<v8::Promise> done;
  if (Compile(i, context, at).ToLocal(&module) &&
      module->InstantiateModule(context, ResolveImport).IsJust() &&
      module->Evaluate(context).ToLocal(&evaluated) && evaluated->IsPromise() &&
      v8::Function::New(context, ReturnData, module->GetModuleNamespace())
          .ToLocal(&give_namespace) &&
      evaluated.As<v8::Promise>()->Then(context, give_namespace).ToLocal(&done)) {
    (void)resolver->Resolve(context, done).IsJust();
    return;
  }
  if (caught.HasCaught() && !caught.HasTerminated()) {
    (void)resolver->Reject(context, caught.Exception()).IsJust();
  }
}

v8::MaybeLocal<v8::Promise> ImportDynamically(v8::Local<v8::Context> context,
                                              v8::Local<v8::Data>,
                                              v8::Local<v8::Value> resource_name,
                                              v8::Local<v8::String> specifier,
                                              v8::Local<v8::FixedArray> attributes) {
  v8::Isolate* iso = v8::Isolate::GetCurrent();
  bh_isolate* i = bh_isolate::From(iso);
  v8::Local<v8::Promise::Resolver> resolver;
  if (!v8::Promise::Resolver::New(context).ToLocal(&resolver)) return {};
  std::string base = "/";
  if (resource_name->IsString()) {
    std::string name = ToUtf8(iso, resource_name.As<v8::String>());
    if (Lookup(i, "/" + name) != kNotFound) base = "/" + name;
  }
  std::string wanted = ToUtf8(iso, specifier);
  size_t at = Resolve(i, wanted, base);
  v8::TryCatch caught(iso);
  if (at == kNotFound) {
    ThrowNotInBundle(iso, wanted, base);
  } else if (CheckAttributes(iso, context, attributes, 2, i->modules[at].kind)) {
    v8::Local<v8::Value> parts[] = {resolver,
                                    v8::Integer::NewFromUnsigned(iso, static_cast<uint32_t>(at))};
    v8::Local<v8::Function> finish;
    if (v8::Function::New(context, FinishImport, v8::Array::New(iso, parts, 2)).ToLocal(&finish)) {
      iso->EnqueueMicrotask(finish);
    }
  }
  if (caught.HasTerminated()) {
    caught.ReThrow();
    return {};
  }
  if (caught.HasCaught() && resolver->Reject(context, caught.Exception()).IsNothing()) return {};
  return resolver->GetPromise();
}

void InitImportMeta(v8::Local<v8::Context> context, v8::Local<v8::Module> module,
                    v8::Local<v8::Object> meta) {
  v8::Isolate* iso = v8::Isolate::GetCurrent();
  bh_isolate* i = bh_isolate::From(iso);
  size_t at = IndexOf(i, module);
  if (at == kNotFound) return;
  const std::string& name = i->modules[at].name;
  std::string url = !name.empty() && name[0] == '/' ? "file://" + name : name;
  (void)meta->CreateDataProperty(context, OneByte(iso, "url"), Utf8(iso, url)).IsJust();
}

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
  Diagnostic d = DescribeMessage(iso, context, message);
  if (d.file.empty() || d.file == "bulkhead:runtime") {
    d = Diagnostic{.file = ResourceName(file), .excerpt = {}, .message = d.message, .stack = {}};
  }
  v8::Local<v8::Value> argv[] = {error}, text;
  if (CallHandler(i, context, kDescribeError, 0, 1, argv).ToLocal(&text) && text->IsString()) {
    d.stack = ToUtf8(iso, text.As<v8::String>()).substr(0, 8u << 10);
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
  done->MarkAsHandled();  // its failure is ours to report, not an unhandled rejection
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
      if (!stalled.second.empty()) d = DescribeMessage(iso, context, stalled.second[0]);
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
  for (EnvEntry& e : i->env) explicit_bzero(e.value.data(), e.value.size());
  i->env.clear();
  std::string joined;
  if (names->IsArray()) {
    v8::Local<v8::Array> list = names.As<v8::Array>();
    for (uint32_t n = 0; n < std::min(list->Length(), 64u); n++) {
      v8::Local<v8::Value> item;
      if (!list->Get(context, n).ToLocal(&item)) return;
      if (!item->IsString()) continue;
      if (!joined.empty()) joined += '\n';
      joined += ToUtf8(iso, item.As<v8::String>());
    }
  }
  bh_record r{};
  r.kind = BH_LOADED;
  i->out.Append(r, joined, {});
}

}  // namespace

void InstallModuleCallbacks(v8::Isolate* iso) {
  iso->SetHostImportModuleDynamicallyCallback(ImportDynamically);
  iso->SetHostInitializeImportMetaObjectCallback(InitImportMeta);
}

}  // namespace bulkhead

extern "C" {

void bh_set_limits(bh_isolate* i, uint64_t memory, int eval_allowed, int wasm_allowed,
                   uint32_t timers) {
  i->memory_limit = memory;
  i->eval_allowed = eval_allowed != 0;
  i->wasm_allowed = wasm_allowed != 0;
  v8::Isolate* iso = i->iso;
  v8::Locker locker(iso);
  v8::Isolate::Scope isolate_scope(iso);
  v8::HandleScope handle_scope(iso);
  v8::Local<v8::Context> context = i->context.Get(iso);
  v8::Context::Scope context_scope(context);
  i->MeasureMemory();  // sets the cap of its buffers
  if (!i->host.IsEmpty()) {
    i->host.Get(iso)
        ->Set(context, bulkhead::OneByte(iso, "timerLimit"),
              v8::Integer::NewFromUnsigned(iso, timers))
        .Check();
  }
}

void bh_add_module(bh_isolate* i, const char* name, size_t name_len, uint8_t kind,
                   const void* code, size_t code_len) {
  bulkhead::BundleModule m;
  m.name = std::string(name, name_len);
  m.kind = kind;
  m.code = std::string(static_cast<const char*>(code), code_len);
  i->module_by_name.emplace(m.name, i->modules.size());  // of two with one name the first counts
  i->modules.push_back(std::move(m));
}

void bh_add_env(bh_isolate* i, const char* name, size_t name_len, int json, const char* value,
                size_t value_len) {
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
