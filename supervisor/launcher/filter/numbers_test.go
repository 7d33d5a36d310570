package filter

import (
	"testing"

	"bulkhead/policy/seccomp"

	lib "github.com/seccomp/libseccomp-golang"
)

// The suites make calls by the numbers of package seccomp; filters are compiled by libseccomp's.
func TestNumbersAreLibseccomps(t *testing.T) {
	known := 0
	for _, nr := range seccomp.CallNumbers() {
		n, err := lib.GetSyscallFromName(seccomp.CallName(nr))
		if err != nil {
			continue // newer than this libseccomp
		}
		known++
		if int64(n) != nr {
			t.Errorf("%s is %d here and %d to libseccomp", seccomp.CallName(nr), nr, n)
		}
	}
	if known < 300 {
		t.Errorf("libseccomp knows %d of our names only", known)
	}
}
