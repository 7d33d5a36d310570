package placement

import (
	"errors"
	"maps"
	"slices"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/supervisor/launcher/orders"

	"golang.org/x/sys/unix"
)

// evidence is all that is known of a shard's end.
type evidence struct {
	why    error         // what ended the connection
	exit   orders.Exit   // as the kernel told the launcher
	box    []ipc.Running // what the black box claims
	boxed  bool          // there is a black box
	flight []gatewayside.InFlight
	hosted []uint32 // handles of the tenants in it, loading ones too
	loads  []uint32 // of these, the ones that were loading
	mixed  bool     // more than one tenant has been in it
	ours   bool     // we killed it, for what it did or did not do
}

// finding is who is held responsible for a shard's end, and whose code ran at that moment.
type finding struct {
	suspects  []uint32        // handles; empty: nobody's code can have done it
	executing map[uint64]bool // streams whose code was running
	working   map[uint32]bool // tenants whose code was running, for a stream or for none
	present   map[uint32]bool // tenants with requests there, or loading
	outside   bool            // it was ended from outside
	proven    bool            // the suspect is held to have done it: nobody else has ever been in the shard
}

// find judges. The gateway's own list of what ran is authoritative; the black box may narrow it,
// never add to it. After SIGSYS or a breach of the protocol the process is taken as compromised,
// and its black box may frame anybody: everybody in it is a suspect (DESIGN section 6).
func find(e *evidence) finding {
	f := finding{executing: map[uint64]bool{}, working: map[uint32]bool{}, present: map[uint32]bool{}}
	for _, r := range e.flight {
		f.present[r.Tenant] = true
	}
	for _, t := range e.loads {
		f.present[t] = true
	}
	var faulted []uint32
	for _, r := range e.box {
		if !slices.Contains(e.hosted, r.Tenant) {
			continue
		}
		if r.Stream != 0 {
			if !slices.Contains(e.flight, gatewayside.InFlight{Stream: r.Stream, Tenant: r.Tenant}) {
				continue
			}
			f.executing[r.Stream] = true
		}
		f.working[r.Tenant] = true
		if r.Fault != 0 && !slices.Contains(faulted, r.Tenant) {
			faulted = append(faulted, r.Tenant)
		}
	}
	var late *gatewayside.OverdueError
	switch {
	case errors.As(e.why, new(*ipc.ViolationError)), errors.Is(e.why, errHungUp), e.exit.Signal == unix.SIGSYS:
		f.suspects = slices.Clone(e.hosted)
		f.everything(e)
	case errors.As(e.why, &late):
		f.suspects = []uint32{late.Tenant}
		f.working[late.Tenant] = true
		if late.Stream != 0 {
			f.executing[late.Stream] = true
		}
	case byOthers(e):
		// No tenant can have done this: a process that is the first of its pid namespace cannot be
		// killed or stopped from inside.
		f.outside = true
	case len(faulted) > 0:
		f.suspects = faulted
	case len(f.working) > 0:
		for t := range f.working {
			f.suspects = append(f.suspects, t)
		}
	case e.boxed:
		// Nobody's code ran, says the box: a fault of ours, or native code that has cleared its slot.
		// Who was there is remembered (meetLocked), and finds itself apart if it happens again.
	default:
		// Nothing narrows it down: whoever was running or waiting, or loading.
		f.everything(e)
		for t := range f.working {
			f.suspects = append(f.suspects, t)
		}
	}
	slices.Sort(f.suspects)
	if len(f.suspects) == 1 && !e.mixed {
		f.proven = true
	}
	return f
}

// everything takes all that was in the shard as having been at work.
func (f *finding) everything(e *evidence) {
	for _, r := range e.flight {
		f.executing[r.Stream] = true
	}
	maps.Copy(f.working, f.present)
}

// byOthers says whether the shard was stopped or killed from outside, and not by us for what it did.
func byOthers(e *evidence) bool {
	if e.exit.Stopped {
		return true
	}
	return e.exit.Signal == unix.SIGKILL && e.exit.Detail != orders.DetailOutOfMemory && !e.ours
}

// readBox reads a dead shard's black box: a page, whatever the shard has made of it.
func readBox(s *shard) (running []ipc.Running, ok bool) {
	if s.proc.BlackBox == nil {
		return nil, false
	}
	var b [ipc.BlackBoxBytes]byte
	if _, err := s.proc.BlackBox.ReadAt(b[:], 0); err != nil {
		return nil, false // sealed against shrinking: cannot happen; and then nothing narrows the list down
	}
	return ipc.ReadBlackBox(b[:]), true
}
