// ES modules out of a tenant's bundle: resolution, compilation, synthetic modules, dynamic
// import.
//
// The bundle is all there is: a specifier that names nothing in it is an error, and resolution
// never touches a file.

#include <algorithm>
#include <memory>

#include "modules.h"

namespace bulkhead {
// Stack traces say "worker.js:3:7": the name without the bundle's leading slash.
std::string ResourceName(const std::string& name) {
  return !name.empty() && name[0] == '/' ? name.substr(1) : name;
}

namespace {

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

// The runtime's module of this name: an object whose own properties are the exports. kNotFound for none.
size_t Builtin(bh_isolate* i, const std::string& name) {
  v8::Isolate* iso = i->iso;
  v8::HandleScope scope(iso);
  v8::Local<v8::Context> context = iso->GetCurrentContext();
  v8::Local<v8::Value> argv[] = {Utf8(iso, name)}, exports;
  v8::TryCatch caught(iso);
  if (!i->handlers[kBuiltin].Get(iso)->Call(context, v8::Undefined(iso), 1, argv)
           .ToLocal(&exports)) {
    if (caught.HasTerminated()) caught.ReThrow();
    return kNotFound;
  }
  if (!exports->IsObject()) return kNotFound;
  BundleModule m;
  m.name = name;
  m.kind = kBuiltinModule;
  m.value.Reset(iso, exports);
  i->module_by_name.emplace(name, i->modules.size());
  i->modules.push_back(std::move(m));
  return i->modules.size() - 1;
}

}  // namespace

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
  if (exact == kNotFound) exact = Lookup(i, "/" + specifier);
  if (exact == kNotFound && s.substr(0, 5) == "node:" && s.size() < 64) exact = Builtin(i, specifier);
  return exact;
}

namespace {

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

// A specifier or attribute, which may be any string; empty, which names nothing, when it is too long.
std::string Text(v8::Isolate* iso, v8::Local<v8::String> s) {
  return TooLongToRead(bh_isolate::From(iso), s) ? std::string() : ToUtf8(iso, s);
}

// Import attributes: `stride` values an attribute, key and value first. Only "type" is known, and
// it must agree with what the module is (TC39 import attributes; "text" and "bytes" likewise).
bool CheckAttributes(v8::Isolate* iso, v8::Local<v8::Context> context,
                     v8::Local<v8::FixedArray> attributes, int stride, uint8_t kind) {
  for (int n = 0; n + 1 < attributes->Length(); n += stride) {
    std::string key = Text(iso, attributes->Get(context, n).As<v8::String>());
    std::string value = Text(iso, attributes->Get(context, n + 1).As<v8::String>());
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
  v8::Local<v8::Value> value = i->modules[at].value.Get(iso);
  if (i->modules[at].kind == kBuiltinModule) {
    v8::Local<v8::Array> names;
    v8::Local<v8::Value> name, item;
    if (!value.As<v8::Object>()->GetOwnPropertyNames(context).ToLocal(&names)) return {};
    for (uint32_t n = 0; n < names->Length(); n++) {
      if (!names->Get(context, n).ToLocal(&name) ||
          !value.As<v8::Object>()->Get(context, name).ToLocal(&item) ||
          module->SetSyntheticModuleExport(iso, name.As<v8::String>(), item).IsNothing()) {
        return {};
      }
    }
  } else if (module->SetSyntheticModuleExport(iso, OneByte(iso, "default"), value).IsNothing()) {
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

// The runtime's objects have string keys only, all of them ours.
v8::MaybeLocal<v8::Module> CompileBuiltin(bh_isolate* i, v8::Local<v8::Context> context, size_t at) {
  v8::Isolate* iso = i->iso;
  v8::Local<v8::Array> names;
  if (!i->modules[at].value.Get(iso).As<v8::Object>()->GetOwnPropertyNames(context).ToLocal(&names)) {
    return {};
  }
  std::vector<v8::Local<v8::String>> exports;
  for (uint32_t n = 0; n < names->Length(); n++) {
    v8::Local<v8::Value> name;
    if (!names->Get(context, n).ToLocal(&name)) return {};
    exports.push_back(name.As<v8::String>());
  }
  v8::Local<v8::Module> module = v8::Module::CreateSyntheticModule(
      iso, Utf8(iso, i->modules[at].name), {exports.data(), exports.size()}, EvaluateSynthetic);
  i->modules[at].module.Reset(iso, module);
  i->module_by_hash.emplace(module->GetIdentityHash(), at);
  return module;
}

bool IsAscii(const std::string& s) {
  return std::all_of(s.begin(), s.end(), [](char c) { return static_cast<signed char>(c) >= 0; });
}

}  // namespace

// The module at `at`, compiled on first use. Empty with an exception pending when it is wrong.
v8::MaybeLocal<v8::Module> Compile(bh_isolate* i, v8::Local<v8::Context> context, size_t at) {
  v8::Isolate* iso = i->iso;
  BundleModule& m = i->modules[at];
  if (!m.module.IsEmpty()) return m.module.Get(iso);
  if (m.kind == kBuiltinModule) return CompileBuiltin(i, context, at);
  v8::Local<v8::Module> module;
  v8::Local<v8::String> name = Utf8(iso, ResourceName(m.name));
  if (m.kind == kEsm) {
    v8::ScriptOrigin origin(name, 0, 0, false, -1, {}, false, false, true);
    std::unique_ptr<v8::ScriptCompiler::CachedData> cached;
    if (!m.cache.empty()) {
      cached = std::make_unique<v8::ScriptCompiler::CachedData>(
          reinterpret_cast<const uint8_t*>(m.cache.data()), static_cast<int>(m.cache.size()));
    }
    // What V8 rejects it compiles as usual.
    auto how = cached ? v8::ScriptCompiler::kConsumeCodeCache
                      : v8::ScriptCompiler::kNoCompileOptions;
    v8::ScriptCompiler::Source source(
        IsAscii(m.code) ? OneByte(iso, m.code) : Utf8(iso, m.code), origin, cached.release());
    if (!v8::ScriptCompiler::CompileModule(iso, &source, how).ToLocal(&module)) return {};
    if (how == v8::ScriptCompiler::kConsumeCodeCache && !source.GetCachedData()->rejected) {
      i->cached_modules++;
    }
  } else {
    v8::Local<v8::Value> value;
    if (!SyntheticValue(i, context, m).ToLocal(&value)) return {};
    const v8::Local<v8::String> exports[] = {OneByte(iso, "default")};
    module = v8::Module::CreateSyntheticModule(iso, name, {exports, 1}, EvaluateSynthetic);
    m.value.Reset(iso, value);
  }
  m.module.Reset(iso, module);
  i->module_by_hash.emplace(module->GetIdentityHash(), at);
  i->bundle_bytes -= m.code.size() + m.cache.size();
  m.cache = std::string();
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
  std::string wanted = Text(iso, specifier);
  size_t at = Resolve(i, wanted, base);
  if (at == kNotFound) {
    ThrowNotInBundle(iso, wanted, base);
    return {};
  }
  if (!CheckAttributes(iso, context, attributes, 3, i->modules[at].kind)) return {};
  return Compile(i, context, at);
}

namespace {

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
  std::string wanted = Text(iso, specifier);
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

}  // namespace

void InstallModuleCallbacks(v8::Isolate* iso) {
  iso->SetHostImportModuleDynamicallyCallback(ImportDynamically);
  iso->SetHostInitializeImportMetaObjectCallback(InitImportMeta);
}

}  // namespace bulkhead
