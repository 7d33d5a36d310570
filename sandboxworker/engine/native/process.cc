// What is one for the whole process: V8's flags, its platform with the frozen clock, its source
// of randomness, the runtime's source text and the code cache made from it.

#include <malloc.h>
#include <pthread.h>
#include <sys/random.h>
#include <time.h>

#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>

#include "fault.h"
#include "instance.h"
#include "libplatform/libplatform.h"

// v8go makes this in a static initialiser. Were its own initialisation ever run, it would use it.
extern std::unique_ptr<v8::Platform> default_platform;

namespace bulkhead {
namespace {

// The clock of the turn that runs on this thread; negative when none does. A thread-local and
// not a field of the isolate because V8 asks its platform, which is not told who asks.
thread_local double frozen_ms = -1;
thread_local double frozen_monotonic_s = 0;
// Written once, before the first isolate, by builds that leave the frozen clock out.
bool clock_moves = false;

double RealMonotonicSeconds() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

// Forwards everything to V8's own single-threaded platform and answers the questions about time
// itself. No helper thread exists: their CPU would be nobody's (DESIGN section 8).
class ClockPlatform final : public v8::Platform {
 public:
  // `keys` is the platform that holds the CPU's protection key, or null where there is none.
  ClockPlatform(std::unique_ptr<v8::Platform> inner, std::unique_ptr<v8::Platform> keys)
      : inner_(std::move(inner)), keys_(std::move(keys)) {}

  v8::Platform* inner() { return inner_.get(); }

  double MonotonicallyIncreasingTime() override {
    return frozen_ms >= 0 ? frozen_monotonic_s : inner_->MonotonicallyIncreasingTime();
  }
  int64_t CurrentClockTimeMilliseconds() override {
    return static_cast<int64_t>(CurrentClockTimeMillis());
  }
  double CurrentClockTimeMillis() override {
    return frozen_ms >= 0 ? frozen_ms : inner_->CurrentClockTimeMillis();
  }
  double CurrentClockTimeMillisecondsHighResolution() override { return CurrentClockTimeMillis(); }

  v8::PageAllocator* GetPageAllocator() override { return inner_->GetPageAllocator(); }
  v8::ThreadIsolatedAllocator* GetThreadIsolatedAllocator() override {
    return keys_ ? keys_->GetThreadIsolatedAllocator() : inner_->GetThreadIsolatedAllocator();
  }
  void OnCriticalMemoryPressure() override { inner_->OnCriticalMemoryPressure(); }
  int NumberOfWorkerThreads() override { return inner_->NumberOfWorkerThreads(); }
  std::shared_ptr<v8::TaskRunner> GetForegroundTaskRunner(v8::Isolate* iso,
                                                          v8::TaskPriority priority) override {
    return inner_->GetForegroundTaskRunner(iso, priority);
  }
  bool IdleTasksEnabled(v8::Isolate* iso) override { return inner_->IdleTasksEnabled(iso); }
  StackTracePrinter GetStackTracePrinter() override { return inner_->GetStackTracePrinter(); }
  v8::TracingController* GetTracingController() override { return inner_->GetTracingController(); }
  void DumpWithoutCrashing() override { inner_->DumpWithoutCrashing(); }
  v8::HighAllocationThroughputObserver* GetHighAllocationThroughputObserver() override {
    return inner_->GetHighAllocationThroughputObserver();
  }

 protected:
  std::unique_ptr<v8::JobHandle> CreateJobImpl(v8::TaskPriority priority,
                                               std::unique_ptr<v8::JobTask> task,
                                               const v8::SourceLocation& location) override {
    return inner_->CreateJob(priority, std::move(task), location);
  }
  void PostTaskOnWorkerThreadImpl(v8::TaskPriority priority, std::unique_ptr<v8::Task> task,
                                  const v8::SourceLocation& location) override {
    inner_->PostTaskOnWorkerThread(priority, std::move(task), location);
  }
  void PostDelayedTaskOnWorkerThreadImpl(v8::TaskPriority priority, std::unique_ptr<v8::Task> task,
                                         double delay_seconds,
                                         const v8::SourceLocation& location) override {
    inner_->PostDelayedTaskOnWorkerThread(priority, std::move(task), delay_seconds, location);
  }

 private:
  std::unique_ptr<v8::Platform> inner_;
  std::unique_ptr<v8::Platform> keys_;
};

// The runtime's source: outside every heap, shared by all isolates, never freed.
class RuntimeText final : public v8::String::ExternalOneByteStringResource {
 public:
  explicit RuntimeText(std::string text) : text_(std::move(text)) {}
  const char* data() const override { return text_.data(); }
  size_t length() const override { return text_.size(); }
  void Dispose() override {}  // one isolate's string is gone; the text serves the others

 private:
  const std::string text_;
};

// Process-global because V8 and its platform are: written once by bh_process_*, before the
// first tenant, read by every thread after.
struct Process {
  ClockPlatform* platform = nullptr;  // owned by default_platform
  std::unique_ptr<RuntimeText> source;
  std::vector<std::string_view> data;  // by number; read-only once an isolate exists
  std::string code_cache;
  bool wasm = false;
  size_t js_stack_bytes = 256u << 10;
};
Process process;

// V8's own source opens /dev/urandom for each isolate and falls back to the time of day where it
// cannot; in the sealed worker it cannot.
bool FillRandom(unsigned char* buffer, size_t length) {
  while (length > 0) {
    ssize_t n = getrandom(buffer, length, 0);
    if (n < 0) {
      if (errno == EINTR) continue;
      return false;
    }
    buffer += n;
    length -= static_cast<size_t>(n);
  }
  return true;
}

// A task that says it has begun, and waits until as many have as there are threads: so each thread
// gets one.
class Roll final : public v8::Task {
 public:
  struct Call {
    std::mutex mu;
    std::condition_variable all;
    int missing;  // guarded by mu
  };
  explicit Roll(std::shared_ptr<Call> call) : call_(std::move(call)) {}
  void Run() override {
    std::unique_lock<std::mutex> lock(call_->mu);
    if (--call_->missing == 0) call_->all.notify_all();
    call_->all.wait(lock, [this] { return call_->missing <= 0; });
  }

 private:
  std::shared_ptr<Call> call_;
};

// Returns when every thread of the platform runs. A thread that the machine has not come round to
// yet names itself (prctl) when it begins: after the seal that would end the process.
void AwaitThreads(v8::Platform* platform) {
  auto call = std::make_shared<Roll::Call>();
  int threads = platform->NumberOfWorkerThreads();
  call->missing = threads;
  for (int i = 0; i < threads; i++) {
    platform->CallOnWorkerThread(std::make_unique<Roll>(call));
  }
  std::unique_lock<std::mutex> lock(call->mu);
  call->all.wait(lock, [&] { return call->missing <= 0; });
}

}  // namespace

FrozenClock::FrozenClock(double ms) {
  if (clock_moves) return;
  frozen_monotonic_s = RealMonotonicSeconds();
  frozen_ms = ms;
}

FrozenClock::~FrozenClock() { frozen_ms = -1; }

void FrozenClock::Set(double ms) {
  if (!clock_moves) frozen_ms = ms;
}

void PumpForegroundTasks(v8::Isolate* iso) {
  // Bounded: a task may post another. What is left runs with the next I/O event.
  for (int n = 0; n < 64; n++) {
    if (!v8::platform::PumpMessageLoop(process.platform->inner(), iso)) return;
  }
}

void ForgetForegroundTasks(v8::Isolate* iso) {
  v8::platform::NotifyIsolateShutdown(process.platform->inner(), iso);
}

// Executors are threads that Go's runtime made with glibc's default stack size, and cgo enters C
// at the top of that stack, so the place of this frame and the default size bound the stack
// without asking the kernel (pthread_getattr_np calls sched_getaffinity, which the seal denies).
uintptr_t StackLimit() {
  return reinterpret_cast<uintptr_t>(__builtin_frame_address(0)) - process.js_stack_bytes;
}

v8::Local<v8::String> RuntimeSource(v8::Isolate* iso) {
  return v8::String::NewExternalOneByte(iso, process.source.get()).ToLocalChecked();
}

bool ProcessHasWasm() { return process.wasm; }

std::string_view CodeCache() { return process.code_cache; }

std::string_view ProcessData(uint32_t n) {
  return n < process.data.size() ? process.data[n] : std::string_view();
}

void SetCodeCache(std::string bytes) { process.code_cache = std::move(bytes); }

}  // namespace bulkhead

extern "C" {

void bh_process_init(const char* flags, int wasm) {
  using bulkhead::process;
  process.wasm = wasm != 0;
  // ICU reads these once. A worker has no /etc/localtime to read and must not tell the host's.
  setenv("TZ", "UTC", 1);
  setenv("LC_ALL", "en_US.UTF-8", 1);

  // V8 prints why it aborts to stdout. glibc would first ask what descriptor 1 is (newfstatat),
  // which the seal kills for: the true cause of death would be lost.
  setvbuf(stdout, nullptr, _IONBF, 0);

  v8::V8::SetFlagsFromString(flags);
  v8::V8::SetEntropySource(bulkhead::FillRandom);

  // The platform v8go made in a static initialiser owns the CPU's protection key where there is
  // one: threads that exist already were given rights to that key only, so it must stay in use.
  std::unique_ptr<v8::Platform> original = std::move(default_platform);
  if (original->GetThreadIsolatedAllocator() == nullptr) {
    original.reset();  // and its threads
  } else {
    bulkhead::AwaitThreads(original.get());
  }
  auto platform = std::make_unique<bulkhead::ClockPlatform>(
      v8::platform::NewSingleThreadedDefaultPlatform(), std::move(original));
  process.platform = platform.get();
  default_platform = std::move(platform);
  bulkhead::RecordFatalErrors();
  v8::V8::InitializePlatform(default_platform.get());
  v8::V8::Initialize();
  bulkhead::MakeBaseAllocator();

  // Leave room below for V8's own C++ frames, which are not checked against the limit, and cap
  // what one tenant's recursion can dirty of every executor's stack.
  using bulkhead::kReserve;
  constexpr size_t kMost = 984u << 10, kLeast = 128u << 10;
  pthread_attr_t attr;
  if (pthread_getattr_default_np(&attr) == 0) {
    size_t size = 0;
    pthread_attr_getstacksize(&attr, &size);
    pthread_attr_destroy(&attr);
    size_t room = size > kReserve + kLeast ? size - kReserve : kLeast;
    process.js_stack_bytes = room < kMost ? room : kMost;
  }
}

int bh_process_set_source(const char* source, size_t len) {
  for (size_t i = 0; i < len; i++) {
    if (static_cast<unsigned char>(source[i]) >= 0x80) return 0;
  }
  bulkhead::process.source =
      std::make_unique<bulkhead::RuntimeText>(std::string(source, len));
  return 1;
}

void bh_process_set_data(uint32_t n, const void* bytes, size_t len) {
  auto& list = bulkhead::process.data;
  if (list.size() <= n) list.resize(n + 1);
  list[n] = std::string_view(static_cast<const char*>(bytes), len);
}

void bh_let_clock_move(void) { bulkhead::clock_moves = true; }

void bh_process_trim(void) {
  bulkhead::DropSlabs();
  bulkhead::DropBlocks();
  malloc_trim(0);
}

size_t bh_process_code_cache_size(void) { return bulkhead::process.code_cache.size(); }

}  // extern "C"
