package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"capnproto.org/go/capnp/v3"
	rpccp "capnproto.org/go/capnp/v3/std/capnp/rpc"

	"bulkhead/schema/gen"
)

// rpcLies are RPC messages that break the protocol, by path. They go out between those of the RPC
// library, which is honest and knows nothing of them.
var rpcLies = map[string]func() []byte{
	"/rpc-garbage":         func() []byte { return bytes.Repeat([]byte("garbage "), 100) },
	"/rpc-4g-segments":     func() []byte { return []byte("\xff\xff\xff\xff") },
	"/rpc-1g":              func() []byte { return []byte{0, 0, 0, 0, 0, 0, 0, 8} },
	"/rpc-no-root":         func() []byte { return make([]byte, 8) },
	"/rpc-null-root":       func() []byte { return append([]byte{0, 0, 0, 0, 1, 0, 0, 0}, make([]byte, 8)...) },
	"/rpc-bootstrap":       message(func(m rpccp.Message) error { _, err := m.NewBootstrap(); return err }),
	"/rpc-provide":         message(func(m rpccp.Message) error { _, err := m.NewProvide(); return err }),
	"/rpc-accept":          message(func(m rpccp.Message) error { _, err := m.NewAccept(); return err }),
	"/rpc-join":            message(func(m rpccp.Message) error { _, err := m.NewJoin(); return err }),
	"/rpc-third-party":     message(func(m rpccp.Message) error { _, err := m.NewThirdPartyAnswer(); return err }),
	"/rpc-resolve":         message(func(m rpccp.Message) error { _, err := m.NewResolve(); return err }),
	"/rpc-unimplemented":   message(func(m rpccp.Message) error { _, err := m.NewUnimplemented(); return err }),
	"/rpc-obsolete-delete": message(func(m rpccp.Message) error { return m.SetObsoleteDelete(capnp.Ptr{}) }),
	"/rpc-obsolete-save":   message(func(m rpccp.Message) error { return m.SetObsoleteSave(capnp.Ptr{}) }),
	"/rpc-unknown":         message(func(m rpccp.Message) error { capnp.Struct(m).SetUint16(0, 99); return nil }),
	"/rpc-null-call":       message(func(m rpccp.Message) error { return m.SetCall(rpccp.Call{}) }),
	"/rpc-null-return":     message(func(m rpccp.Message) error { return m.SetReturn(rpccp.Return{}) }),
	"/rpc-embargo": message(func(m rpccp.Message) error {
		d, err := m.NewDisembargo()
		if err != nil {
			return err
		}
		d.Context().SetSenderLoopback(7)
		t, err := d.NewTarget()
		t.SetImportedCap(0)
		return err
	}),
	"/rpc-disembargo": message(func(m rpccp.Message) error { // the answer to a loopback that was never asked for
		d, err := m.NewDisembargo()
		d.Context().SetReceiverLoopback(7)
		return err
	}),
	"/rpc-return-unasked": answer(777, func(r rpccp.Return) error { _, err := r.NewResults(); return err }),
	"/rpc-return-again":   answer(0, func(r rpccp.Return) error { _, err := r.NewResults(); return err }), // the bootstrap's
	"/rpc-return-canceled": answer(1<<32-1, func(r rpccp.Return) error {
		r.SetCanceled()
		return nil
	}),
	"/rpc-finish-unasked": message(func(m rpccp.Message) error { f, err := m.NewFinish(); f.SetQuestionId(777); return err }),
	"/rpc-release-unheld": release(4711, 1),
	"/rpc-release-beyond": release(0, 1<<32-1),
	"/rpc-call-unheld":    logTo(900, 4711, nil),
	"/rpc-call-2g":        logTo(900, 1<<31, nil),
	"/rpc-call-promised": logTo(900, 0, func(c rpccp.Call) error {
		t, err := c.NewTarget()
		if err != nil {
			return err
		}
		_, err = t.NewPromisedAnswer()
		return err
	}),
	"/rpc-call-load": logTo(900, 0, func(c rpccp.Call) error { c.SetInterfaceId(gen.Shard_TypeID); return nil }),
	"/rpc-call-99":   logTo(900, 0, func(c rpccp.Call) error { c.SetMethodId(99); return nil }),
	"/rpc-call-elsewhere": logTo(900, 0, func(c rpccp.Call) error {
		c.SendResultsTo().SetYourself()
		return nil
	}),
	"/rpc-call-caps": logTo(900, 0, func(c rpccp.Call) error { // a table of capabilities that are the gateway's, and others'
		p, err := c.Params()
		if err != nil {
			return err
		}
		caps, err := p.NewCapTable(4)
		if err != nil {
			return err
		}
		caps.At(0).SetReceiverHosted(0)
		caps.At(1).SetSenderHosted(1 << 31)
		caps.At(2).SetSenderPromise(3)
		_, err = caps.At(3).NewThirdPartyHosted()
		return err
	}),
	"/rpc-calls-100000": func() []byte { // never finished
		var out []byte
		for n := range uint32(100_000) {
			out = append(out, logTo(1000+n, 0, nil)()...)
		}
		return out
	},
	"/rpc-pointer-loop": func() []byte {
		return logEntries(func(s *capnp.Segment, p gen.TenantHost_log_Params) error { return loop(s, p) })
	},
	"/rpc-amplified": func() []byte { return logEntries(amplified) },
	"/rpc-zero-sized": func() []byte { // 2^29-1 entries of no bits
		return logEntries(func(s *capnp.Segment, p gen.TenantHost_log_Params) error {
			l := capnp.NewVoidList(s, 1<<29-1)
			return capnp.Struct(p).SetPtr(0, l.ToPtr())
		})
	},
}

func message(fill func(rpccp.Message) error) func() []byte {
	return func() []byte { return rpcMessage(fill) }
}

func rpcMessage(fill func(rpccp.Message) error) []byte {
	m, seg, err := capnp.NewMessage(capnp.SingleSegment(nil))
	if err != nil {
		panic(err)
	}
	root, err := rpccp.NewRootMessage(seg)
	if err != nil {
		panic(err)
	}
	if err := fill(root); err != nil {
		panic(err)
	}
	raw, err := m.Marshal()
	if err != nil {
		panic(err)
	}
	return raw
}

func answer(id uint32, fill func(rpccp.Return) error) func() []byte {
	return message(func(m rpccp.Message) error {
		r, err := m.NewReturn()
		if err != nil {
			return err
		}
		r.SetAnswerId(id)
		r.SetReleaseParamCaps(false)
		return fill(r)
	})
}

func release(id, n uint32) func() []byte {
	return message(func(m rpccp.Message) error {
		r, err := m.NewRelease()
		r.SetId(id)
		r.SetReferenceCount(n)
		return err
	})
}

// logTo calls TenantHost.log of a capability, changed by edit.
func logTo(question, target uint32, edit func(rpccp.Call) error) func() []byte {
	return message(func(m rpccp.Message) error {
		c, err := m.NewCall()
		if err != nil {
			return err
		}
		c.SetQuestionId(question)
		c.SetInterfaceId(gen.TenantHost_TypeID)
		t, err := c.NewTarget()
		if err != nil {
			return err
		}
		t.SetImportedCap(target)
		if _, err := c.NewParams(); err != nil || edit == nil {
			return err
		}
		return edit(c)
	})
}

// logEntries is a call of log on the first capability the shard was given, with parameters of fill's.
func logEntries(fill func(*capnp.Segment, gen.TenantHost_log_Params) error) []byte {
	return logTo(900, 0, func(c rpccp.Call) error {
		p, err := c.Params()
		if err != nil {
			return err
		}
		args, err := gen.NewTenantHost_log_Params(c.Segment())
		if err != nil {
			return err
		}
		if err := p.SetContent(capnp.Struct(args).ToPtr()); err != nil {
			return err
		}
		return fill(c.Segment(), args)
	})()
}

// loop makes an entry's text the list that the entry is in.
func loop(s *capnp.Segment, p gen.TenantHost_log_Params) error {
	l, err := p.NewEntries(1000)
	if err != nil {
		return err
	}
	for i := range l.Len() {
		if err := capnp.Struct(l.At(i)).SetPtr(1, capnp.List(l).ToPtr()); err != nil {
			return err
		}
	}
	return nil
}

// amplified makes each of a thousand entries' texts the same 200 KiB: 200 MB, if anybody copies them.
func amplified(s *capnp.Segment, p gen.TenantHost_log_Params) error {
	l, err := p.NewEntries(1000)
	if err != nil {
		return err
	}
	text, err := capnp.NewText(s, strings.Repeat("x", 200<<10))
	if err != nil {
		return err
	}
	for i := range l.Len() {
		if err := capnp.Struct(l.At(i)).SetPtr(1, text.ToPtr()); err != nil {
			return err
		}
	}
	return nil
}

// loadLies are answers to a load that no honest shard gives. A tenant asks for one by a string in its
// code, "lie:NAME".
var loadLies = map[string]func(context.Context, gen.Shard_load_Results) error{
	"load-nothing": func(context.Context, gen.Shard_load_Results) error { return nil },
	"load-handlers": func(_ context.Context, r gen.Shard_load_Results) error {
		l, err := newLoaded(r)
		if err != nil {
			return err
		}
		_, err = l.NewHandlers(100_000)
		return err
	},
	"load-long-name": func(_ context.Context, r gen.Shard_load_Results) error {
		l, err := newLoaded(r)
		if err != nil {
			return err
		}
		h, err := l.NewHandlers(1)
		if err != nil {
			return err
		}
		return h.Set(0, strings.Repeat("x", 100<<10))
	},
	"load-crashed": func(_ context.Context, r gen.Shard_load_Results) error {
		f, err := newFailed(r)
		f.SetOutcome(gen.Outcome_crashed)
		return err
	},
	"load-long-stack": func(_ context.Context, r gen.Shard_load_Results) error {
		f, err := newFailed(r)
		if err != nil {
			return err
		}
		f.SetOutcome(gen.Outcome_exception)
		return f.SetStack(strings.Repeat("x", 500<<10))
	},
	"load-unknown": func(_ context.Context, r gen.Shard_load_Results) error {
		res, err := r.NewResult()
		capnp.Struct(res).SetUint16(0, 77)
		return err
	},
	"load-oversized": func(_ context.Context, r gen.Shard_load_Results) error {
		f, err := newFailed(r)
		if err != nil {
			return err
		}
		return f.SetStack(strings.Repeat("x", 4<<20))
	},
	"load-caps": func(_ context.Context, r gen.Shard_load_Results) error {
		// A capability of the shard's own where none is expected.
		l, err := newLoaded(r)
		if err != nil {
			return err
		}
		id := r.Message().CapTable().Add(capnp.Client(gen.Shard_ServerToClient(&shard{})))
		return capnp.Struct(l).SetPtr(0, capnp.NewInterface(r.Segment(), id).ToPtr())
	},
	"load-exception": func(context.Context, gen.Shard_load_Results) error {
		return errors.New(strings.Repeat("no \x1b[31m", 80<<10))
	},
	"load-silence": func(ctx context.Context, _ gen.Shard_load_Results) error {
		<-ctx.Done()
		time.Sleep(time.Minute)
		return nil
	},
}

func newLoaded(r gen.Shard_load_Results) (gen.Loaded, error) {
	res, err := r.NewResult()
	if err != nil {
		return gen.Loaded{}, err
	}
	return res.NewLoaded()
}

func newFailed(r gen.Shard_load_Results) (gen.LoadFailure, error) {
	res, err := r.NewResult()
	if err != nil {
		return gen.LoadFailure{}, err
	}
	return res.NewFailed()
}

func loadLie(args gen.Shard_load_Params) func(context.Context, gen.Shard_load_Results) error {
	b, err := args.Bundle()
	if err != nil {
		return nil
	}
	modules, err := b.Modules()
	if err != nil {
		return nil
	}
	for i := range modules.Len() {
		code, err := modules.At(i).Code()
		if err != nil {
			continue
		}
		if _, rest, ok := bytes.Cut(code, []byte("lie:")); ok {
			name, _, _ := bytes.Cut(rest, []byte(`"`))
			return loadLies[string(name)]
		}
	}
	return nil
}
