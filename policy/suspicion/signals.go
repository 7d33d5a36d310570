package suspicion

import "time"

// Signal is something a tenant can be observed to do.
type Signal uint8

// The signals. Their order is that of every listing; names and units are in the table below.
const (
	// Bracketed is CPU between two events that somebody outside can time: a message or an answer
	// comes in, code runs, something goes out or waits for the next. It is the only clock a worker
	// has, and what every timing attack from inside one must do.
	Bracketed Signal = iota
	// Remote is CPU of whole requests: a client can time those too, with more noise.
	Remote
	// Lockstep is CPU of requests each of which began when the one before had just ended, dozens in a row:
	// somebody waits for every answer. Load tests and scripts do so as well, but visitors do not.
	Lockstep
	CPU        // processor time of any kind
	Kills      // invocations ended for exceeding a limit
	NearMisses // invocations that came close to a limit and ended well, and looks at which its memory did
	Aborts     // processes it is held to have ended
	Churn      // starts of its isolate
	Wasm       // it may run WebAssembly
	Buffers    // large ArrayBuffers: the eviction sets of cache attacks
	Starts     // other tenants that its calls started
	Violations // breaches of the protocol, forbidden system calls
	Traits     // what its code names that timing attacks are made of
	numSignals
)

// NumSignals is how many signals there are.
const NumSignals = int(numSignals)

// Kind describes one signal.
type Kind struct {
	Name   string  // in policy, events and listings
	Unit   string  // of amounts
	Weight float64 // points for one unit, unless policy says otherwise
	// Most points it can give, however much there is of it: what honest tenants do in plenty must not
	// add up to a verdict by itself. 0: no bound.
	Most float64
	// Keeps: not forgotten while the isolate lives, only after it. An attack may be slow.
	Keeps bool
	// Level: how much there is of it, not how much more: the most that was seen counts.
	Level bool
	Why   string // what it may mean, for people
}

// Kinds is the table of all signals, by Signal.
//
// The scale: 100 points isolate, so one millisecond of bracketed CPU is one point, and a hundred of
// them, in whatever portions and beside whatever else, are enough. All that honest tenants do in
// plenty (the rows with a bound below 100) comes to less than 100 together. Nothing but
// violations comes to 1000: who talks much, or crashes often, is served alone and not refused.
func Kinds() [NumSignals]Kind {
	return [NumSignals]Kind{
		Bracketed:  {Name: "bracketedCpu", Unit: "ms", Weight: 1, Most: 500, Keeps: true, Why: "code ran between two events that can be timed from outside"},
		Remote:     {Name: "remoteCpu", Unit: "ms", Weight: 0.001, Most: 15, Why: "code ran between a request and its answer"},
		Lockstep:   {Name: "lockstepCpu", Unit: "ms", Weight: 0.2, Most: 110, Why: "code ran for requests that each came right after the last answer"},
		CPU:        {Name: "cpu", Unit: "s", Weight: 0.2, Most: 10, Why: "processor time"},
		Kills:      {Name: "kills", Weight: 0.5, Most: 15, Why: "invocations exceeded a limit"},
		NearMisses: {Name: "nearMisses", Weight: 0.1, Most: 4, Why: "it came close to its limits"},
		Aborts:     {Name: "aborts", Weight: 60, Most: 300, Why: "a process ended that it ran in"},
		Churn:      {Name: "churn", Weight: 1, Most: 10, Why: "its isolate is started again and again"},
		Wasm:       {Name: "wasm", Weight: 5, Most: 5, Level: true, Why: "it may run WebAssembly"},
		Buffers:    {Name: "buffers", Unit: "MiB", Weight: 0.2, Most: 5, Level: true, Why: "it holds large buffers"},
		Starts:     {Name: "starts", Weight: 5, Most: 20, Why: "its calls started other tenants"},
		Violations: {Name: "violations", Weight: 100, Why: "its process broke the protocol or tried a forbidden system call"},
		Traits:     {Name: "traits", Weight: 1, Most: 5, Level: true, Why: "its code names what timing attacks are made of"},
	}
}

// String is the signal's name in policy and events.
func (s Signal) String() string {
	if s >= numSignals {
		return "unknown"
	}
	return Kinds()[s].Name
}

// Config is the part of a policy that this package acts on.
type Config struct {
	Enabled  bool
	Watch    int           // points from which a tenant is listed
	Isolate  int           // points from which it is alone in its process
	Stop     int           // points from which it does not run at all
	HalfLife time.Duration // after which what was observed counts half
	Calm     time.Duration // an isolated tenant below Watch for this long is released
	// Every is how often tenants at work are looked at.
	Every  time.Duration
	Record bool // every observation goes to the event log, to be replayed under another policy
	// Weights replace those of Kinds, by Signal.
	Weights [NumSignals]float64
}

// Default is what the preset "standard" has.
func Default() Config {
	c := Config{Enabled: true, Watch: 50, Isolate: 100, Stop: 1000, HalfLife: 10 * time.Minute, Calm: 15 * time.Minute, Every: 250 * time.Millisecond}
	for s, k := range Kinds() {
		c.Weights[s] = k.Weight
	}
	return c
}
