// Argument checks shared by the host functions. None coerces: each throws a TypeError and
// returns false when the value is not what it must be.

#ifndef BULKHEAD_HOST_H_
#define BULKHEAD_HOST_H_

#include "instance.h"

namespace bulkhead {

bool UintArg(const Args& args, int n, uint32_t* out);
bool StringArg(const Args& args, int n, v8::Local<v8::String>* out);
bool ViewArg(const Args& args, int n, v8::Local<v8::ArrayBufferView>* out);
bool ObjectArg(const Args& args, int n, v8::Local<v8::Object>* out);

}  // namespace bulkhead

#endif  // BULKHEAD_HOST_H_
