package tenants

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"bulkhead/policy/doctree"
	"bulkhead/supervisor/launcher/orders"
)

// DefaultBundleTime is how long one bundler may take, from its start to its last byte. A large
// application of a few thousand modules takes two seconds on one core.
const DefaultBundleTime = 60 * time.Second

// What a bundler gets to end after its last byte, and to be reported dead after it was killed.
const (
	endTime    = 5 * time.Second
	killedTime = 10 * time.Second
)

// maxBundlerStderr is how much of a bundler's own words is kept, bytes.
const maxBundlerStderr = 8 << 10

// SealedBundler returns a BundleFunc that has the launcher start a sealed bundler for each bundle
// and takes its answer within the deadline (0 means DefaultBundleTime). A bundler that hangs,
// crashes, breaks its seal or answers nonsense is the folder's fault as far as anybody can tell:
// that is a diagnostic, not an error. An error is a launcher that could not start one.
func SealedBundler(client *orders.Client, deadline time.Duration) BundleFunc {
	if deadline == 0 {
		deadline = DefaultBundleTime
	}
	return func(ctx context.Context, root int, tenant string) (BundleOutput, error) {
		ctx, cancel := context.WithTimeout(ctx, deadline)
		defer cancel()
		child, err := client.SpawnBundler(ctx, root, tenant)
		if err != nil {
			return BundleOutput{}, fmt.Errorf("cannot start the bundler: %w", err)
		}
		defer child.CloseFiles()
		return collect(ctx, deadline, running{output: child.Output, stderr: child.Stderr, exited: child.Exited(), kill: child.Kill}), nil
	}
}

// running is a bundler at work.
type running struct {
	output, stderr *os.File
	exited         <-chan orders.Exit
	kill           func() error
}

// collect takes the answer of a running bundler and sees it dead.
func collect(ctx context.Context, deadline time.Duration, b running) BundleOutput {
	type read struct {
		data []byte
		err  error
	}
	answer, words := make(chan read, 1), make(chan []byte, 1)
	go func() {
		data, err := io.ReadAll(io.LimitReader(b.output, MaxResultBytes+1))
		answer <- read{data, err}
	}()
	go func() { words <- beginning(b.stderr, maxBundlerStderr) }()

	var got read
	var why string
	select {
	case got = <-answer:
		if len(got.data) > MaxResultBytes {
			why = fmt.Sprintf("the bundle is larger than %d MiB; import less", MaxResultBytes>>20)
		}
	case <-ctx.Done():
		why = fmt.Sprintf("bundling took longer than %s and was stopped; import less, or remove what the bundler waits for (a FIFO, an endless tree)", deadline)
		if errors.Is(ctx.Err(), context.Canceled) {
			why = "bundling was stopped"
		}
	}
	if why != "" {
		if err := b.kill(); err != nil {
			why += fmt.Sprintf(" (stopping it failed: %v)", err)
		}
		// A killed child closes its pipe ends, so both readers end; closing ours ends them even
		// if the child left a descendant behind.
		closeQuietly(b.output, b.stderr)
		return failedBundle(why)
	}
	var exit orders.Exit
	select {
	case exit = <-b.exited:
	case <-time.After(endTime):
		// It has said everything and does not end: not worth more of our time.
		if err := b.kill(); err != nil {
			return failedBundle(fmt.Sprintf("the bundler did not end and could not be stopped: %v", err))
		}
		select {
		case exit = <-b.exited:
		case <-time.After(killedTime): // in a file system that does not answer, say: its slot is needed
			return failedBundle("the bundler did not end and could not be stopped")
		}
	}
	if exit.Signal != 0 || exit.Code != 0 {
		var said []byte
		select {
		case said = <-words:
		case <-time.After(time.Second):
		}
		return failedBundle(describeExit(exit, said))
	}
	if got.err != nil {
		return failedBundle("the bundler's answer could not be read: " + got.err.Error())
	}
	out, err := DecodeResult(got.data)
	if err != nil {
		return failedBundle("the bundler's answer was refused: " + err.Error())
	}
	return out
}

func failedBundle(message string) BundleOutput {
	return BundleOutput{Errors: []Diagnostic{{Message: message}}}
}

func closeQuietly(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // our end of a pipe we only read
		}
	}
}

// describeExit says why a bundler did not end well.
func describeExit(x orders.Exit, words []byte) string {
	s := fmt.Sprintf("the bundler ended with code %d", x.Code)
	switch {
	case x.Signal == syscall.SIGKILL:
		s = "the bundler was killed, most likely because it ran out of memory; import less"
	case x.Signal == syscall.SIGSYS && x.Syscall >= 0:
		s = fmt.Sprintf("the bundler tried system call %d, which its seal forbids", x.Syscall)
	case x.Signal != 0:
		s = fmt.Sprintf("the bundler died by %s", x.Signal)
	}
	if x.Detail != "" {
		s += " (" + doctree.Printable(x.Detail) + ")"
	}
	if w := bytes.TrimSpace(words); len(w) > 0 {
		first, _, _ := bytes.Cut(w, []byte{'\n'})
		s += ": " + clean(string(first[:min(len(first), 300)]))
	}
	return s
}

// beginning reads to the end, keeps the beginning and drops the rest: the first line of a Go
// traceback is the one that says something.
func beginning(f *os.File, keep int) []byte {
	if f == nil {
		return nil
	}
	head, err := io.ReadAll(io.LimitReader(f, int64(keep)))
	if err == nil {
		_, _ = io.Copy(io.Discard, f) // so that the child never blocks on a full pipe
	}
	return head
}
