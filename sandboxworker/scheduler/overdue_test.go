package scheduler

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/ipctest"
	"bulkhead/ipc/workerside"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"

	capnp "capnproto.org/go/capnp/v3"
)

// overdueEnv marks the child of TestOverdue and says which turn is stuck in it.
const overdueEnv = "SCHEDULER_TEST_OVERDUE"

// rawShard is a scheduler with nothing but bytes at the gateway's end of its data channel.
type rawShard struct {
	t     testing.TB
	s     *Scheduler
	shard gen.Shard
	data  *os.File
	sc    *ipc.Scanner
}

func startRaw(t testing.TB, opt Options) *rawShard {
	t.Helper()
	p := ipctest.NewPair(t)
	w := limits.DefaultWire()
	s, err := New(testEngine, workerside.NewData(p.Data, &w), opt)
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- s.Run() }()
	shard := gen.Shard_ServerToClient(s.Shard())
	t.Cleanup(func() {
		p.Shutdown()
		if err := <-ran; err != nil {
			t.Errorf("Run = %v", err)
		}
		shard.Release()
		p.GatewayControl.Close()
		p.GatewayData.Close()
		syscall.Close(p.Control)
		syscall.Close(p.Data)
	})
	return &rawShard{t: t, s: s, shard: shard, data: p.GatewayData, sc: ipc.NewScanner(&w)}
}

// load starts a tenant; the answer is left to itself.
func (r *rawShard) load(tenant uint32, source string, l limits.Tenant) (gen.Shard_load_Results_Future, func()) {
	r.t.Helper()
	msg, err := capnp.Unmarshal(ipctest.Bundle(r.t, source))
	if err != nil {
		r.t.Fatal(err)
	}
	bundle, err := gen.ReadRootBundle(msg)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.shard.Load(r.t.Context(), func(p gen.Shard_load_Params) error {
		p.SetTenant(tenant)
		if err := p.SetBundle(bundle); err != nil {
			return err
		}
		to, err := p.NewLimits()
		if err != nil {
			return err
		}
		to.SetCpuMs(uint32(l.CPU.Milliseconds()))
		to.SetStartupCpuMs(uint32(l.StartupCPU.Milliseconds()))
		to.SetWallMs(uint32(l.Wall.Milliseconds()))
		to.SetWaitUntilMs(uint32(l.WaitUntil.Milliseconds()))
		to.SetMemoryBytes(l.Memory)
		to.SetPending(uint32(l.Pending))
		to.SetResponseBytes(l.ResponseBody)
		to.SetLogBytes(uint32(l.LogBytes))
		to.SetTimers(uint32(l.Timers))
		return nil
	})
}

func (r *rawShard) mustLoad(tenant uint32, source string, l limits.Tenant) {
	r.t.Helper()
	fut, release := r.load(tenant, source, l)
	defer release()
	res, err := fut.Struct()
	if err != nil {
		r.t.Fatal(err)
	}
	if got, err := res.Result(); err != nil || got.Which() != gen.LoadResult_Which_loaded {
		r.t.Fatalf("load: %v, %v", got.Which(), err)
	}
}

func (r *rawShard) send(fill func(*ipc.Batch)) {
	r.t.Helper()
	var b ipc.Batch
	fill(&b)
	if _, err := r.data.Write(b.Bytes()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rawShard) get(stream uint64, tenant uint32, path string) {
	r.t.Helper()
	r.send(func(b *ipc.Batch) {
		b.Open(stream, &ipc.Open{Tenant: tenant, Method: "GET", URL: "http://t.localhost" + path, RequestID: "r", Attempt: 1})
	})
}

// next reads a frame; it is valid until the next call.
func (r *rawShard) next() gen.Frame {
	r.t.Helper()
	for {
		f, ok, err := r.sc.Next()
		if err != nil {
			r.t.Fatal(err)
		}
		if ok {
			return f
		}
		n, err := r.data.Read(r.sc.Free())
		if err != nil {
			r.t.Fatal(err)
		}
		r.sc.Fill(n)
	}
}

// A turn in a builtin that cannot be interrupted is reported once, at 100 ms of CPU beyond its
// limit, and ends the process if nobody else does.
func TestOverdue(t *testing.T) {
	const cpu, startup = 60 * time.Millisecond, 400 * time.Millisecond
	const fill = `const big = new Float64Array(8e6); for (let i = 0; i < big.length; i++) big[i] = (i * 2654435761) % 4294967296;`
	const stuck = `for (let i = 0; i < 99; i++) big.sort().reverse();`
	cases := []struct {
		name, top, handler string
		wall               time.Duration
		want               string
	}{
		{"handler", fill, stuck, 30 * time.Second, "overdue stream 7 tenant 5 limit 60000"},
		{"start-up", fill + stuck, "", 30 * time.Second, "overdue stream 0 tenant 5 limit 400000"},
		{"wall clock", fill, stuck, 100 * time.Millisecond, "overdue stream 7 tenant 5 limit 10000000"},
	}
	for _, c := range cases {
		limit := limits.DefaultTenant()
		limit.CPU, limit.StartupCPU, limit.Wall = cpu, startup, c.wall
		if c.wall < time.Second {
			limit.CPU = 10 * time.Second
		}
		if os.Getenv(overdueEnv) == c.name {
			r := startRaw(t, Options{})
			source := c.top + "\nexport default { fetch() { " + c.handler + " } }"
			if c.handler == "" {
				_, release := r.load(5, source, limit)
				defer release()
			} else {
				r.mustLoad(5, source, limit)
				r.get(7, 5, "/")
			}
			for {
				f := r.next()
				if f.Which() != gen.Frame_Which_overdue {
					d, err := ipc.DecodeDone(f, &r.s.opt.Wire)
					t.Fatal("unexpected", f.Which(), d, err)
				}
				o, err := ipc.DecodeOverdue(f)
				fmt.Println("overdue stream", f.Stream(), "tenant", o.Tenant, "limit", o.LimitMicros, "cpu", o.CPUMicros, err)
			}
		}
		if os.Getenv(overdueEnv) != "" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			end, out := childOf(t, "TestOverdue", overdueEnv+"="+c.name)
			if end.ExitCode() != ipc.ExitOverdue {
				t.Errorf("the process ended: %v", end)
			}
			if strings.Count(out, "overdue stream") != 1 || !strings.Contains(out, c.want) || strings.Contains(out, "unexpected") {
				t.Errorf("it said:\n%s", out)
			}
			t.Log(out)
		})
	}
}
