// The frame around every entry into an isolate.

#ifndef BULKHEAD_TURN_H_
#define BULKHEAD_TURN_H_

#include "instance.h"

namespace bulkhead {

// Holds the isolate for one turn: lock, scopes, stack limit, clock, CPU meter. Termination is
// accepted between construction and Finish.
class TurnScope {
 public:
  TurnScope(bh_isolate* i, double now_ms);
  v8::Local<v8::Context> context() const { return context_; }
  // Microtasks, rejections, the runtime's idle, microtasks again.
  void Settle();
  // Close the turn and fill in its result. `fatal`: the isolate was not usable.
  bh_turn* Finish(bool fatal);

 private:
  static double Advance(bh_isolate* i, double now_ms);
  void CheckMemory();

  bh_isolate* i_;
  int64_t cpu_start_;
  Held held_;
  CountSmall counting_;
  v8::Isolate::Scope isolate_scope_;
  v8::HandleScope handle_scope_;
  v8::Local<v8::Context> context_;
  v8::Context::Scope context_scope_;
  FrozenClock clock_;
};

}  // namespace bulkhead

#endif  // BULKHEAD_TURN_H_
