// Package limits holds the numbers that bound a tenant, a shard and a protocol peer.
//
// It is data: no effects, no parsing, no dependencies. The launcher imports it as the
// ceilings it enforces, the gateway as the values it chooses within them, and the worker
// gets its share over the control channel.
package limits

import "time"

// Tenant bounds one tenant. Every field is an effective value; zero is invalid everywhere
// (there is no "unlimited").
type Tenant struct {
	CPU          time.Duration // CPU of one invocation on the executor's thread clock
	StartupCPU   time.Duration // CPU of compiling and evaluating the top level
	Wall         time.Duration // from the request's head to the end of its response
	WaitUntil    time.Duration // after the response, for ctx.waitUntil
	Memory       uint64        // bytes: JS heap, buffers and Wasm memories together
	Concurrent   int           // invocations running or waiting at once
	Weight       int           // share of the processors relative to other tenants, 1 to 10000
	RequestBody  uint64        // body of one request, bytes
	ResponseBody uint64        // body of one response, bytes
	HeaderBytes  int           // flattened headers of a request or of a response, bytes; at most Wire.HeaderBytes
	LogBytes     int           // log text per invocation, bytes
	Timers       int           // timers pending at once per isolate
	Pending      int           // operations, subrequests and waitUntil promises pending at once per isolate
	Subrequests  int           // fetch() calls of one invocation, redirects included
	CacheEntries int           // responses kept for the Cache API
	CacheEntry   uint64        // one of them, its fields included, bytes
	CacheBytes   uint64        // all of them, bytes
	ScriptSize   int           // bundle, bytes
	Eval         bool          // eval and new Function
	Wasm         bool          // WebAssembly, where the shard's profile has it
}

// DefaultTenant is what the preset "standard" gives a tenant that policy says nothing about.
func DefaultTenant() Tenant {
	return Tenant{
		CPU:          50 * time.Millisecond,
		StartupCPU:   1000 * time.Millisecond,
		Wall:         30 * time.Second,
		WaitUntil:    30 * time.Second,
		Memory:       128 << 20,
		Concurrent:   1024,
		Weight:       100,
		RequestBody:  512 << 20,
		ResponseBody: 16 << 30,
		HeaderBytes:  64 << 10,
		LogBytes:     256 << 10,
		Timers:       10_000,
		Pending:      4096,
		Subrequests:  1000,
		CacheEntries: 1000,
		CacheEntry:   4 << 20,
		CacheBytes:   16 << 20,
		ScriptSize:   10 << 20,
	}
}

// Shard bounds one worker process. The launcher enforces it with rlimits and a cgroup.
type Shard struct {
	Memory     uint64 // bytes, cgroup memory limit
	PIDs       int    // threads and processes, cgroup pids limit and RLIMIT_NPROC's stand-in; see DefaultShard
	CPUWeight  int    // cgroup v2 cpu.weight, 1 to 10000; v1 shares are derived from it
	Files      uint64 // RLIMIT_NOFILE
	MaxTenants int    // isolates with a tenant in one shard
}

// DefaultShard is the preset "standard". A worker cannot live through a thread that it may not have:
// up to 64 run isolates when all of them are stuck, up to 66 are Go's own, one each for each
// processor and two more, and a few wait for the gateway, refill the pool and watch.
func DefaultShard() Shard {
	return Shard{Memory: 3 << 30, PIDs: 192, CPUWeight: 100, Files: 64, MaxTenants: 64}
}

// Wire bounds what a peer on a shard's channels may send. Breaking one is a protocol violation.
type Wire struct {
	FrameBytes   int // one frame, framing header included
	ChunkBytes   int // body bytes in one chunk, open or head frame
	HeaderBytes  int // flattened headers of a request or response
	HeaderCount  int // header fields of a request or response
	URLBytes     int // request URL
	Streams      int // streams in flight on one channel
	Window       int // bytes of a body a receiver grants at first, each direction
	MessageBytes int // people-readable text in abort and done
	Fetches      int // subrequests open on one channel
	StreamFetch  int // of these, of one invocation
	Message      int // bytes of one WebSocket message
}

// DefaultWire is used by both ends; it is part of the protocol, not of policy.
func DefaultWire() Wire {
	return Wire{
		FrameBytes:   192 << 10,
		ChunkBytes:   64 << 10,
		HeaderBytes:  64 << 10,
		HeaderCount:  128,
		URLBytes:     16 << 10,
		Streams:      16 << 10,
		Window:       256 << 10,
		MessageBytes: 8 << 10,
		Fetches:      1024,
		StreamFetch:  64,
		Message:      1 << 20,
	}
}
