// Package seccomp says which system calls each kind of process may make after its seal.
//
// It is data and pure functions: no effects, no cgo, so that workers and the gateway can name a
// Profile without linking libseccomp. Package supervisor/launcher/filter compiles these tables,
// and only the launcher imports that.
//
// Duty: the tables are allow lists. Whatever no row names ends the process (KILL_PROCESS), on
// every architecture the kernel offers besides the native one. A row exists because a
// measurement needed it; its reason stands on the row, and a surprising one says what the
// alternative was. Rows that answer an errno are nuisances of libc or Go that give up quietly
// when refused; they grant nothing.
//
// The filter cannot follow pointers, so arguments are compared only where they are registers.
package seccomp

import "fmt"

// Action is what happens when a row matches.
type Action uint8

// The actions of a row. There is no action "kill": that is the default.
const (
	Allow  Action = 1
	Refuse Action = 2 // answer Rule.Errno
)

// Op compares one argument.
type Op uint8

// Comparisons on the 64-bit register.
const (
	Equal  Op = 1 // arg == Value
	Masked Op = 2 // arg & Mask == Value
)

// Arg is one condition on one argument; all conditions of a row must hold.
type Arg struct {
	Index uint8 // 0 to 5
	Op    Op
	Mask  uint64 // Masked only
	Value uint64
}

// Rule is one row. Several rows for one call are alternatives.
type Rule struct {
	Call   string // name as in syscalls(2)
	Action Action
	Errno  uint16 // Refuse only
	Args   []Arg
	Why    string
}

// String is the row as the listings show it.
func (r Rule) String() string {
	s := r.Call
	for _, a := range r.Args {
		switch a.Op {
		case Equal:
			s += fmt.Sprintf(" arg%d==%#x", a.Index, a.Value)
		case Masked:
			s += fmt.Sprintf(" arg%d&%#x==%#x", a.Index, a.Mask, a.Value)
		}
	}
	if r.Action == Refuse {
		s += fmt.Sprintf(" -> errno %d", r.Errno)
	}
	return s
}

// Calls counts the distinct calls that rows allow, and how many of those only with arguments
// that a row names.
func Calls(rules []Rule) (allowed, filtered int) {
	free := map[string]bool{}
	for _, r := range rules {
		if r.Action == Allow {
			free[r.Call] = free[r.Call] || len(r.Args) == 0
		}
	}
	for _, unconditional := range free {
		allowed++
		if !unconditional {
			filtered++
		}
	}
	return allowed, filtered
}

func eq(index uint8, value uint64) Arg { return Arg{Index: index, Op: Equal, Value: value} }

func masked(index uint8, mask, value uint64) Arg {
	return Arg{Index: index, Op: Masked, Mask: mask, Value: value}
}

func allow(call, why string, args ...Arg) Rule {
	return Rule{Call: call, Action: Allow, Args: args, Why: why}
}

func refuse(call string, errno uint16, why string, args ...Arg) Rule {
	return Rule{Call: call, Action: Refuse, Errno: errno, Args: args, Why: why}
}
