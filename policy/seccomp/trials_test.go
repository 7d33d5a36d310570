package seccomp

import (
	"slices"
	"testing"
)

// The policy and what is expected of it are written down twice, by hand; here they meet. A change of
// one alone fails.
func TestPolicyAndTrialsAgree(t *testing.T) {
	for _, p := range Profiles() {
		rules := Worker(p)
		tried := make([]bool, len(rules))
		for _, tr := range Trials(p) {
			got, errno, row := Decide(rules, tr.Call, tr.Args)
			want := tr.Want
			if want == Exits || want == Silent || want == Faults {
				want = Lives // as far as the filter goes
			}
			if got != want || errno != tr.Errno {
				t.Errorf("%v: %v: the policy says %v (errno %d), the trial expects %v (errno %d): %s", p, tr, got, errno, tr.Want, tr.Errno, tr.Why)
			}
			if row >= 0 {
				tried[row] = true
			}
		}
		for i, r := range rules {
			if !tried[i] {
				t.Errorf("%v: no trial takes row %q", p, r)
			}
		}
	}
}

// Argument by argument: for every condition there is a call that fails it alone, and dies.
func TestEveryConditionHasATrialThatOnlyItStops(t *testing.T) {
	for _, p := range Profiles() {
		rules := Worker(p)
		for _, r := range rules {
			for i, a := range r.Args {
				without := r
				without.Args = slices.Delete(slices.Clone(r.Args), i, i+1)
				if !slices.ContainsFunc(Trials(p), func(tr Trial) bool {
					return tr.Call == r.Call && tr.Want == Dies && without.holds(tr.Args) && !r.holds(tr.Args)
				}) {
					t.Errorf("%v: row %q: no dying trial differs in argument %d alone", p, r, a.Index)
				}
			}
		}
	}
}

func TestTrialsAndAbsencesAreWellFormed(t *testing.T) {
	for _, p := range Profiles() {
		for _, tr := range Trials(p) {
			if _, ok := CallNumber(tr.Call); !ok || tr.Why == "" || (tr.Want == Refused) != (tr.Errno != 0) {
				t.Errorf("%v: trial %v has no number, no reason, or an errno that does not fit", p, tr)
			}
		}
		for call, why := range Absent() {
			if _, ok := CallNumber(call); !ok {
				t.Logf("%s is no call of this architecture", call)
			}
			if slices.ContainsFunc(Worker(p), func(r Rule) bool { return r.Call == call }) {
				t.Errorf("%v: %s is in the policy, and absent because of %q", p, call, why)
			}
		}
	}
	for _, call := range []string{"clone3", "openat2", "io_uring_setup", "userfaultfd", "process_vm_readv", "pidfd_getfd", "bpf", "perf_event_open", "keyctl", "ptrace",
		"fsopen", "landlock_create_ruleset", "recvmsg", "sendmsg", "prctl"} {
		if _, stands := Absent()[call]; !stands && call != "clone3" {
			t.Errorf("%s is absent without a word why", call)
		}
	}
}
