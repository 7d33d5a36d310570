package launcher

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A thread that ends is told from one that lacks something: a child that is dead and not reaped is one.
func TestEnding(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self := fmt.Sprintf("/proc/self/task/%d", unix.Gettid())
	if ending(self) {
		t.Error("this thread is said to be ending")
	}
	cmd := exec.Command("true") // not this binary, whose TestMain first builds others
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dir := fmt.Sprintf("/proc/%d/task/%d", cmd.Process.Pid, cmd.Process.Pid)
	for end := time.Now().Add(30 * time.Second); !ending(dir); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a process that has exited is not said to be ending")
		}
	}
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("it was not reaped and is gone: %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if !ending(dir) {
		t.Error("a thread that is gone is not said to be ending")
	}
}

// Only two good passes in a row end a verification well; bad ones, however many, end it badly.
func TestSettle(t *testing.T) {
	for name, tc := range map[string]struct {
		passes [][]int
		done   bool
	}{
		"one good pass":            {[][]int{{1, 2}}, false},
		"two":                      {[][]int{{1, 2}, {1, 2}}, true},
		"two bad ones":             {[][]int{nil, nil}, false},
		"bad ones":                 {[][]int{nil, nil, nil, nil}, false},
		"a bad one between":        {[][]int{{1, 2}, nil, {1, 2}}, false},
		"others":                   {[][]int{{1, 2}, {1, 2, 3}, {1, 2}}, false},
		"good at last":             {[][]int{nil, nil, {1}, nil, {1, 2}, {1, 2}}, true},
		"a good one and a bad one": {[][]int{{1}, nil}, false},
		"a bad one and a good one": {[][]int{nil, {1}}, false},
	} {
		var v verification
		for i, threads := range tc.passes {
			done, err := v.settle(threads)
			if err != nil || done != (tc.done && i == len(tc.passes)-1) {
				t.Errorf("%s: pass %d: %v, %v", name, i, done, err)
			}
		}
	}
	var v verification
	for i := range maxPasses {
		done, err := v.settle(nil)
		if last := i == maxPasses-1; done || (err != nil) != last {
			t.Errorf("bad pass %d: %v, %v", i, done, err)
		}
	}
}
