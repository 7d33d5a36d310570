// The modules of a tenant's bundle.

#ifndef BULKHEAD_MODULES_H_
#define BULKHEAD_MODULES_H_

#include "instance.h"

namespace bulkhead {

// As schema/control.capnp, Module.Kind.
enum Kind : uint8_t { kEsm = 0, kText = 1, kData = 2, kJson = 3, kWasm = 4, kBuiltinModule = 255 };

constexpr size_t kNotFound = SIZE_MAX;

// What V8 calls a module: its name as stack traces show it.
std::string ResourceName(const std::string& name);
// Index of the module of this name, or kNotFound.
size_t Lookup(bh_isolate* i, const std::string& name);
// Index of what `specifier` means in `referrer` (a name, "/a/b.js"), or kNotFound. A module of the
// runtime's own ("node:events") is added by being named; the bundle may have one of that name instead.
size_t Resolve(bh_isolate* i, const std::string& specifier, const std::string& referrer);
// The module at an index, compiled on first use. Empty with an exception when it is wrong.
v8::MaybeLocal<v8::Module> Compile(bh_isolate* i, v8::Local<v8::Context> context, size_t at);
// V8's callback for static imports.
v8::MaybeLocal<v8::Module> ResolveImport(v8::Local<v8::Context> context,
                                         v8::Local<v8::String> specifier,
                                         v8::Local<v8::FixedArray> attributes,
                                         v8::Local<v8::Module> referrer);

}  // namespace bulkhead

#endif  // BULKHEAD_MODULES_H_
