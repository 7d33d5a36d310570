// The C face of the native layer: what cgo calls. No C++ type and no ownership crosses it
// except bh_isolate, which is opaque.
//
// Threads: a bh_isolate is used by one thread at a time (v8::Locker enforces it by waiting);
// bh_terminate and bh_usage may be called from any thread as long as bh_isolate_dispose has not
// begun.

#ifndef BULKHEAD_NATIVE_H_
#define BULKHEAD_NATIVE_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bh_isolate bh_isolate;

// How far past its maximum V8's heap may grow while a turn that ran into it unwinds.
enum { BH_HEAP_STEP = 32 << 20, BH_HEAP_STEPS = 2, BH_HEAP_OVERSHOOT = BH_HEAP_STEP * BH_HEAP_STEPS };

// How a turn ended.
enum {
  BH_OK = 0,
  BH_TERMINATED = 1,     // bh_terminate stopped it; pending microtasks are lost
  BH_OUT_OF_MEMORY = 2,  // the tenant passed its memory limit; dispose of the isolate
  BH_FATAL = 3,          // the isolate is not usable (not loaded, or after out of memory)
};

// Why bh_terminate was called. Mirrored by engine.Reason.
enum { BH_REASON_NONE = 0, BH_REASON_MEMORY = 3 };

// One output record: this header, then n1 and n2 bytes. Little-endian, unaligned.
#pragma pack(push, 1)
typedef struct {
  uint8_t kind;
  uint8_t mode;    // head: body mode; log: level; finish: outcome
  uint16_t status; // head
  uint32_t inv;
  uint32_t a;  // credit: bytes; op: code; diagnostic: line
  uint32_t id; // op: id; diagnostic: column
  uint32_t n1;
  uint32_t n2;
} bh_record;
#pragma pack(pop)

// What the frame of a chunk has before its data (ipc.ChunkRoom).
#define BH_CHUNK_ROOM 48

enum {
  BH_HEAD = 1,        // headers, body
  BH_CHUNK = 2,       // BH_CHUNK_ROOM bytes for who sends it, data and zeros to a multiple of 8; a: its length
  BH_END = 3,
  BH_ABORT = 4,       // message, -
  BH_CREDIT = 5,
  BH_FINISHED = 6,    // message, -
  BH_LOG = 7,         // text, -
  BH_OP = 8,          // meta, data
  BH_REFUSE = 9,
  BH_LOADED = 10,     // handler names joined by '\n', -
  BH_DIAGNOSTIC = 11, // file, message
  BH_EXCERPT = 12,    // excerpt, stack: follows a BH_DIAGNOSTIC
};

// Result of one turn. It and `out` belong to the isolate and live until its next turn.
typedef struct {
  uint8_t status;
  uint8_t reason;
  int64_t cpu_ns;         // CPU time of the calling thread over this turn, CLOCK_THREAD_CPUTIME_ID
  double next_timer_ms;   // JS time of the next wake-up, < 0: none
  uint32_t next_timer_inv;  // the invocation that set it, 0: none
  const uint8_t* out;
  size_t out_len;
} bh_turn;

typedef struct {
  uint64_t heap_bytes;      // live and dead objects on the JS heap
  uint64_t external_bytes;  // buffers of all kinds, Wasm memories, and what this layer holds
  uint64_t limit_bytes;
} bh_usage_t;

// ---- process (process.cc). Once, before the first isolate, from one thread.

// Initialise V8: its flags (one string), its entropy source, UTC and the frozen clock. Without
// `wasm` no isolate has a WebAssembly object.
void bh_process_init(const char* flags, int wasm);
// Keep the runtime's source for the life of the process. ASCII only: returns 0 and takes nothing otherwise.
int bh_process_set_source(const char* source, size_t len);
// Let the runtime ask for bytes by number (host.data). They are not copied: they must live as long as the process.
void bh_process_set_data(uint32_t n, const void* bytes, size_t len);
// Bytes of the code cache all further isolates bootstrap from, 0: none yet.
// Gives pages of the C++ heap that hold nothing back to the kernel.
void bh_process_trim(void);
// Zero what is left below on this thread's stack, which must not be in JavaScript.
void bh_wipe_stack(void);
// For builds that show what happens without: freed memory and stacks keep what was in them; the clock
// of a turn moves. Before the first isolate.
void bh_leave_traces(void);
void bh_let_clock_move(void);
size_t bh_process_code_cache_size(void);

// Take over the signals of faults outside Go's code, which lies between `from` and `to`; faults in it
// go on to Go. 0, or an errno. See fault.cc.
int bh_handle_faults(uintptr_t from, uintptr_t to);
// The calling thread's slot of the black box, NULL for none.
void bh_bind_black_box(void* slot);
// For tests only: a fault of native code by this signal.
void bh_fault_for_test(int signal);

// ---- isolate (life.cc, isolate.cc)

// Make an isolate with one context, and a heap of at most heap_max bytes.
bh_isolate* bh_isolate_new(uint64_t heap_max);
// Compile and run the runtime's bootstrap. NULL when it worked, else a message to bh_free.
// produced: whether this isolate may be asked for the code cache.
char* bh_bootstrap(bh_isolate* i, uint64_t memory_limit);
// Make the process's code cache from what this isolate has compiled so far. NULL: done.
char* bh_make_code_cache(bh_isolate* i);
// Collect what is garbage and give what V8 keeps in reserve back to the kernel. Between turns.
int bh_trim(bh_isolate* i, int collect);  // returns whether garbage was collected
// For tests: give back what bh_trim gives back, write it anew, and count the ranges in which that is not
// what was there. How many bytes were given back. Between turns.
size_t bh_dormant_check(bh_isolate* i, size_t* wrong);
// For tests: from now on who touches what an idle isolate gave back ends the process.
void bh_dormant_guard(void);
// Wipe the isolate's buffers, release everything held in it and dispose of it.
void bh_isolate_dispose(bh_isolate* i);
// Stop the turn that runs now. 0 when none runs (nothing is remembered then). Any thread.
int bh_terminate(bh_isolate* i, uint8_t reason);
void bh_usage(const bh_isolate* i, bh_usage_t* out);
void bh_free(char* message);

// ---- loading (load.cc)

void bh_set_limits(bh_isolate* i, uint64_t memory, int eval_allowed, int wasm_allowed,
                   uint32_t timers, uint32_t pending);
void bh_add_module(bh_isolate* i, const char* name, size_t name_len, uint8_t kind,
                   const void* code, size_t code_len);
void bh_add_env(bh_isolate* i, const char* name, size_t name_len, int json, const char* value,
                size_t value_len);
// Offer the code cache of the bundle, after its modules. What does not fit them is ignored.
void bh_add_code_cache(bh_isolate* i, const void* bytes, size_t len);
// The code cache of what is compiled now, NULL for none (or over 4 MiB); give it to free().
uint8_t* bh_code_cache(bh_isolate* i, size_t* len);
// How many modules were compiled from the code cache.
uint32_t bh_cached_modules(const bh_isolate* i);
bh_turn* bh_load(bh_isolate* i, double now_ms, const char* main_name, size_t main_len);

// Wipe and give back the output of the last turn, which is read. Otherwise the next turn does.
void bh_drop_output(bh_isolate* i);

// ---- turns (turn.cc). Each delivers one event, runs microtasks dry and collects the output.

bh_turn* bh_request(bh_isolate* i, double now_ms, uint32_t inv, const char* method,
                    size_t method_len, const char* url, size_t url_len, const void* headers,
                    size_t headers_len, uint8_t body_mode, const void* body, size_t body_len,
                    const char* request_id, size_t request_id_len, uint8_t attempt);
bh_turn* bh_chunk(bh_isolate* i, double now_ms, uint32_t inv, const void* data, size_t len);
bh_turn* bh_end(bh_isolate* i, double now_ms, uint32_t inv);
bh_turn* bh_abort(bh_isolate* i, double now_ms, uint32_t inv, uint8_t reason, const char* message,
                  size_t len);
bh_turn* bh_window(bh_isolate* i, double now_ms, uint32_t inv, uint32_t n);
bh_turn* bh_timer(bh_isolate* i, double nominal_ms);
bh_turn* bh_op_result(bh_isolate* i, double now_ms, uint32_t op, int ok, const char* meta,
                      size_t meta_len, const void* data, size_t len);

#ifdef __cplusplus
}
#endif
#endif  // BULKHEAD_NATIVE_H_
