//go:debug containermaxprocs=0
//go:debug decoratemappings=0
//go:debug updatemaxprocs=0

// Command hostileworker is a worker gone bad, for the protocol suite: it seals itself with the
// production code and answers like a shard, until a request's path, or a string in a tenant's code,
// tells it which lie to tell the gateway. No build that serves tenants contains it.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"

	"capnproto.org/go/capnp/v3"
	"capnproto.org/go/capnp/v3/flowcontrol"
	"capnproto.org/go/capnp/v3/rpc"

	"bulkhead/sandboxworker/lockdown"
	"bulkhead/schema/gen"
)

const (
	controlFD  = 3
	dataFD     = 4
	blackBoxFD = 5
	boxBytes   = 4096
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "hostileworker:", err)
		os.Exit(1)
	}
}

// world is what a compromised worker has in its hands.
type world struct {
	data    *os.File
	control *os.File
	box     []byte // the black box, mapped

	mu    sync.Mutex
	hosts map[uint32]gen.TenantHost // guarded by mu; by tenant handle
	held  map[uint64]uint32         // guarded by mu; open streams that wait, and their tenants
	pongs func(n uint64) []byte     // guarded by mu; how pings are answered, nil: honestly
	fetch uint64                    // guarded by mu; last subrequest's number
}

func run() error {
	for _, fd := range []int{controlFD, dataFD} {
		if err := syscall.SetNonblock(fd, true); err != nil {
			return fmt.Errorf("fd %d: %w", fd, err)
		}
	}
	w := &world{data: os.NewFile(dataFD, "data"), control: os.NewFile(controlFD, "control"), hosts: map[uint32]gen.TenantHost{}, held: map[uint64]uint32{}}
	var err error
	if w.box, err = syscall.Mmap(blackBoxFD, 0, boxBytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED); err != nil {
		return fmt.Errorf("map the black box: %w", err)
	}
	defaultFaults()
	time.Sleep(time.Millisecond) // the poller and its timer exist before the seal
	if err := lockdown.Seal(); err != nil {
		return err
	}
	conn := rpc.NewConn(rpc.NewStreamTransport(w.control), &rpc.Options{BootstrapClient: capnp.Client(gen.Shard_ServerToClient(&shard{w}))})
	defer conn.Close()
	in := &frames{r: w.data}
	for {
		f, err := in.next()
		if err != nil {
			return err
		}
		switch f.Which() {
		case gen.Frame_Which_open:
			open, err := f.Open()
			if err != nil {
				return err
			}
			target, err := open.Url()
			if err != nil {
				return err
			}
			u, err := url.Parse(target)
			if err != nil {
				return err
			}
			if err := w.act(u.Path, f.Stream(), open.Tenant(), open.Attempt()); err != nil {
				return err
			}
		case gen.Frame_Which_abort:
			w.mu.Lock()
			_, held := w.held[f.Stream()]
			delete(w.held, f.Stream())
			w.mu.Unlock()
			if held {
				w.say(done(f.Stream(), gen.Outcome_killed))
			}
		case gen.Frame_Which_ping:
			w.mu.Lock()
			pongs := w.pongs
			w.mu.Unlock()
			n := f.Ping()
			b := frame(0, func(f gen.Frame) { f.SetPong(n) })
			if pongs != nil {
				b = pongs(n)
			}
			if _, err := w.data.Write(b); err != nil {
				return err
			}
		}
	}
}

// act answers one request as its path says. The first attempt lies; a replay tells who is asked to
// hold on that it is one.
func (w *world) act(path string, stream uint64, tenant uint32, attempt uint8) error {
	if path == "/hold" && attempt == 1 {
		w.mu.Lock()
		w.held[stream] = tenant
		w.mu.Unlock()
		return nil
	}
	if path == "/box-frame" && attempt > 1 {
		return w.well(stream) // who dies again, alone, has given itself away
	}
	if do, ok := deeds[path]; ok {
		go do(w, stream, tenant)
		return nil
	}
	lie, ok := lies[path]
	if !ok {
		return w.well(stream)
	}
	_, err := w.data.Write(lie(stream))
	return err
}

// well is an honest answer.
func (w *world) well(stream uint64) error {
	_, err := w.data.Write(append(head(stream, 200, "content-type\ntext/plain\n", []byte("well")), done(stream, gen.Outcome_ok)...))
	return err
}

// say writes to the data channel. That the gateway has hung up is what a liar expects.
func (w *world) say(b []byte) bool { _, err := w.data.Write(b); return err == nil }

// frames reads the gateway's frames, which are trusted here.
type frames struct {
	r io.Reader
}

func (f *frames) next() (gen.Frame, error) {
	var header [8]byte
	if _, err := io.ReadFull(f.r, header[:]); err != nil {
		return gen.Frame{}, err
	}
	b := make([]byte, 8+8*int(binary.LittleEndian.Uint32(header[4:])))
	copy(b, header[:])
	if _, err := io.ReadFull(f.r, b[8:]); err != nil {
		return gen.Frame{}, err
	}
	msg, err := capnp.Unmarshal(b)
	if err != nil {
		return gen.Frame{}, err
	}
	return gen.ReadRootFrame(msg)
}

// shard answers the control channel as a good shard would, but to tenants whose code says otherwise.
type shard struct{ w *world }

func (s *shard) Load(ctx context.Context, call gen.Shard_load) error {
	args := call.Args()
	host := args.Host().AddRef()
	host.SetFlowLimiter(flowcontrol.NewFixedLimiter(1 << 40)) // who floods does not limit itself
	s.w.mu.Lock()
	s.w.hosts[args.Tenant()] = host
	s.w.mu.Unlock()
	lie := loadLie(args)
	res, err := call.AllocResults()
	if err != nil {
		return err
	}
	if lie != nil {
		return lie(ctx, res)
	}
	result, err := res.NewResult()
	if err != nil {
		return err
	}
	loaded, err := result.NewLoaded()
	if err != nil {
		return err
	}
	handlers, err := loaded.NewHandlers(1)
	if err != nil {
		return err
	}
	return handlers.Set(0, "fetch")
}

func (s *shard) Configure(context.Context, gen.Shard_configure) error { return nil }

// CodeCache answers with twice what a control message may hold: it is asked for one of tenants from 4 KiB of code up.
func (s *shard) CodeCache(_ context.Context, call gen.Shard_codeCache) error {
	res, err := call.AllocResults()
	if err != nil {
		return err
	}
	return res.SetCache(make([]byte, 2<<20))
}

func (s *shard) Evict(context.Context, gen.Shard_evict) error { return nil }

func (s *shard) Stats(_ context.Context, call gen.Shard_stats) error {
	res, err := call.AllocResults()
	if err != nil {
		return err
	}
	_, err = res.NewStats()
	return err
}

func (s *shard) Drain(context.Context, gen.Shard_drain) error { return nil }
