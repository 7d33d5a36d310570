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
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
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
