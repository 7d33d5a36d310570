// The native fault handler (DESIGN sections 6 and 8).
//
// Everything from OnFault down is async-signal-safe: stores to memory, and system calls the seal
// allows. It runs on the signal stack Go gives each thread, with all signals blocked.

#include "fault.h"

#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "native.h"

namespace bulkhead {
namespace {

// The layout of a slot is ipc/blackbox.go's.
constexpr size_t kFaultAt = 20, kDetailAt = 24, kDetailBytes = 40;

// The slot of this thread. Initial-exec: a lazily allocated thread-local would call malloc.
__attribute__((tls_model("initial-exec"))) thread_local uint8_t* slot = nullptr;

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGABRT};
constexpr size_t kCount = sizeof kSignals / sizeof kSignals[0];

// Written once by bh_handle_faults, before the first fault: process-global because signals are.
struct sigaction go_actions[kCount];
uintptr_t go_from = 0, go_to = 0;

uintptr_t ProgramCounter(const ucontext_t* c) {
#if defined(__x86_64__)
  return static_cast<uintptr_t>(c->uc_mcontext.gregs[REG_RIP]);
#elif defined(__aarch64__)
  return static_cast<uintptr_t>(c->uc_mcontext.pc);
#else
#error "no fault handler for this architecture"
#endif
}

// Leaves why in the slot, the first reason only: later ones follow from it.
void LeaveDetail(const char* one, const char* two) {
  if (slot == nullptr || slot[kDetailAt] != 0) return;
  size_t at = 0;
  for (const char* part : {one, two}) {
    for (; part != nullptr && *part != 0 && at + 1 < kDetailBytes; part++) {
      slot[kDetailAt + at++] = static_cast<uint8_t>(*part);
    }
  }
}

void LeaveSignal(int signal) {
  if (slot == nullptr) return;
  auto* fault = reinterpret_cast<std::atomic<uint32_t>*>(slot + kFaultAt);
  uint32_t none = 0;
  fault->compare_exchange_strong(none, static_cast<uint32_t>(signal));
}

void Breakpoint() {
#if defined(__x86_64__)
  __asm__ volatile("int3");
#else
  __asm__ volatile("brk #0");
#endif
}

// Ends the process by `signal`, whose default action is in force. The kernel ignores a signal that
// the first process of a pid namespace sends itself, but not the fault of an instruction: to force
// one on a thread it drops that protection, and the block of the signal too.
[[noreturn]] void Die(int signal) {
  if (getpid() != 1) syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), signal);
  switch (signal) {
    case SIGTRAP:
      Breakpoint();
      break;
    case SIGSEGV:
    case SIGBUS: {  // a bus error needs a mapped file, and there is none
      auto* volatile nowhere = reinterpret_cast<volatile int*>(8);
      *nowhere = 0;
      break;
    }
#if defined(__x86_64__)
    case SIGFPE: {
      int zero = 0, top = 0, low = 1;
      __asm__ volatile("idivl %2" : "+a"(low), "+d"(top) : "r"(zero));
      break;
    }
#endif
    default:
      break;  // no instruction raises SIGABRT
  }
  __builtin_trap();  // SIGILL (ud2)
}

void OnFault(int signal, siginfo_t* info, void* context) {
  uintptr_t pc = ProgramCounter(static_cast<const ucontext_t*>(context));
  for (size_t n = 0; n < kCount; n++) {
    if (kSignals[n] != signal || pc < go_from || pc >= go_to) continue;
    // Go's own fault, or sent to a thread that runs Go: Go knows what to do.
    go_actions[n].sa_sigaction(signal, info, context);
    return;
  }
  LeaveSignal(signal);
  struct sigaction plain = {};
  plain.sa_handler = SIG_DFL;
  sigaction(signal, &plain, nullptr);
  // A fault that repeats ends the process by itself, with the address the kernel found.
  bool repeats = info->si_code > 0 && (signal == SIGSEGV || signal == SIGBUS || signal == SIGILL ||
                                       signal == SIGFPE);
  if (repeats) return;
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, signal);
  pthread_sigmask(SIG_UNBLOCK, &only, nullptr);
  sigaction(SIGILL, &plain, nullptr);  // should `signal` not end us
  Die(signal);
}

// V8 prints these words itself and then aborts.
void OnFatal(const char*, int, const char* message) { LeaveDetail(message, nullptr); }

// With these set, V8 leaves the words and the end to us.
void OnMisuse(const char* location, const char* message) {
  LeaveDetail(location, message);
  fprintf(stderr, "\n#\n# Fatal error in %s\n# %s\n#\n", location, message);
  Breakpoint();
  __builtin_trap();
}

void OnOutOfMemory(const char* location, const v8::OOMDetails& details) {
  LeaveDetail(location, nullptr);
  fprintf(stderr, "\n#\n# Fatal JavaScript out of memory: %s%s%s\n#\n", location,
          details.detail == nullptr ? "" : " ", details.detail == nullptr ? "" : details.detail);
  Breakpoint();
  __builtin_trap();
}

}  // namespace

void RecordFatalErrors() {
  v8::V8::SetFatalErrorHandler(OnFatal);
  v8::V8::SetFatalMemoryErrorCallback(OnOutOfMemory);
}

void RecordFatalErrorsOf(v8::Isolate* iso) {
  iso->SetFatalErrorHandler(OnMisuse);
  iso->SetOOMErrorHandler(OnOutOfMemory);
}

}  // namespace bulkhead

extern "C" {

int bh_handle_faults(uintptr_t from, uintptr_t to) {
  using namespace bulkhead;
  go_from = from;
  go_to = to;
  for (size_t n = 0; n < kCount; n++) {
    if (sigaction(kSignals[n], nullptr, &go_actions[n]) != 0) return errno;
    // Go handles all six with sa_sigaction; anything else we would not know how to chain to.
    if ((go_actions[n].sa_flags & SA_SIGINFO) == 0) return EINVAL;
  }
  for (size_t n = 0; n < kCount; n++) {
    struct sigaction ours = go_actions[n];  // its mask and flags: SA_ONSTACK among them
    ours.sa_flags |= SA_ONSTACK | SA_SIGINFO;
    ours.sa_sigaction = OnFault;
    if (sigaction(kSignals[n], &ours, nullptr) != 0) return errno;
  }
  return 0;
}

void bh_bind_black_box(void* at) {
  bulkhead::slot = static_cast<uint8_t*>(at);
  if (at != nullptr) memset(bulkhead::slot + bulkhead::kFaultAt, 0, 4 + bulkhead::kDetailBytes);
}

// For tests: the faults that no JavaScript should be able to cause.
void bh_fault_for_test(int signal) {
  switch (signal) {
    case SIGSEGV: {
      auto* volatile nowhere = reinterpret_cast<volatile int*>(8);
      *nowhere = 1;
      break;
    }
    case SIGILL:
      __builtin_trap();
    case SIGTRAP:
      bulkhead::Breakpoint();
      break;
    default:
      raise(signal);
  }
}

}  // extern "C"
