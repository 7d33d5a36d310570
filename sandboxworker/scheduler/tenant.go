package scheduler

import (
	"sync/atomic"
	"time"

	"bulkhead/sandboxworker/engine"
	"bulkhead/sandboxworker/runtime"
	"bulkhead/schema/gen"
)

// eventKind says what an event asks of a tenant's executor.
type eventKind uint8

const (
	evOpen     eventKind = iota // a request; frame is the open frame
	evChunk                     // request body bytes; frame is the chunk frame
	evEnd                       // the request body is complete
	evAbort                     // the gateway aborts a direction; reason and text say which
	evWindow                    // the gateway takes n more bytes of the response
	evDeadline                  // the invocation's wall-clock limit has passed
	evTimer                     // a timer may be due
	evDrop                      // tell the isolate that an invocation is over for the gateway
	evHead                      // the answer to a subrequest begins; frame is the head frame
	evLoad                      // start the tenant's code; done is called with the outcome
	evMessage                   // part of a WebSocket message; frame is the message frame
	evCode                      // make a code cache; code is called with it
)

// event is one entry of a tenant's mailbox.
type event struct {
	kind   eventKind
	inv    *invocation
	sub    *subrequest // what it concerns, if not inv itself
	frame  []byte      // a copy of the frame, from the scheduler's frame pool
	nowMs  float64     // time of the outside event; 0 for events that do not move the clock
	n      uint32
	reason gen.Abort_Reason
	text   string
	done   func(*loadReply)
	code   func([]byte)
}

// tenant is one tenant in this shard.
type tenant struct {
	handle uint32
	bundle engine.Bundle
	env    []engine.EnvVar
	limits tenantLimits
	logs   *tenantLog

	bindings int // service bindings of its env

	// Guarded by the scheduler's mu.
	queue    []event       // mailbox, oldest first
	requests int           // requests in the mailbox that have not begun
	bytes    int           // of the frames in the mailbox
	virtual  time.Duration // CPU used by its weight; see queue
	queued   bool          // in the run queue
	running  bool          // owned by an executor
	evict    []chan struct{}
	stained  stains    // whose stacks it has left something on
	lastRun  time.Time // when its last quantum began
	admitted bool      // runs and may be growing
	held     footprint // of its isolate, as last measured
	growth   footprint // what it has added since, by estimate, if it runs
	reserve  footprint // what it may add, if it runs
	shed     bool      // its turn has the order to end for lack of memory
	refused  bool      // it runs although there is no memory: new requests are turned away
	due      float64   // JS time of the next timer, <0: none
	dueInv   uint32    // whose timer it is, 0: nobody's
	ticking  bool      // an evTimer is in the mailbox
	awaited  bool      // stands in for one whose load has not come: not to be run

	// Owned by the executor that runs the tenant.
	iso         *engine.Isolate // nil until loaded, and after its isolate was given up
	clock       float64         // JS time of its last turn, ms since 1970
	invs        map[uint32]*invocation
	subs        map[uint32]*subrequest
	host        runtime.Host  // what its operations keep
	results     []*opResult   // of operations, oldest first; delivered before any event
	resultBytes int           // of their data
	unowned     time.Duration // CPU of operations that belong to no invocation, since it was last shared out
	size        size          // what its isolate was made since it last ran; read under mu while it is idle
	lightly     bool          // whoever claimed it for memory wants it trimmed lightly

	log logAccount // of code that belongs to no request, since the last one began

	seen // by signals

	// Counters for stats; written by the owner.
	cpu      atomic.Int64 // ns since load
	inFlight atomic.Int32
	heap     atomic.Uint64
	external atomic.Uint64
}

// tenantLimits are the limits the worker itself enforces, in its own units.
type tenantLimits struct {
	cpu, startupCPU, wall, waitUntil time.Duration
	memory                           uint64
	responseBytes                    uint64
	logBytes, timers                 int
	subrequests, pending, weight     int
	eval, wasm                       bool
}

// invocation is one stream. Owned by its tenant's executor, but for the fields marked.
type invocation struct {
	stream    uint64
	id        uint32 // the engine's name for it: the stream's low 31 bits
	t         *tenant
	requestID string
	attempt   uint8
	started   time.Time
	deadline  atomic.Int64 // Unix ns; read by the watchdog and the janitor
	late      bool         // guarded by the scheduler's mu: an evDeadline is in the mailbox

	touched // by signals

	// payer is the invocation that this one is part of: it runs a function of that one's. What it uses is used
	// by both. Nil: it stands for itself.
	payer *invocation
	cpu   time.Duration
	moved int // body bytes, both directions; see bodyCPU
	log   logAccount

	// Response.
	body     uint64 // bytes of its body so far
	headSent bool
	socket   socket
	ended    bool // the engine has said end or abort, or the head said it all
	unwanted bool // the gateway takes no more of the body
	window   int  // bytes the gateway still takes
	out      []byte
	outEnd   bool // send end when out is empty
	outAbort *string
	fin      *finish // send done when out is empty
	over     bool    // done was sent

	subs    map[uint32]*subrequest // those whose last word was not said
	fetched int                    // subrequests started
	called  bool                   // it answers another tenant's call, or is part of a call: it may have been given functions

	// Request body.
	ungranted int // received from the gateway, not yet granted again
}

// finish is an outcome that waits for the rest of the body.
type finish struct {
	outcome gen.Outcome
	message string
}
