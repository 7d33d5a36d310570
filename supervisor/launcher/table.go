package launcher

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"bulkhead/policy/namespaces"
	"bulkhead/supervisor/launcher/orders"

	"golang.org/x/sys/unix"
)

// order is a row: what a gateway may ask, when, and how often. Whatever matches no row, or comes
// out of phase, or twice where once is lawful, or asks for more than argv grants, ends the
// gateway's generation: an honest gateway knows its limits.
type order struct {
	kind    orders.Kind
	phases  phase
	once    bool
	handler func(*launcher, orders.Order) error
}

const anyPhase = phaseStarting | phaseServing | phaseDraining

func orderTable() []order {
	return []order{
		{orders.KindReady, phaseStarting | phaseDraining, true, (*launcher).orderReady},
		{orders.KindHeartbeat, anyPhase, false, (*launcher).orderHeartbeat},
		{orders.KindSpawnShard, anyPhase, false, (*launcher).orderShard},
		{orders.KindSpawnBundler, anyPhase, false, (*launcher).orderBundler},
		{orders.KindKill, anyPhase, false, (*launcher).orderKill},
		{orders.KindLook, anyPhase, false, (*launcher).orderLook},
		{orders.KindConfig, anyPhase, false, (*launcher).orderConfig},
	}
}

// errBreach is wrapped by every error that ends a generation.
var errBreach = errors.New("breach of the order protocol")

// beatGap is the least time between two heartbeats that are passed on. WatchdogSec is far longer.
const beatGap = time.Second

// maxBatch bounds the orders handled before the loop looks at everything else again.
const maxBatch = 64

func (l *launcher) onOrders() {
	for range maxBatch {
		if l.orders < 0 {
			return
		}
		// No room for control messages: descriptors that a gateway attaches are dropped by the
		// kernel. One byte more than an order, so that a longer one is seen to be longer.
		var buf [orders.OrderSize + 1]byte
		n, _, err := unix.Recvfrom(l.orders, buf[:], unix.MSG_DONTWAIT)
		if err == unix.EAGAIN || err == unix.EINTR {
			return
		}
		if err != nil || n == 0 {
			// The gateway closed its end. Its pidfd says whether it died; alive it is of no use.
			l.gateway.killFor("closed its order socket")
			unix.Close(l.orders)
			l.orders = -1
			return
		}
		if err := l.obey(buf[:n]); err != nil {
			if l.gateway != nil {
				l.gateway.killFor("%v", err)
			}
			l.endGeneration(err.Error())
			return
		}
	}
}

func (l *launcher) obey(msg []byte) error {
	// An order before the gateway's own seal is verified comes from a process in an unknown state.
	if l.gateway == nil || l.gateway.state != live {
		return fmt.Errorf("%w: order from a gateway that is not sealed yet", errBreach)
	}
	o, err := orders.DecodeOrder(msg)
	if err != nil {
		return fmt.Errorf("%w: %w", errBreach, err)
	}
	table := orderTable()
	i := slices.IndexFunc(table, func(row order) bool { return row.kind == o.Kind })
	switch {
	case i < 0:
		return fmt.Errorf("%w: unknown %v", errBreach, o.Kind)
	case table[i].phases&l.phase == 0:
		return fmt.Errorf("%w: %v while %v", errBreach, o.Kind, l.phase)
	case table[i].once && l.given[o.Kind]:
		return fmt.Errorf("%w: a second %v", errBreach, o.Kind)
	}
	l.given[o.Kind] = true
	return table[i].handler(l, o)
}

func (l *launcher) orderReady(orders.Order) error {
	if l.phase == phaseStarting {
		l.phase = phaseServing
	}
	l.everServed = true
	l.notify(fmt.Sprintf("READY=1\nSTATUS=generation %d serves", l.generation))
	return nil
}

func (l *launcher) orderHeartbeat(orders.Order) error {
	// The service manager is everybody's: what the gateway says reaches it once a second at most.
	if now := time.Now(); now.Sub(l.lastBeat) >= beatGap {
		l.lastBeat = now
		l.notify("WATCHDOG=1")
		l.reportUsage()
	}
	return nil
}

// reportUsage tells the gateway what each shard holds: it cannot see other processes, and a shard's
// own word counts for nothing. A few at a time, the longest untold first, so that what matters more
// never finds the socket full; for the same reason a full socket is no fault here.
func (l *launcher) reportUsage() {
	var due []*child
	for _, c := range l.children {
		if c.role == namespaces.Worker && c.state == live {
			due = append(due, c)
		}
	}
	slices.SortFunc(due, func(a, b *child) int { return a.told.Compare(b.told) })
	for _, c := range due[:min(len(due), usageBatch)] {
		rss, ok := residentBytes(c.pid)
		if !ok {
			continue
		}
		if l.send(orders.Report{Kind: orders.ReportUsage, Child: c.id, PID: int32(c.pid), Seq: rss}) != nil {
			return
		}
		c.told = time.Now()
	}
}

// usageBatch bounds the usage reports of one heartbeat.
const usageBatch = 32

// residentBytes reads the second field of /proc/PID/statm, in pages (proc_pid_statm(5)). The child
// is not reaped before this thread does it, so the pid is still its own.
func residentBytes(pid int) (uint64, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, false
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseUint(f[1], 10, 64)
	return pages * uint64(os.Getpagesize()), err == nil
}

func (l *launcher) orderShard(o orders.Order) error {
	switch {
	case o.Seq == 0:
		return fmt.Errorf("%w: spawn without a sequence number", errBreach)
	case !slices.Contains(l.opt.Profiles, o.Profile):
		return fmt.Errorf("%w: profile %v is not allowed", errBreach, o.Profile)
	case o.Memory < minShardMemory || o.Memory > l.opt.ShardMemory:
		return fmt.Errorf("%w: %d bytes of memory, allowed are %d to %d", errBreach, o.Memory, uint64(minShardMemory), l.opt.ShardMemory)
	}
	if l.count(namespaces.Worker) >= l.opt.MaxShards {
		return l.turnDown(o, fmt.Errorf("%d shards exist, as many as --max-shards allows", l.opt.MaxShards))
	}
	return l.answerSpawn(o, func() (*child, error) { return l.spawnShard(o.Profile, o.Memory) })
}

func (l *launcher) orderBundler(o orders.Order) error {
	switch {
	case o.Seq == 0:
		return fmt.Errorf("%w: spawn without a sequence number", errBreach)
	case int64(o.Root) >= int64(len(l.roots)):
		return fmt.Errorf("%w: tenant root %d of %d", errBreach, o.Root, len(l.roots))
	case !tenantName(o.Tenant):
		return fmt.Errorf("%w: tenant id %q", errBreach, o.Tenant)
	}
	if l.count(namespaces.Bundler) >= l.opt.MaxBundlers {
		return l.turnDown(o, fmt.Errorf("%d bundlers run, as many as --max-bundlers allows", l.opt.MaxBundlers))
	}
	return l.answerSpawn(o, func() (*child, error) { return l.spawnBundler(l.roots[o.Root], o.Tenant) })
}

// tenantName is [a-z0-9][a-z0-9-]{0,62}: one path component that is never "." or "..".
func tenantName(s string) bool {
	if len(s) < 1 || len(s) > orders.TenantMax || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// orderKill: a child that is gone already is no breach, its report may still be on the way.
// named is the child of an order, nil if it is gone.
func (l *launcher) named(o orders.Order) (*child, error) {
	c := l.children[o.Child]
	switch {
	case c == nil && (o.Child == 0 || o.Child > l.nextChild):
		return nil, fmt.Errorf("%w: child %d never existed", errBreach, o.Child)
	case c != nil && c == l.gateway:
		return nil, fmt.Errorf("%w: the gateway is no child of the gateway", errBreach)
	}
	return c, nil
}

func (l *launcher) orderKill(o orders.Order) error {
	c, err := l.named(o)
	if c == nil || err != nil {
		return err
	}
	c.killFor("killed on the gateway's order")
	return nil
}

func (l *launcher) count(role namespaces.Role) (n int) {
	for _, c := range l.children {
		if c.role == role {
			n++
		}
	}
	return n
}

func (l *launcher) answerSpawn(o orders.Order, spawn func() (*child, error)) error {
	c, err := spawn()
	if err != nil {
		return l.turnDown(o, err)
	}
	c.seq = o.Seq
	return nil
}

// turnDown answers an order that was lawful and could not be done.
func (l *launcher) turnDown(o orders.Order, err error) error {
	step := "limits"
	var se *stepError
	if errors.As(err, &se) {
		step, err = se.step, se.err
	}
	l.logf("order %v: step %s: %v", o.Kind, step, err)
	l.report(orders.Report{Kind: orders.ReportRefused, Seq: o.Seq, Step: step, Errno: errnoOf(err), Detail: err.Error()})
	return nil
}

// handOver gives the gateway the descriptors of a verified child, and forgets them.
func (l *launcher) handOver(c *child) {
	if c == l.gateway {
		l.logf("gateway generation %d is sealed", l.generation)
		return
	}
	r := orders.Report{Kind: orders.ReportSpawned, Seq: c.seq, Child: c.id, PID: int32(c.pid), Profile: c.profile, FDs: uint8(len(c.hand))}
	c.seq = 0
	l.report(r, c.hand...)
	for _, fd := range c.hand {
		unix.Close(fd)
	}
	c.hand = nil
}

// handOverAdmin drops the connection where the queue is full: operators who come in crowds are no
// reason to end a gateway.
func (l *launcher) handOverAdmin(fd int, uid uint32) error {
	return l.send(orders.Report{Kind: orders.ReportAdminConn, UID: uid, FDs: 1}, fd)
}

// report sends one message. A gateway that does not read its reports is not waited for.
func (l *launcher) report(r orders.Report, fds ...int) {
	if err := l.send(r, fds...); err != nil && l.gateway != nil {
		l.gateway.killFor("does not take its reports: %v", err)
	}
}

func (l *launcher) send(r orders.Report, fds ...int) error {
	if l.orders < 0 {
		return nil
	}
	b := r.Encode()
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	return unix.Sendmsg(l.orders, b[:], rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}
