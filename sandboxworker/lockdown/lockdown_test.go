package lockdown

import (
	"errors"
	"testing"

	"bulkhead/sandboxworker/lockdown/setup"

	"github.com/google/go-cmp/cmp"
)

// The launcher writes the struct in Go, the constructor reads it in C.
func TestLayoutIsTheSameInGoAndC(t *testing.T) {
	if diff := cmp.Diff(setup.Offsets(), layout()); diff != "" {
		t.Errorf("package setup (-) and setup.h (+) differ:\n%s", diff)
	}
}

func TestSealOutsideAChildIsRefused(t *testing.T) {
	if Role() != 0 || Profile() != 0 {
		t.Errorf("a test binary has role %v and profile %v", Role(), Profile())
	}
	if err := Seal(); !errors.Is(err, ErrNotAChild) {
		t.Errorf("Seal() = %v, want %v", err, ErrNotAChild)
	}
}

func TestStepsAreDocumentedInTheirOrder(t *testing.T) {
	var documented []string
	for _, s := range setup.Steps() {
		documented = append(documented, s.Name)
	}
	if diff := cmp.Diff(documented, stepNames()); diff != "" {
		t.Errorf("setup.Steps (-) and lockdown.c (+) differ:\n%s", diff)
	}
}
