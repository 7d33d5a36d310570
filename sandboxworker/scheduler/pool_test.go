package scheduler

import "testing"

// The seal forbids what the pool's thread does first: New does not return before it has done so.
func TestThePoolIsUpBeforeTheSeal(t *testing.T) {
	h := startShard(t, Options{})
	select {
	case <-h.s.pool.up:
	default:
		t.Error("the scheduler was made before its pool's thread gave way")
	}
}
