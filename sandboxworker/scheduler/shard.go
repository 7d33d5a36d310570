package scheduler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/metrics"
	"time"

	"bulkhead/sandboxworker/engine"
	"bulkhead/schema/gen"
)

// Shard is the control channel's face of a scheduler: schema.Shard.
type Shard struct{ s *Scheduler }

var _ gen.Shard_Server = Shard{}

// Shard returns the server for the control channel.
func (s *Scheduler) Shard() Shard { return Shard{s} }

var errStopped = errors.New("this shard is stopping")

// Load implements schema.Shard.
func (h Shard) Load(ctx context.Context, call gen.Shard_load) error {
	call.Go() // other calls need not wait for this tenant's start
	t, err := newTenant(call.Args())
	s := h.s
	if err != nil {
		s.mu.Lock()
		s.missed(call.Args().Tenant(), gen.Outcome_notLoaded, "its load was refused: "+err.Error())
		s.mu.Unlock()
		return fmt.Errorf("load: %w", err)
	}
	replied := make(chan *loadReply, 1)
	s.mu.Lock()
	switch {
	case s.stopped:
		s.mu.Unlock()
		t.logs.host.Release()
		return errStopped
	case s.tenants[t.handle] != nil:
		s.mu.Unlock()
		t.logs.host.Release()
		return fmt.Errorf("load: tenant handle %d is in use", t.handle)
	}
	s.tenants[t.handle] = t
	s.expect()
	s.post(t, event{kind: evLoad, done: func(r *loadReply) { replied <- r }})
	s.arrived(t)
	s.call()
	s.mu.Unlock()
	select {
	case r := <-replied:
		if r.failed != nil {
			if err := s.scrubbed(ctx, t); err != nil {
				return err
			}
		}
		return answerLoad(call, r)
	case <-s.stop:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// newTenant copies what a load call says: the message is gone when the call is answered.
func newTenant(a gen.Shard_load_Params) (*tenant, error) {
	l, err := a.Limits()
	if err != nil {
		return nil, err
	}
	ms := func(n uint32) time.Duration { return time.Duration(n) * time.Millisecond }
	t := &tenant{
		handle: a.Tenant(),
		due:    -1,
		invs:   make(map[uint32]*invocation),
		subs:   make(map[uint32]*subrequest),
		limits: tenantLimits{
			cpu: ms(l.CpuMs()), startupCPU: ms(l.StartupCpuMs()), wall: ms(l.WallMs()), waitUntil: ms(l.WaitUntilMs()),
			memory: l.MemoryBytes(), logBytes: int(l.LogBytes()), timers: int(l.Timers()),
			responseBytes: l.ResponseBytes(), subrequests: int(l.Subrequests()), pending: int(l.Pending()), weight: int(l.Weight()),
			eval: l.EvalAllowed(), wasm: l.WasmAllowed(),
		},
	}
	if t.limits.cpu == 0 || t.limits.startupCPU == 0 || t.limits.wall == 0 || t.limits.memory == 0 ||
		t.limits.responseBytes == 0 || t.limits.pending == 0 {
		return nil, errors.New("a limit of zero is not a limit")
	}
	if t.limits.weight == 0 {
		t.limits.weight = usualWeight
	}
	b, err := a.Bundle()
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	if t.bundle, err = readBundle(b); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	cache, err := a.CodeCache()
	if err != nil {
		return nil, fmt.Errorf("code cache: %w", err)
	}
	t.bundle.CodeCache = bytes.Clone(cache)
	env, err := a.Env()
	if err != nil {
		return nil, fmt.Errorf("env: %w", err)
	}
	for i := range env.Len() {
		v, err := readEnv(env.At(i))
		if err != nil {
			return nil, fmt.Errorf("env: %w", err)
		}
		t.env = append(t.env, v)
		if env.At(i).Which() == gen.EnvVar_Which_service {
			t.bindings++
		}
	}
	t.logs = &tenantLog{host: a.Host().AddRef(), gone: make(chan struct{})}
	return t, nil
}

func readBundle(b gen.Bundle) (engine.Bundle, error) {
	main, err := b.Main()
	if err != nil {
		return engine.Bundle{}, err
	}
	mods, err := b.Modules()
	if err != nil {
		return engine.Bundle{}, err
	}
	out := engine.Bundle{Main: main, Modules: make([]engine.Module, 0, mods.Len())}
	for i := range mods.Len() {
		m := mods.At(i)
		name, err := m.Name()
		if err != nil {
			return engine.Bundle{}, err
		}
		code, err := m.Code()
		if err != nil {
			return engine.Bundle{}, err
		}
		out.Modules = append(out.Modules, engine.Module{Name: name, Kind: m.Kind(), Code: bytes.Clone(code)})
	}
	return out, nil
}

func readEnv(v gen.EnvVar) (engine.EnvVar, error) {
	name, err := v.Name()
	if err != nil {
		return engine.EnvVar{}, err
	}
	out := engine.EnvVar{Name: name}
	if v.Which() == gen.EnvVar_Which_service {
		return serviceVar(name, v.Service()), nil
	}
	if v.Which() == gen.EnvVar_Which_json {
		out.JSON = true
		out.Value, err = v.Json()
	} else {
		out.Value, err = v.Text()
	}
	return out, err
}

// answerLoad fills in the result of a load.
func answerLoad(call gen.Shard_load, r *loadReply) error {
	res, err := call.AllocResults()
	if err != nil {
		return err
	}
	out, err := res.NewResult()
	if err != nil {
		return err
	}
	if f := r.failed; f != nil {
		return fillFailure(out, f)
	}
	l, err := out.NewLoaded()
	if err != nil {
		return err
	}
	l.SetCpuMicros(uint64(r.cpu.Microseconds()))
	names, err := l.NewHandlers(int32(len(r.handlers)))
	if err != nil {
		return err
	}
	for i, n := range r.handlers {
		if err := names.Set(i, n); err != nil {
			return err
		}
	}
	return nil
}

// maxFailureText bounds each text of a load failure, as the gateway expects.
const maxFailureText = 8 << 10

func fillFailure(out gen.LoadResult, f *failure) error {
	o, err := out.NewFailed()
	if err != nil {
		return err
	}
	o.SetOutcome(f.outcome)
	d, err := o.NewDiagnostic()
	if err != nil {
		return err
	}
	d.SetLine(f.Line)
	d.SetColumn(f.Column)
	return errors.Join(
		d.SetFile(cut(f.File, maxFailureText)), d.SetExcerpt(cut(f.Excerpt, maxFailureText)),
		d.SetMessage_(cut(f.Message, maxFailureText)), o.SetStack(cut(f.Stack, maxFailureText)))
}

// Configure implements schema.Shard.
func (h Shard) Configure(_ context.Context, call gen.Shard_configure) error {
	a := call.Args()
	if a.MemoryBytes() == 0 || a.MaxTenants() == 0 {
		return errors.New("configure: a limit of zero is not a limit")
	}
	h.s.mu.Lock()
	h.s.opt.MemoryBytes, h.s.opt.MaxTenants = a.MemoryBytes(), int(a.MaxTenants())
	h.s.expect()
	h.s.mu.Unlock()
	_, err := call.AllocResults()
	return err
}

// expect tells the pool how many tenants may still come. Caller holds mu.
func (s *Scheduler) expect() { s.pool.expect(s.opt.MaxTenants - len(s.tenants)) }

// Evict implements schema.Shard. Evicting what is not here is no error. It returns when nothing of the
// tenant is left.
func (h Shard) Evict(ctx context.Context, call gen.Shard_evict) error {
	call.Go()
	s := h.s
	s.mu.Lock()
	t := s.tenants[call.Args().Tenant()]
	if t == nil || s.stopped {
		s.mu.Unlock()
		return nil
	}
	gone := make(chan struct{})
	t.evict = append(t.evict, gone)
	s.runnable(t)
	s.call()
	s.mu.Unlock()
	for _, x := range s.executors {
		x.terminateTenant(t, engine.ReasonEvict)
	}
	select {
	case <-gone:
		return s.scrubbed(ctx, t)
	case <-s.stop:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stats implements schema.Shard.
func (h Shard) Stats(_ context.Context, call gen.Shard_stats) error {
	res, err := call.AllocResults()
	if err != nil {
		return err
	}
	st, err := res.NewStats()
	if err != nil {
		return err
	}
	s := h.s
	s.mu.Lock()
	all := make([]*tenant, 0, len(s.tenants))
	for _, t := range s.tenants {
		all = append(all, t)
	}
	alive := s.threads.alive
	s.mu.Unlock()
	st.SetIsolatesReady(uint32(s.pool.count()))
	st.SetExecutors(uint32(alive))
	st.SetGoHeapBytes(goHeap())
	list, err := st.NewTenants(int32(len(all)))
	if err != nil {
		return err
	}
	for i, t := range all {
		e := list.At(i)
		e.SetTenant(t.handle)
		e.SetCpuMicros(uint64(t.cpu.Load() / 1000))
		e.SetInFlight(uint32(t.inFlight.Load()))
		e.SetHeapBytes(t.heap.Load())
		e.SetExternalBytes(t.external.Load())
		e.SetBracketedMicros(uint64(t.bracketed.Load() / 1000))
		e.SetRequestMicros(uint64(t.requestCPU.Load() / 1000))
		e.SetLockstepMicros(uint64(t.lockstep.Load() / 1000))
	}
	return nil
}

// goHeap is the Go heap in use, bytes. Unlike runtime.ReadMemStats it stops nobody: a shard at work is
// asked several times a second.
func goHeap() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64() + s[1].Value.Uint64()
}

// Drain implements schema.Shard.
func (h Shard) Drain(ctx context.Context, call gen.Shard_drain) error {
	call.Go()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		h.s.mu.Lock()
		n, stopped := len(h.s.streams), h.s.stopped
		h.s.mu.Unlock()
		if n == 0 || stopped {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
