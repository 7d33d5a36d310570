package launcher

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"bulkhead/supervisor/launcher/orders"
)

// lookGap is the least time between two looks at one child: in between the last one is the answer.
const lookGap = 5 * time.Millisecond

// orderLook tells what a child is doing, so that the gateway can tell one that hangs from one that
// the machine gives no processor. The numbers are the kernel's; nothing the child writes is read.
func (l *launcher) orderLook(o orders.Order) error {
	if o.Seq == 0 {
		return fmt.Errorf("%w: look without a sequence number", errBreach)
	}
	c, err := l.named(o)
	if err != nil {
		return err
	}
	r := orders.Report{}
	if c != nil {
		if now := time.Now(); now.Sub(c.looked) >= lookGap {
			c.looked, c.look = now, activity(c.pid)
		}
		r = c.look
	}
	r.Kind, r.Child, r.Seq = orders.ReportLook, o.Child, o.Seq
	l.report(r)
	return nil
}

// activity sums what /proc/PID/task says of each thread: schedstat has the time on a processor and the
// time spent waiting for one, ns (Documentation/scheduler/sched-stats.rst); the third field of stat
// is the state (proc_pid_stat(5)). A wait that has not ended counts nowhere yet, but its thread is
// seen to be runnable.
func activity(pid int) (r orders.Report) {
	var cpu, delay uint64
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", pid))
	for _, task := range tasks {
		if b, err := os.ReadFile(task + "/schedstat"); err == nil {
			if f := bytes.Fields(b); len(f) >= 2 {
				ran, _ := strconv.ParseUint(string(f[0]), 10, 64)
				waited, _ := strconv.ParseUint(string(f[1]), 10, 64)
				cpu, delay = cpu+ran, delay+waited
			}
		}
		if b, err := os.ReadFile(task + "/stat"); err == nil {
			// The name before it may hold anything.
			if i := bytes.LastIndexByte(b, ')'); i >= 0 && i+2 < len(b) && b[i+2] == 'R' {
				r.Runnable++
			}
		}
	}
	r.CPUMillis, r.DelayMillis = uint32(cpu/1e6), uint32(delay/1e6)
	return r
}
