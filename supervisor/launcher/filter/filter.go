// Package filter compiles a table of package policy/seccomp into the BPF program that the
// kernel runs (seccomp(2)), with libseccomp. Only the launcher imports it: children get bytes.
//
// Invariant: what no row names ends the whole process, and so does any entry by a foreign
// architecture (i386, x32), whatever the number.
package filter

import (
	"fmt"
	"io"
	"os"

	"bulkhead/policy/seccomp"

	"golang.org/x/sys/unix"

	lib "github.com/seccomp/libseccomp-golang"
)

// Compile returns struct sock_filter[] as bytes. A call that this libseccomp does not know is an
// error for a row that allows it, and is skipped for one that refuses it: such a call then ends
// the process, which is the stricter verdict.
func Compile(rules []seccomp.Rule) ([]byte, error) {
	f, err := lib.NewFilter(lib.ActKillProcess)
	if err != nil {
		return nil, fmt.Errorf("seccomp filter: %w", err)
	}
	defer f.Release()
	if err := f.SetBadArchAction(lib.ActKillProcess); err != nil {
		return nil, fmt.Errorf("seccomp filter: foreign architectures: %w", err)
	}
	// A binary tree: the hot calls of a table with some 40 rows are found in six comparisons.
	// Libseccomp before 2.5 cannot, which costs time but not safety.
	_ = f.SetOptimize(2)
	for _, r := range rules {
		if err := add(f, r); err != nil {
			return nil, fmt.Errorf("seccomp filter: row %q: %w", r, err)
		}
	}
	return export(f)
}

// export goes through a memory file: ExportBPFMem needs libseccomp 2.6, Debian 12 has 2.5.
func export(f *lib.ScmpFilter) ([]byte, error) {
	fd, err := unix.MemfdCreate("filter", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("seccomp filter: memfd_create: %w", err)
	}
	file := os.NewFile(uintptr(fd), "filter")
	defer file.Close()
	if err := f.ExportBPF(file); err != nil {
		return nil, fmt.Errorf("seccomp filter: export: %w", err)
	}
	program, err := io.ReadAll(io.NewSectionReader(file, 0, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("seccomp filter: export: %w", err)
	}
	return program, nil
}

func add(f *lib.ScmpFilter, r seccomp.Rule) error {
	call, err := lib.GetSyscallFromName(r.Call)
	if err != nil {
		if r.Action == seccomp.Refuse {
			return nil
		}
		return err
	}
	action := lib.ActAllow
	if r.Action == seccomp.Refuse {
		action = lib.ActErrno.SetReturnCode(int16(r.Errno))
	}
	if len(r.Args) == 0 {
		return f.AddRuleExact(call, action)
	}
	conds := make([]lib.ScmpCondition, 0, len(r.Args))
	for _, a := range r.Args {
		var c lib.ScmpCondition
		switch a.Op {
		case seccomp.Equal:
			c, err = lib.MakeCondition(uint(a.Index), lib.CompareEqual, a.Value)
		case seccomp.Masked:
			c, err = lib.MakeCondition(uint(a.Index), lib.CompareMaskedEqual, a.Mask, a.Value)
		default:
			err = fmt.Errorf("BUG: comparison %d", a.Op)
		}
		if err != nil {
			return err
		}
		conds = append(conds, c)
	}
	return f.AddRuleConditionalExact(call, action, conds)
}
