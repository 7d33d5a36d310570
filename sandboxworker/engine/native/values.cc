// Host functions that look inside values without running the tenant's code: what console
// formatting needs and JavaScript cannot see by itself.

#include "host.h"

namespace bulkhead {
namespace {

// promiseDetails(p) -> [state, value]
void PromiseDetails(const Args& args) {
  v8::Isolate* iso = args.GetIsolate();
  if (!args[0]->IsPromise()) return;
  v8::Local<v8::Promise> p = args[0].As<v8::Promise>();
  v8::Local<v8::Value> value = v8::Undefined(iso);
  if (p->State() != v8::Promise::kPending) value = p->Result();
  v8::Local<v8::Value> pair[] = {v8::Integer::New(iso, p->State()), value};
  args.GetReturnValue().Set(v8::Array::New(iso, pair, 2));
}

// proxyDetails(p) -> [target, handler], undefined for what is no proxy
void ProxyDetails(const Args& args) {
  v8::Isolate* iso = args.GetIsolate();
  if (!args[0]->IsProxy()) return;
  v8::Local<v8::Proxy> p = args[0].As<v8::Proxy>();
  v8::Local<v8::Value> pair[] = {p->GetTarget(), p->GetHandler()};
  args.GetReturnValue().Set(v8::Array::New(iso, pair, 2));
}

// previewEntries(obj) -> [entries, isKeyValue], undefined where V8 has none to show or no room to
void PreviewEntries(const Args& args) {
  v8::Isolate* iso = args.GetIsolate();
  v8::Local<v8::Object> object;
  if (!ObjectArg(args, 0, &object)) return;
  // V8 copies all entries at once, however many are shown: 4 bytes a value, and once more for what
  // it makes of them. An iterator does not say how many it has left; they are on the heap somewhere.
  uint64_t need = 0;
  if (object->IsMap()) {
    need = uint64_t{object.As<v8::Map>()->Size()} * 16;
  } else if (object->IsSet()) {
    need = uint64_t{object.As<v8::Set>()->Size()} * 8;
  } else {
    v8::HeapStatistics hs;
    iso->GetHeapStatistics(&hs);
    need = hs.used_heap_size();
  }
  if (!HasRoom(bh_isolate::From(iso), need)) return;
  bool key_value = false;
  v8::Local<v8::Array> entries;
  if (!object->PreviewEntries(&key_value).ToLocal(&entries)) return;
  v8::Local<v8::Value> pair[] = {entries, v8::Boolean::New(iso, key_value)};
  args.GetReturnValue().Set(v8::Array::New(iso, pair, 2));
}

// getOwnNonIndexProperties(obj, enumerableOnly) -> keys, symbols included
void GetOwnNonIndexProperties(const Args& args) {
  v8::Local<v8::Object> object;
  if (!ObjectArg(args, 0, &object)) return;
  v8::PropertyFilter filter = args[1]->IsTrue() ? v8::ONLY_ENUMERABLE : v8::ALL_PROPERTIES;
  v8::Local<v8::Array> keys;
  // A proxy's traps run here: an exception of theirs goes to the caller.
  if (object->GetPropertyNames(args.GetIsolate()->GetCurrentContext(),
                               v8::KeyCollectionMode::kOwnOnly, filter,
                               v8::IndexFilter::kSkipIndices)
          .ToLocal(&keys)) {
    args.GetReturnValue().Set(keys);
  }
}

const char* InternalClass(v8::Local<v8::Value> v) {
  // Narrow names before wide ones: a proxy first, because it answers for nothing else.
  if (v->IsProxy()) return "Proxy";
  if (v->IsPromise()) return "Promise";
  if (v->IsMap()) return "Map";
  if (v->IsSet()) return "Set";
  if (v->IsMapIterator()) return "MapIterator";
  if (v->IsSetIterator()) return "SetIterator";
  if (v->IsWeakMap()) return "WeakMap";
  if (v->IsWeakSet()) return "WeakSet";
  if (v->IsWeakRef()) return "WeakRef";
  if (v->IsDate()) return "Date";
  if (v->IsRegExp()) return "RegExp";
  if (v->IsTypedArray()) return "TypedArray";
  if (v->IsDataView()) return "DataView";
  if (v->IsSharedArrayBuffer()) return "SharedArrayBuffer";
  if (v->IsArrayBuffer()) return "ArrayBuffer";
  if (v->IsNativeError()) return "NativeError";
  if (v->IsModuleNamespaceObject()) return "ModuleNamespace";
  if (v->IsBooleanObject()) return "BooleanObject";
  if (v->IsNumberObject()) return "NumberObject";
  if (v->IsStringObject()) return "StringObject";
  if (v->IsSymbolObject()) return "SymbolObject";
  if (v->IsBigIntObject()) return "BigIntObject";
  if (v->IsGeneratorObject()) return "GeneratorObject";
  if (v->IsArgumentsObject()) return "Arguments";
  if (v->IsWasmMemoryObject()) return "WasmMemory";
  if (v->IsWasmModuleObject()) return "WasmModule";
  if (v->IsExternal()) return "External";
  if (v->IsAsyncFunction()) return v->IsGeneratorFunction() ? "AsyncGeneratorFunction" : "AsyncFunction";
  if (v->IsGeneratorFunction()) return "GeneratorFunction";
  if (v->IsFunction()) return "Function";
  if (v->IsArray()) return "Array";
  return v->IsObject() ? "Object" : "";
}

// classOf(v) -> what V8 knows it to be, whatever its prototype says; "" for primitives
void ClassOf(const Args& args) {
  v8::Isolate* iso = args.GetIsolate();
  args.GetReturnValue().Set(
      v8::String::NewFromUtf8(iso, InternalClass(args[0]), v8::NewStringType::kInternalized)
          .ToLocalChecked());
}

// constructorName(obj) -> the name V8 inferred for the object's constructor
void ConstructorName(const Args& args) {
  v8::Local<v8::Object> object;
  if (!ObjectArg(args, 0, &object)) return;
  args.GetReturnValue().Set(object->GetConstructorName());
}

}  // namespace

void InstallValueFunctions(v8::Isolate* iso, v8::Local<v8::Context> c,
                           v8::Local<v8::Object> host) {
  SetFunction(iso, c, host, "promiseDetails", PromiseDetails);
  SetFunction(iso, c, host, "proxyDetails", ProxyDetails);
  SetFunction(iso, c, host, "previewEntries", PreviewEntries);
  SetFunction(iso, c, host, "getOwnNonIndexProperties", GetOwnNonIndexProperties);
  SetFunction(iso, c, host, "classOf", ClassOf);
  SetFunction(iso, c, host, "constructorName", ConstructorName);
}

}  // namespace bulkhead
