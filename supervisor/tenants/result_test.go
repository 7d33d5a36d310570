package tenants

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"capnproto.org/go/capnp/v3"
	"github.com/google/go-cmp/cmp"

	"bulkhead/schema/gen"
	"bulkhead/supervisor/launcher/orders"
)

// result builds a message that fill may spoil.
func result(t testing.TB, fill func(gen.BundleResult) error) []byte {
	t.Helper()
	msg, seg, err := capnp.NewMessage(capnp.SingleSegment(nil))
	if err != nil {
		t.Fatal(err)
	}
	res, err := gen.NewRootBundleResult(seg)
	if err == nil {
		err = fill(res)
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := msg.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func withModules(mainName string, mods ...Module) func(gen.BundleResult) error {
	return func(r gen.BundleResult) error {
		b, err := r.NewBundle()
		if err != nil {
			return err
		}
		return FillBundle(b, mainName, mods)
	}
}

func TestDecodeResult(t *testing.T) {
	mods := []Module{
		{Name: "/worker.js", Kind: gen.Module_Kind_esm, Code: []byte("export {}"), SourceMap: []byte("{}")},
		{Name: "/a.bin", Kind: gen.Module_Kind_data, Code: []byte{0, 255}},
	}
	out, err := DecodeResult(result(t, withModules("/worker.js", mods...)))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(BundleOutput{Main: "/worker.js", Modules: mods}, out, cmp.Comparer(func(a, b []byte) bool { return bytes.Equal(a, b) })); d != "" {
		t.Error(d)
	}
	esm := Module{Name: "/worker.js", Kind: gen.Module_Kind_esm, Code: []byte("x")}
	named := func(name string) Module { m := esm; m.Name = name; return m }
	many := make([]Module, maxModules+1)
	for i := range many {
		many[i] = named("/m" + strings.Repeat("x", i))
	}
	for name, raw := range map[string][]byte{
		"nothing":          nil,
		"garbage":          []byte(strings.Repeat("garbage!", 10)),
		"half":             result(t, withModules("/worker.js", mods...))[:40],
		"no bundle":        result(t, func(gen.BundleResult) error { return nil }),
		"no modules":       result(t, withModules("/worker.js")),
		"main missing":     result(t, withModules("/other.js", esm)),
		"main is data":     result(t, withModules("/a.bin", esm, mods[1])),
		"name twice":       result(t, withModules("/worker.js", esm, esm)),
		"relative name":    result(t, withModules("worker.js", named("worker.js"))),
		"name with quote":  result(t, withModules("/worker.js", esm, named(`/"x`))),
		"name with escape": result(t, withModules("/worker.js", esm, named("/\x1b[31m"))),
		"name with break":  result(t, withModules("/worker.js", esm, named("/a\nb"))),
		"empty name":       result(t, withModules("/worker.js", esm, named(""))),
		"long name":        result(t, withModules("/worker.js", esm, named("/"+strings.Repeat("x", 2000)))),
		"unknown kind":     result(t, withModules("/worker.js", esm, Module{Name: "/x", Kind: 99})),
		"not UTF-8":        result(t, withModules("/worker.js", Module{Name: "/worker.js", Code: []byte{0xff}})),
		"too many modules": result(t, withModules("/m", many...)),
	} {
		if out, err := DecodeResult(raw); err == nil {
			t.Errorf("%s: taken as good: %+v", name, out)
		}
	}
}

// A list whose elements all point to the same megabytes would be copied a thousand times.
func TestAmplification(t *testing.T) {
	raw := result(t, func(r gen.BundleResult) error {
		b, err := r.NewBundle()
		if err != nil {
			return err
		}
		list, err := b.NewModules(1000)
		if err != nil {
			return err
		}
		first := list.At(0)
		if err := first.SetCode(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
			return err
		}
		shared, err := capnp.Struct(first).Ptr(1)
		if err != nil {
			return err
		}
		for i := range list.Len() {
			if err := list.At(i).SetName("/m" + strings.Repeat("x", i)); err != nil {
				return err
			}
			if i > 0 {
				if err := capnp.Struct(list.At(i)).SetPtr(1, shared); err != nil {
					return err
				}
			}
		}
		return b.SetMain("/m")
	})
	if len(raw) > 4<<20 {
		t.Fatalf("the message has %d bytes, so it shares nothing", len(raw))
	}
	if out, err := DecodeResult(raw); err == nil {
		t.Errorf("%d bytes became %d modules", len(raw), len(out.Modules))
	}
}

func TestDiagnosticsAreCleaned(t *testing.T) {
	raw := result(t, func(r gen.BundleResult) error {
		l, err := r.NewErrors(500)
		if err != nil {
			return err
		}
		if err := l.At(0).SetMessage_("\x1b[2Jgone\nnext\u202e" + strings.Repeat("x", 100_000)); err != nil {
			return err
		}
		l.At(0).SetLine(1 << 31)
		return l.At(0).SetFile("a\rb")
	})
	out, err := DecodeResult(raw)
	if err != nil {
		t.Fatal(err)
	}
	d := out.Errors[0]
	if len(out.Errors) > maxDiagnostics || strings.ContainsAny(d.Message+d.File, "\x1b\r\u202e") || len(d.Message) > 2*maxMessage || !strings.Contains(d.Message, "\nnext") {
		t.Errorf("%d errors, the first: %.200q", len(out.Errors), d)
	}
}

func FuzzDecodeResult(f *testing.F) {
	f.Add(result(f, withModules("/worker.js", Module{Name: "/worker.js", Code: []byte("x"), SourceMap: []byte("{}")})))
	f.Add(result(f, func(r gen.BundleResult) error { _, err := r.NewErrors(2); return err }))
	f.Fuzz(func(t *testing.T, raw []byte) {
		out, err := DecodeResult(raw)
		if err != nil || len(out.Errors) > 0 {
			return
		}
		size := 0
		for _, m := range out.Modules {
			size += len(m.Code) + len(m.SourceMap)
		}
		if size > len(raw)+2<<20 {
			t.Errorf("%d bytes became %d", len(raw), size)
		}
		if _, err := EncodeBundle(out.Main, out.Modules); err != nil {
			t.Error(err)
		}
	})
}

// child starts a real process as a bundler: output on fd 3, as the launcher arranges it.
func child(t *testing.T, script string) (running, func()) {
	t.Helper()
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.ExtraFiles, cmd.Stderr = []*os.File{outW}, errW
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	outW.Close()
	errW.Close()
	exited := make(chan orders.Exit, 1)
	go func() {
		st, err := cmd.Process.Wait()
		if err != nil {
			t.Error(err)
		}
		ws := st.Sys().(syscall.WaitStatus)
		x := orders.Exit{Code: -1, Syscall: -1}
		if ws.Signaled() {
			x.Signal = ws.Signal()
		} else {
			x.Code = ws.ExitStatus()
		}
		exited <- x
		close(exited)
	}()
	return running{output: outR, stderr: errR, exited: exited, kill: cmd.Process.Kill}, func() { outR.Close(); errR.Close() }
}

func TestBundlerProcess(t *testing.T) {
	good := t.TempDir() + "/good"
	if err := os.WriteFile(good, result(t, withModules("/worker.js", Module{Name: "/worker.js", Code: []byte("fine")})), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, script, want string }{
		{"answers", "cat " + good + " >&3", ""},
		{"answers slowly", "head -c 20 " + good + " >&3; sleep 0.2; tail -c +21 " + good + " >&3", ""},
		{"chatters", "head -c 1000000 /dev/zero >&2; cat " + good + " >&3", ""},
		{"half an answer", "head -c 20 " + good + " >&3", "answer was refused"},
		{"no answer", "true", "answer was refused"},
		{"garbage", "echo hello >&3", "answer was refused"},
		{"fails", "echo lockdown: step mounts: EPERM >&2; exit 70", "ended with code 70: lockdown: step mounts: EPERM"},
		{"fails after an answer", "cat " + good + " >&3; exit 3", "ended with code 3"},
		{"crashes", "kill -SEGV $$", "died by segmentation fault"},
		{"is killed", "kill -KILL $$", "ran out of memory"},
		{"hangs", "exec sleep 60", "took longer than"},
		{"says all and hangs", "cat " + good + " >&3; exec sleep 60", "took longer than"},
		{"drips", "while :; do printf x >&3; sleep 0.05; done", "took longer than"},
		{"floods", "exec cat /dev/zero >&3", "larger than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b, done := child(t, c.script)
			defer done()
			limit := time.Second
			if c.want == "" || strings.Contains(c.want, "larger") {
				limit = 30 * time.Second
			}
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			begin := time.Now()
			out := collect(ctx, limit, b)
			if d := time.Since(begin); d > limit+8*time.Second {
				t.Errorf("took %s", d)
			}
			if c.want == "" {
				if len(out.Errors) > 0 || len(out.Modules) != 1 {
					t.Errorf("%+v", out)
				}
				return
			}
			if len(out.Errors) != 1 || !strings.Contains(out.Errors[0].Message, c.want) || len(out.Modules) > 0 {
				t.Errorf("want %q, got %+v", c.want, out)
			}
			if _, err := io.ReadAll(b.output); err == nil && strings.Contains(c.want, "longer") {
				t.Error("the output of a stopped bundler is still open")
			}
		})
	}
}

func TestSourceMap(t *testing.T) {
	// Two lines; the second has segments at columns 0 and 4 from other places.
	m := sourceMap{Sources: []string{"a.ts", "b.ts"}, Mappings: "AAAA;AACA,ICAE;;A"}
	for _, c := range []struct {
		line, column int
		want         place
		ok           bool
	}{
		{1, 1, place{"a.ts", 1, 1}, true},
		{1, 99, place{"a.ts", 1, 1}, true},
		{2, 3, place{"a.ts", 2, 1}, true},
		{2, 5, place{"b.ts", 2, 3}, true},
		{3, 1, place{}, false},
		{4, 1, place{}, false},
		{9, 1, place{}, false},
	} {
		got, ok := m.lookup(c.line, c.column)
		if ok != c.ok || got != c.want {
			t.Errorf("%d:%d is %+v, %v", c.line, c.column, got, ok)
		}
	}
	for _, bad := range []string{"!!!!", "gggggggggggggggg", "AAAA;AZZZZZZZZ", "DDDD"} {
		hostile := sourceMap{Sources: []string{"a"}, Mappings: bad}
		hostile.lookup(1, 1)
		hostile.lookup(2, 1)
	}
	version := func(json string) *Version {
		v := &Version{maps: newMapper()}
		v.maps.keep("/worker.bundle.js", []byte(json))
		return v
	}
	v := version(`{"sources":["../../etc/passwd"],"mappings":"AAAA"}`)
	if got := v.MapStack("at worker.bundle.js:1:1"); got != "at worker.bundle.js:1:1" {
		t.Errorf("a map leads out of the folder: %s", got)
	}
	v = version(`{"sources":["src/a.ts"],"mappings":"AAAA"}`)
	for in, want := range map[string]string{
		"at f (worker.bundle.js:1:5)\n at g (/worker.bundle.js:1:5)": "at f (src/a.ts:1:1)\n at g (src/a.ts:1:1)",
		"at src/a.ts:1:1": "at src/a.ts:1:1",
		"at file:///worker.bundle.js:9:9, bulkhead:runtime:70:1": "at file:///worker.bundle.js:9:9, bulkhead:runtime:70:1",
		"": "",
	} {
		if got := v.MapStack(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	if got := (&Version{}).MapStack("x:1:1"); got != "x:1:1" {
		t.Errorf("without maps: %q", got)
	}
}

// Whoever makes many errors does not make the gateway busy with their line numbers.
func TestMappingIsRationed(t *testing.T) {
	v := &Version{maps: newMapper()}
	v.maps.keep("/worker.bundle.js", []byte(`{"sources":["a.ts"],"mappings":"`+strings.Repeat("AAAA;", 1_000_000)+`"}`))
	begin := time.Now()
	unmapped := 0
	for range 2000 {
		if v.MapStack("at worker.bundle.js:999999:1") == "at worker.bundle.js:999999:1" {
			unmapped++
		}
	}
	if d := time.Since(begin); d > 5*time.Second || unmapped == 0 {
		t.Errorf("2000 errors took %s, %d were left unmapped", d, unmapped)
	}
}
