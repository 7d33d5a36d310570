package gatewayside_test

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/ipc/ipctest"
	"bulkhead/policy/limits"
	"bulkhead/schema/gen"

	capnp "capnproto.org/go/capnp/v3"
	"capnproto.org/go/capnp/v3/flowcontrol"
	rpccp "capnproto.org/go/capnp/v3/std/capnp/rpc"
	"golang.org/x/sys/unix"
)

// rpcMessage encodes one RPC message.
func rpcMessage(t testing.TB, fill func(rpccp.Message) error) []byte {
	t.Helper()
	m, seg, err := capnp.NewMessage(capnp.SingleSegment(nil))
	if err != nil {
		t.Fatal(err)
	}
	root, err := rpccp.NewRootMessage(seg)
	if err != nil {
		t.Fatal(err)
	}
	if err := fill(root); err != nil {
		t.Fatal(err)
	}
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// bootstrapAnswer answers question 0 with a capability of the shard's own, as an honest one does.
func bootstrapAnswer(m rpccp.Message) error {
	r, err := m.NewReturn()
	if err != nil {
		return err
	}
	p, err := r.NewResults()
	if err != nil {
		return err
	}
	caps, err := p.NewCapTable(1)
	if err != nil {
		return err
	}
	caps.At(0).SetSenderHosted(0)
	return p.SetContent(capnp.NewInterface(p.Segment(), 0).ToPtr())
}

func logCall(id, target uint32) func(rpccp.Message) error {
	return func(m rpccp.Message) error {
		c, err := m.NewCall()
		if err != nil {
			return err
		}
		c.SetQuestionId(id)
		c.SetInterfaceId(gen.TenantHost_TypeID)
		t, err := c.NewTarget()
		if err != nil {
			return err
		}
		t.SetImportedCap(target)
		_, err = c.NewParams()
		return err
	}
}

// awaitBootstrap reads the gateway's first question, without which its answer cannot be judged.
func awaitBootstrap(t testing.TB, peer *ipctest.Peer) {
	t.Helper()
	for {
		_, err := unix.Read(peer.Control, make([]byte, 4096))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
}

func TestHostileControl(t *testing.T) {
	type message = func(rpccp.Message) error
	ret := func(id uint32, fill func(rpccp.Return) error) message {
		return func(m rpccp.Message) error {
			r, err := m.NewReturn()
			if err != nil {
				return err
			}
			r.SetAnswerId(id)
			return fill(r)
		}
	}
	for _, c := range []struct {
		name string
		raw  []byte
		msgs []message
	}{
		{name: "text", raw: []byte("HTTP/1.1 200 OK\r\n\r\n")},
		{name: "512 segments", raw: binary.LittleEndian.AppendUint32(nil, 511)},
		{name: "4 G segments", raw: []byte("\xff\xff\xff\xff")},
		{name: "1 GiB", raw: []byte{0, 0, 0, 0, 0, 0, 0, 8}},
		{name: "no root", raw: make([]byte, 8)},
		{name: "null root", raw: []byte{0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
		{name: "bootstrap of the gateway", msgs: []message{func(m rpccp.Message) error { _, err := m.NewBootstrap(); return err }}},
		{name: "a question never asked", msgs: []message{ret(7, func(r rpccp.Return) error { _, err := r.NewException(); return err })}},
		{name: "an answer twice", msgs: []message{bootstrapAnswer, bootstrapAnswer}},
		{name: "the gateway's own question", msgs: []message{ret(0, func(r rpccp.Return) error { r.SetTakeFromOtherQuestion(0); return nil })}},
		{name: "no bootstrap capability", msgs: []message{ret(0, func(r rpccp.Return) error { _, err := r.NewResults(); return err })}},
		{name: "a refused bootstrap", msgs: []message{ret(0, func(r rpccp.Return) error { _, err := r.NewException(); return err })}},
		{name: "null return", msgs: []message{func(m rpccp.Message) error { return m.SetReturn(rpccp.Return{}) }}},
		{name: "null call", msgs: []message{func(m rpccp.Message) error { return m.SetCall(rpccp.Call{}) }}},
		{name: "results elsewhere", msgs: []message{ret(0, func(r rpccp.Return) error { r.SetResultsSentElsewhere(); return nil })}},
		{name: "third party", msgs: []message{ret(0, func(r rpccp.Return) error { return r.SetAwaitFromThirdParty(capnp.Ptr{}) })}},
		{name: "a cap of the gateway's", msgs: []message{func(m rpccp.Message) error {
			if err := bootstrapAnswer(m); err != nil {
				return err
			}
			r, _ := m.Return()
			p, _ := r.Results()
			caps, err := p.CapTable()
			caps.At(0).SetReceiverHosted(0)
			return err
		}}},
		{name: "accept", msgs: []message{func(m rpccp.Message) error { _, err := m.NewAccept(); return err }}},
		{name: "provide", msgs: []message{func(m rpccp.Message) error { _, err := m.NewProvide(); return err }}},
		{name: "join", msgs: []message{func(m rpccp.Message) error { _, err := m.NewJoin(); return err }}},
		{name: "disembargo", msgs: []message{func(m rpccp.Message) error { _, err := m.NewDisembargo(); return err }}},
		{name: "resolve", msgs: []message{func(m rpccp.Message) error { _, err := m.NewResolve(); return err }}},
		{name: "unimplemented", msgs: []message{func(m rpccp.Message) error { _, err := m.NewUnimplemented(); return err }}},
		{name: "obsolete", msgs: []message{func(m rpccp.Message) error { return m.SetObsoleteSave(capnp.Ptr{}) }}},
		{name: "unknown type", msgs: []message{func(m rpccp.Message) error { capnp.Struct(m).SetUint16(0, 99); return nil }}},
		{name: "guessed capability", msgs: []message{logCall(0, 0)}},
		{name: "capability 2^32-1", msgs: []message{logCall(0, 1<<32-1)}},
		{name: "finish of nothing", msgs: []message{func(m rpccp.Message) error { _, err := m.NewFinish(); return err }}},
		{name: "release of nothing", msgs: []message{func(m rpccp.Message) error {
			r, err := m.NewRelease()
			r.SetReferenceCount(1)
			return err
		}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			pair := ipctest.NewPair(t)
			peer := ipctest.NewPeer(t, pair)
			var reported atomic.Int32
			conn, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{OnViolation: func(error) { reported.Add(1) }})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			awaitBootstrap(t, peer)
			raw := c.raw
			for _, m := range c.msgs {
				raw = append(raw, rpcMessage(t, m)...)
			}
			if _, err := unix.Write(peer.Control, raw); err != nil {
				t.Fatal(err)
			}
			within(t, "violation", conn.Closed())
			var v *ipc.ViolationError
			if !errors.As(conn.Err(), &v) || v.Kind != ipc.KindControl {
				t.Errorf("ended with %v", conn.Err())
			}
			conn.Close()
			if reported.Load() != 1 {
				t.Errorf("reported %d times", reported.Load())
			}
		})
	}
}

// A shard that never answers a load costs the caller its deadline and nothing else.
func TestLoadIsNotAwaitedForever(t *testing.T) {
	pair := ipctest.NewPair(t)
	ipctest.NewPeer(t, pair)
	conn, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{PingTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now() // a minute passes before the shard counts as dead
	_, err = conn.Load(ctx, gatewayside.LoadRequest{Tenant: 1, Bundle: ipctest.Bundle(t, ""), Limits: limits.DefaultTenant()})
	if err == nil || time.Since(began) > 30*time.Second {
		t.Errorf("Load = %v after %v", err, time.Since(began))
	}
	if _, err := conn.Stats(ctx); err == nil {
		t.Error("Stats answered")
	}
}

// An honest shard's log calls pile up unanswered only as far as allowed, in number and in bytes.
func TestFloodOfLogs(t *testing.T) {
	t.Run("small", func(t *testing.T) { floodOfLogs(t, 0, 2000) })
	t.Run("large", func(t *testing.T) { floodOfLogs(t, 200<<10, 60) }) // 12 MB, fewer calls than are allowed
}

func floodOfLogs(t *testing.T, text, calls int) {
	pair := ipctest.NewPair(t)
	shard := &ipctest.Shard{Handle: hello}
	hosts := make(chan gen.TenantHost, 1)
	shard.Loaded = func(_ uint32, h gen.TenantHost) { hosts <- h.AddRef() }
	ipctest.StartShard(t, pair, shard)
	conn, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	release := make(chan struct{})
	_, err = conn.Load(t.Context(), gatewayside.LoadRequest{Tenant: 1, Bundle: ipctest.Bundle(t, ""), Limits: limits.DefaultTenant(),
		Logs: func([]gatewayside.LogEntry) { <-release }})
	if err != nil {
		t.Fatal(err)
	}
	defer close(release)
	host := <-hosts
	defer host.Release()
	host.SetFlowLimiter(flowcontrol.NewFixedLimiter(1 << 40)) // a hostile shard does not limit itself
	for range calls {
		err := host.Log(t.Context(), func(p gen.TenantHost_log_Params) error {
			es, err := p.NewEntries(1)
			if err != nil {
				return err
			}
			return es.At(0).SetText(strings.Repeat("x", text))
		})
		if err != nil {
			break
		}
	}
	within(t, "flood", conn.Closed())
	var v *ipc.ViolationError
	if !errors.As(conn.Err(), &v) || v.Kind != ipc.KindControl {
		t.Errorf("ended with %v", conn.Err())
	}
}

// A shard that has broken the protocol before it is dialled ends its connection, not the gateway:
// the first message is judged while the connection is still being made.
func TestViolationWhileDialling(t *testing.T) {
	for range 200 {
		pair := ipctest.NewPair(t)
		peer := ipctest.NewPeer(t, pair)
		unix.Write(peer.Control, []byte("garbage garbage garbage"))
		conn, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{})
		if err != nil {
			t.Fatal(err)
		}
		within(t, "violation", conn.Closed())
		var v *ipc.ViolationError
		if !errors.As(conn.Err(), &v) {
			t.Errorf("ended with %v", conn.Err())
		}
		conn.Close()
		pair.Shutdown()
	}
}

// A shard that waits for each answer, as an honest one does, may log for ever, although its RPC
// library says some time after the answer only that it is done with a call.
func TestLogsThatWaitAreNoFlood(t *testing.T) {
	pair := ipctest.NewPair(t)
	shard := &ipctest.Shard{Handle: hello}
	hosts := make(chan gen.TenantHost, 1)
	shard.Loaded = func(_ uint32, h gen.TenantHost) { hosts <- h.AddRef() }
	ipctest.StartShard(t, pair, shard)
	conn, err := gatewayside.Dial(pair.GatewayControl, pair.GatewayData, gatewayside.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var seen atomic.Int64
	_, err = conn.Load(t.Context(), gatewayside.LoadRequest{Tenant: 1, Bundle: ipctest.Bundle(t, ""), Limits: limits.DefaultTenant(),
		Logs: func(e []gatewayside.LogEntry) { seen.Add(int64(len(e))) }})
	if err != nil {
		t.Fatal(err)
	}
	host := <-hosts
	defer host.Release()
	for n := range 3000 {
		err := host.Log(t.Context(), func(p gen.TenantHost_log_Params) error {
			es, err := p.NewEntries(1)
			if err != nil {
				return err
			}
			return es.At(0).SetText("line")
		})
		if err == nil {
			err = host.WaitStreaming()
		}
		if err != nil {
			t.Fatalf("call %d: %v; %v", n, err, conn.Err())
		}
		if n%64 == 0 {
			time.Sleep(time.Millisecond) // a worker pauses more often than that
		}
	}
	if conn.Err() != nil || seen.Load() != 3000 {
		t.Errorf("%d lines, %v", seen.Load(), conn.Err())
	}
}
