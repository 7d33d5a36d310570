package filter

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/net/bpf"

	"bulkhead/policy/seccomp"
	"bulkhead/securitytests/suites"
)

// What libseccomp makes of the rows says what the rows say, for every condition on an argument; without one
// row's conditions it is found out.
func TestTheProgramIsThePolicy(t *testing.T) {
	compare := func(p seccomp.Profile, rules []seccomp.Rule) suites.FilterReport {
		t.Helper()
		raw, err := Compile(rules)
		if err != nil {
			t.Fatal(err)
		}
		var program []bpf.RawInstruction
		for b := range slices.Chunk(raw, 8) {
			program = append(program, bpf.RawInstruction{Op: binary.NativeEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.NativeEndian.Uint32(b[4:])})
		}
		r, err := suites.CompareFilter(p, program)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, p := range seccomp.Profiles() {
		rules := seccomp.Worker(p)
		r := compare(p, rules)
		t.Logf("%v: %d calls allowed, %d of them only with listed arguments, by %d conditions; %d decisions", p, r.Allowed, r.Filtered, r.Conditions, r.Decisions)
		for _, w := range r.Wrong {
			t.Errorf("%v: %s", p, w)
		}
		for i, row := range rules {
			for j := range row.Args {
				if slices.ContainsFunc(rules, func(o seccomp.Rule) bool { return o.Call == row.Call && o.Action != row.Action }) && row.Action == seccomp.Refuse {
					continue // it would refuse what another row allows: libseccomp takes no such pair
				}
				without := slices.Clone(rules)
				without[i].Args = slices.Delete(slices.Clone(row.Args), j, j+1)
				if len(without[i].Args) == 0 { // its alternatives are void beside it
					without = slices.DeleteFunc(without, func(o seccomp.Rule) bool { return o.Call == row.Call })
					without = append(without, seccomp.Rule{Call: row.Call, Action: row.Action, Errno: row.Errno, Why: "all"})
				}
				if len(compare(p, without).Wrong) == 0 {
					t.Errorf("%v: without condition %d of row %q nothing is found", p, j, row)
				}
			}
		}
	}
}
