package gatewayside

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"bulkhead/ipc"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"

	capnp "capnproto.org/go/capnp/v3"
	"capnproto.org/go/capnp/v3/rpc"
)

// Deadlines of control calls, for callers whose context has none or a later one.
const (
	loadSlack    = 15 * time.Second // on top of the tenant's start-up CPU
	evictTimeout = 15 * time.Second
	statsTimeout = 5 * time.Second
)

// Limits of what a shard says on the control channel, beyond ipc.ControlBytesFromShard.
const (
	maxHandlers       = 32
	maxHandlerBytes   = 64
	maxFailureBytes   = 16 << 10
	maxReasonBytes    = 1 << 10 // of an exception
	maxLogEntries     = 1024
	maxLogTextBytes   = 256 << 10
	maxStatsTenants   = 4096
	maxRequestIDBytes = 128
)

// tenant is what the gateway knows of a tenant it loaded into this shard.
type tenant struct {
	limits   limits.Tenant
	bindings int // service bindings of its env
	host     *tenantHost
	fetch    func(*Subrequest)
}

// EnvVar is one variable of the tenant's env.
type EnvVar struct {
	Name  string
	Value string
	JSON  bool // Value is JSON and parsed before it is put into env
	// Service: a service binding, without a value. The first of the list is the tenant's binding 1.
	Service bool
	// Secret is the value instead of Value, for a text that Load wipes when it returns.
	Secret []byte
}

func wipe(env []EnvVar) {
	for i := range env {
		clear(env[i].Secret)
	}
}

// LogEntry is one line of a tenant's console, as its shard claims.
type LogEntry struct {
	RequestID string // "" for start-up code
	TimeMs    float64
	Level     gen.LogEntry_Level
	Text      string // valid UTF-8
	Truncated bool
	Attempt   uint8
}

// LoadRequest says what to start. Bundle is a Cap'n Proto Bundle message in stream framing;
// it may come from a hostile bundler. Logs is called from one goroutine at a time, in order,
// and should not block for long: while it does, this tenant's log lines are dropped.
type LoadRequest struct {
	Tenant uint32
	Bundle []byte
	Env    []EnvVar
	Limits limits.Tenant
	Logs   func([]LogEntry)
	// Fetch performs a subrequest of the tenant, on a goroutine of its own, and returns when it is
	// over. Nil: the tenant has no way out.
	Fetch func(*Subrequest)
	// CodeCache is what Conn.CodeCache gave for this bundle in a shard of the same profile that no
	// other tenant had been in, or nil.
	CodeCache []byte
	// Begun, if not nil, is called when Open takes requests for the tenant: before it has started. They
	// wait in the shard; if it does not start, they end notLoaded, or killed.
	Begun func()
}

// LoadResult is how a load went. Failed is nil if the tenant runs.
type LoadResult struct {
	Handlers  []string
	CPUMicros uint64
	Failed    *LoadFailure
}

// LoadFailure says why a tenant's code does not start. It is the tenant's own error.
type LoadFailure struct {
	Outcome gen.Outcome
	File    string
	Line    uint32 // 0 when unknown
	Column  uint32
	Excerpt string
	Message string
	Stack   string
}

// Stats of a shard: claims, for operators.
type Stats struct {
	Tenants       []TenantStats
	IsolatesReady uint32
	Executors     uint32
	GoHeapBytes   uint64
}

// TenantStats of one tenant in a shard.
type TenantStats struct {
	Tenant        uint32
	HeapBytes     uint64
	ExternalBytes uint64
	CPUMicros     uint64
	InFlight      uint32

	// CPU that somebody outside could time closely, CPU of requests, and of it that of requests in lockstep; see
	// the schema.
	BracketedMicros uint64
	RequestMicros   uint64
	LockstepMicros  uint64
}

// dialControl starts RPC on the control socket.
func (c *Conn) dialControl(f io.ReadWriteCloser) {
	codec := ipc.NewControlCodec(f, ipc.ControlBytesFromShard).WithReadTimeout(c.opt.FrameTimeout)
	// The library ends as soon as a message is refused; which goroutine then comes first must not
	// decide whether a breach of the protocol counts as one.
	var breach atomic.Pointer[error]
	g := newGuard(rpc.NewTransport(codec), func(err error) {
		breach.CompareAndSwap(nil, &err)
		c.goRun(func() { c.fail(err) })
	})
	conn := rpc.NewConn(g, nil)
	c.control = conn
	c.shard = gen.Shard(conn.Bootstrap(context.Background()))
	close(c.dialed)
	c.goRun(func() {
		select {
		case <-conn.Done():
			if err := breach.Load(); err != nil {
				c.fail(*err)
			}
			c.fail(fmt.Errorf("control channel: %w", ErrPeerGone))
		case <-c.closed:
		}
	})
}

// Load starts a tenant in the shard. A tenant whose code is wrong is a result; an error means
// that the shard did not answer as it should.
func (c *Conn) Load(ctx context.Context, r LoadRequest) (LoadResult, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Limits.StartupCPU+loadSlack)
	defer cancel()
	defer wipe(r.Env)
	host := &tenantHost{c: c, logs: r.Logs}
	c.mu.Lock()
	if c.tenants[r.Tenant] != nil {
		c.mu.Unlock()
		return LoadResult{}, fmt.Errorf("load: tenant handle %d is in use in this shard", r.Tenant)
	}
	c.tenants[r.Tenant] = &tenant{limits: r.Limits, host: host, fetch: r.Fetch, bindings: bindings(r.Env)}
	c.mu.Unlock()
	if r.Begun != nil {
		r.Begun()
	}
	res, err := c.load(ctx, &r, host)
	if err != nil || res.Failed != nil {
		host.revoked.Store(true)
		c.mu.Lock()
		delete(c.tenants, r.Tenant)
		c.mu.Unlock()
	}
	return res, err
}

func (c *Conn) load(ctx context.Context, r *LoadRequest, host *tenantHost) (LoadResult, error) {
	msg, err := capnp.Unmarshal(r.Bundle)
	if err != nil {
		return LoadResult{}, fmt.Errorf("load: bundle: %w", err)
	}
	// A bundle whose pointers overlap must not grow when it is copied into the call.
	msg.TraverseLimit = uint64(2*len(r.Bundle) + 64<<10)
	bundle, err := gen.ReadRootBundle(msg)
	if err != nil {
		return LoadResult{}, fmt.Errorf("load: bundle: %w", err)
	}
	fut, release := c.shard.Load(ctx, func(p gen.Shard_load_Params) error {
		p.SetTenant(r.Tenant)
		if err := p.SetBundle(bundle); err != nil {
			return fmt.Errorf("bundle: %w", err)
		}
		err := setEnv(p, r.Env)
		wipe(r.Env) // what was copied is in the message alone, whose memory is wiped when it is released
		if err != nil {
			return fmt.Errorf("env: %w", err)
		}
		if err := setLimits(p, &r.Limits); err != nil {
			return fmt.Errorf("limits: %w", err)
		}
		if err := p.SetCodeCache(r.CodeCache); err != nil {
			return fmt.Errorf("code cache: %w", err)
		}
		return p.SetHost(gen.TenantHost_ServerToClient(host))
	})
	defer release()
	res, err := fut.Struct()
	if err != nil {
		return LoadResult{}, c.callError("load", err)
	}
	out, err := readLoadResult(res)
	if err != nil {
		return LoadResult{}, c.violated(err)
	}
	return out, nil
}

// callError explains a failed call: a connection's end is the better reason. What the shard says of
// it (an RPC exception) is cut: it goes into logs and incidents, and may be a megabyte.
func (c *Conn) callError(call string, err error) error {
	if end := c.Err(); end != nil {
		return fmt.Errorf("%s: %w", call, end)
	}
	if text := err.Error(); len(text) > maxReasonBytes {
		return fmt.Errorf("%s: %s (cut)", call, clean([]byte(text[:maxReasonBytes])))
	}
	return fmt.Errorf("%s: %w", call, err)
}

// violated ends the connection because of an answer that no honest shard gives.
func (c *Conn) violated(err error) error {
	v := ipc.Violation(ipc.KindControl, 0, "%v", err)
	c.fail(v)
	return v
}

// bindings counts the service bindings of an env.
func bindings(env []EnvVar) (n int) {
	for _, e := range env {
		if e.Service {
			n++
		}
	}
	return n
}

func setEnv(p gen.Shard_load_Params, env []EnvVar) error {
	list, err := p.NewEnv(int32(len(env)))
	if err != nil {
		return err
	}
	services := uint16(0)
	for i, e := range env {
		v := list.At(i)
		if e.Service {
			services++
			v.SetService(services)
			if err := v.SetName(e.Name); err != nil {
				return err
			}
			continue
		}
		set := v.SetText
		if e.Secret != nil {
			e.Value = unsafe.String(unsafe.SliceData(e.Secret), len(e.Secret)) // copied into the message by the call below
		}
		if e.JSON {
			set = v.SetJson
		}
		if err := errors.Join(v.SetName(e.Name), set(e.Value)); err != nil {
			return err
		}
	}
	return nil
}

func setLimits(p gen.Shard_load_Params, t *limits.Tenant) error {
	l, err := p.NewLimits()
	if err != nil {
		return err
	}
	l.SetCpuMs(uint32(t.CPU.Milliseconds()))
	l.SetStartupCpuMs(uint32(t.StartupCPU.Milliseconds()))
	l.SetWallMs(uint32(t.Wall.Milliseconds()))
	l.SetWaitUntilMs(uint32(t.WaitUntil.Milliseconds()))
	l.SetMemoryBytes(t.Memory)
	l.SetLogBytes(uint32(t.LogBytes))
	l.SetTimers(uint32(t.Timers))
	l.SetEvalAllowed(t.Eval)
	l.SetWasmAllowed(t.Wasm)
	l.SetSubrequests(uint32(t.Subrequests))
	l.SetPending(uint32(t.Pending))
	l.SetResponseBytes(t.ResponseBody)
	l.SetWeight(uint32(t.Weight))
	return nil
}

func readLoadResult(r gen.Shard_load_Results) (LoadResult, error) {
	res, err := r.Result()
	if err != nil || !res.IsValid() {
		return LoadResult{}, errors.New("load answered without a result")
	}
	switch res.Which() {
	case gen.LoadResult_Which_loaded:
		l, err := res.Loaded()
		if err != nil {
			return LoadResult{}, err
		}
		names, err := l.Handlers()
		if err != nil {
			return LoadResult{}, err
		}
		if names.Len() > maxHandlers {
			return LoadResult{}, fmt.Errorf("load answered with %d handlers", names.Len())
		}
		out := LoadResult{CPUMicros: l.CpuMicros()}
		for i := range names.Len() {
			n, err := names.BytesAt(i)
			if err != nil || len(n) > maxHandlerBytes {
				return LoadResult{}, errors.New("load answered with a bad handler name")
			}
			out.Handlers = append(out.Handlers, clean(n))
		}
		return out, nil
	case gen.LoadResult_Which_failed:
		f, err := res.Failed()
		if err != nil {
			return LoadResult{}, err
		}
		return readLoadFailure(f)
	default:
		return LoadResult{}, errors.New("load answered with an unknown result")
	}
}

func readLoadFailure(f gen.LoadFailure) (LoadResult, error) {
	d, err := f.Diagnostic()
	if err != nil {
		return LoadResult{}, err
	}
	out := &LoadFailure{Outcome: f.Outcome(), Line: d.Line(), Column: d.Column()}
	switch out.Outcome {
	case gen.Outcome_exception, gen.Outcome_exceededCpu, gen.Outcome_exceededMemory, gen.Outcome_loadShed, gen.Outcome_internalError:
	default:
		return LoadResult{}, fmt.Errorf("load failed with outcome %s", out.Outcome)
	}
	for _, t := range []struct {
		dst *string
		get func() ([]byte, error)
	}{{&out.File, d.FileBytes}, {&out.Excerpt, d.ExcerptBytes}, {&out.Message, d.Message_Bytes}, {&out.Stack, f.StackBytes}} {
		b, err := t.get()
		if err != nil {
			return LoadResult{}, err
		}
		if len(b) > maxFailureBytes {
			return LoadResult{}, fmt.Errorf("load failed with a text of %d bytes", len(b))
		}
		*t.dst = clean(b)
	}
	return LoadResult{Failed: out}, nil
}

// urgePing is how often a shard is asked while it evicts somebody: its threads that wait for the
// gateway wipe their stacks when they wake up. Then, once more, until what was written to it before is
// known to be read.
const urgePing = 2 * time.Millisecond

// Evict disposes of a tenant in the shard: when Evict returns nil, nothing of it is left there, nor in
// the sockets. Its streams end killed. Evicting what is not loaded is no error.
func (c *Conn) Evict(ctx context.Context, tenant uint32) error {
	ctx, cancel := context.WithTimeout(ctx, evictTimeout)
	defer cancel()
	c.mu.Lock()
	t := c.tenants[tenant]
	delete(c.tenants, tenant)
	c.mu.Unlock()
	if t == nil {
		return nil
	}
	fut, release := c.shard.Evict(ctx, func(p gen.Shard_evict_Params) error {
		p.SetTenant(tenant)
		return nil
	})
	defer release()
	tick := time.NewTicker(urgePing)
	defer tick.Stop()
	for done := false; !done; {
		c.pulse.urge()
		select {
		case <-fut.Done():
			done = true
		case <-tick.C:
		}
	}
	_, err := fut.Struct()
	t.host.revoked.Store(true)
	if err != nil {
		return c.callError("evict", err)
	}
	for asked := c.pulse.seq.Load(); int64(c.pulse.lastPong.Load()-asked) <= 0; {
		c.pulse.urge()
		select {
		case <-tick.C:
		case <-c.closed:
			return c.err
		case <-ctx.Done():
			return fmt.Errorf("evict: %w", ctx.Err())
		}
	}
	return nil
}

// Drain returns when no invocation runs in the shard. The caller has stopped opening streams.
func (c *Conn) Drain(ctx context.Context) error {
	fut, release := c.shard.Drain(ctx, nil)
	defer release()
	if _, err := fut.Struct(); err != nil {
		return c.callError("drain", err)
	}
	return nil
}

// Configure tells the shard what its process may hold, bytes, and how many tenants to expect.
func (c *Conn) Configure(ctx context.Context, memory uint64, maxTenants int) error {
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	fut, release := c.shard.Configure(ctx, func(p gen.Shard_configure_Params) error {
		p.SetMemoryBytes(memory)
		p.SetMaxTenants(uint32(maxTenants))
		return nil
	})
	defer release()
	if _, err := fut.Struct(); err != nil {
		return c.callError("configure", err)
	}
	return nil
}

// CodeCache asks for V8's code cache of a loaded tenant, empty if there is none. The bytes are as
// hostile as the shard: they may only ever be given to shards on behalf of the tenant that alone
// has been in this one.
func (c *Conn) CodeCache(ctx context.Context, tenant uint32) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	fut, release := c.shard.CodeCache(ctx, func(p gen.Shard_codeCache_Params) error {
		p.SetTenant(tenant)
		return nil
	})
	defer release()
	res, err := fut.Struct()
	if err != nil {
		return nil, c.callError("code cache", err)
	}
	b, err := res.Cache()
	if err != nil {
		return nil, c.violated(err)
	}
	return bytes.Clone(b), nil
}

// Stats asks the shard what it holds.
func (c *Conn) Stats(ctx context.Context) (Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	fut, release := c.shard.Stats(ctx, nil)
	defer release()
	res, err := fut.Struct()
	if err != nil {
		return Stats{}, c.callError("stats", err)
	}
	out, err := readStats(res)
	if err != nil {
		return Stats{}, c.violated(err)
	}
	return out, nil
}

func readStats(res gen.Shard_stats_Results) (Stats, error) {
	st, err := res.Stats()
	if err != nil {
		return Stats{}, err
	}
	list, err := st.Tenants()
	if err != nil {
		return Stats{}, err
	}
	if list.Len() > maxStatsTenants {
		return Stats{}, fmt.Errorf("stats of %d tenants", list.Len())
	}
	out := Stats{IsolatesReady: st.IsolatesReady(), Executors: st.Executors(), GoHeapBytes: st.GoHeapBytes()}
	for i := range list.Len() {
		t := list.At(i)
		out.Tenants = append(out.Tenants, TenantStats{Tenant: t.Tenant(), HeapBytes: t.HeapBytes(),
			ExternalBytes: t.ExternalBytes(), CPUMicros: t.CpuMicros(), InFlight: t.InFlight(),
			BracketedMicros: t.BracketedMicros(), RequestMicros: t.RequestMicros(), LockstepMicros: t.LockstepMicros()})
	}
	return out, nil
}

// tenantHost is all that a tenant's isolate can reach of the gateway.
type tenantHost struct {
	c       *Conn
	logs    func([]LogEntry)
	revoked atomic.Bool
}

// Log implements schema.TenantHost. The RPC server calls it once at a time.
func (h *tenantHost) Log(_ context.Context, call gen.TenantHost_log) error {
	if h.revoked.Load() || h.logs == nil {
		return nil
	}
	entries, err := readLogEntries(call.Args())
	if err != nil {
		return h.c.violated(fmt.Errorf("log: %w", err))
	}
	h.logs(entries)
	return nil
}

func readLogEntries(args gen.TenantHost_log_Params) ([]LogEntry, error) {
	list, err := args.Entries()
	if err != nil {
		return nil, err
	}
	if list.Len() > maxLogEntries {
		return nil, fmt.Errorf("%d entries, limit %d", list.Len(), maxLogEntries)
	}
	entries := make([]LogEntry, 0, list.Len())
	for i := range list.Len() {
		e := list.At(i)
		id, err1 := e.RequestIdBytes()
		text, err2 := e.TextBytes()
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		if len(id) > maxRequestIDBytes || len(text) > maxLogTextBytes || e.Level() > gen.LogEntry_Level_error {
			return nil, fmt.Errorf("entry %d is out of range", i)
		}
		entries = append(entries, LogEntry{RequestID: clean(id), TimeMs: e.TimeMs(), Level: e.Level(),
			Text: clean(text), Truncated: e.Truncated(), Attempt: e.Attempt()})
	}
	return entries, nil
}

// clean copies a shard's text as valid UTF-8.
func clean(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }
