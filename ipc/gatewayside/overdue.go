package gatewayside

import (
	"fmt"
	"time"

	"bulkhead/ipc"
	"bulkhead/schema/gen"
)

// OverdueError ends a connection whose shard says that a turn has used up its CPU inside something
// that cannot be interrupted: one builtin, a collection, a parse. Only the end of the process helps.
// It is the shard's word; it could have ended that very stream by a done frame as well.
type OverdueError struct {
	Tenant     uint32 // handle
	Stream     uint64 // 0: the turn belongs to no invocation (start-up, a timer of start-up code)
	CPU, Limit time.Duration
}

func (e *OverdueError) Error() string {
	return fmt.Sprintf("tenant handle %d, stream %d: %s", e.Tenant, e.Stream, e.message())
}

func (e *OverdueError) message() string {
	return fmt.Sprintf("exceeded its CPU limit of %d ms: used %.1f ms inside one operation that cannot be interrupted",
		e.Limit.Milliseconds(), float64(e.CPU.Microseconds())/1000)
}

// maxOverdue bounds what a shard may say about CPU: more than a day is no time that it has seen.
const maxOverdue = 24 * time.Hour

// overdue judges an overdue frame. Its error is what ends the connection.
func (c *Conn) overdue(f gen.Frame) error {
	o, err := ipc.DecodeOverdue(f)
	if err != nil {
		return err
	}
	e := &OverdueError{Tenant: o.Tenant, Stream: f.Stream()}
	const most = uint64(maxOverdue / time.Microsecond)
	if o.CPUMicros > most || o.LimitMicros > most {
		return ipc.Violation(ipc.KindState, e.Stream, "overdue by more than %v", maxOverdue)
	}
	e.CPU, e.Limit = time.Duration(o.CPUMicros)*time.Microsecond, time.Duration(o.LimitMicros)*time.Microsecond
	c.mu.Lock()
	defer c.mu.Unlock()
	switch s := c.streams[e.Stream]; {
	case c.streams == nil:
		return ErrClosed
	case c.tenants[e.Tenant] == nil:
		return ipc.Violation(ipc.KindState, e.Stream, "overdue turn of tenant handle %d, which is not loaded here", e.Tenant)
	case e.Stream != 0 && (s == nil || s.tenant != e.Tenant):
		return ipc.Violation(ipc.KindStream, e.Stream, "overdue turn of a stream that tenant handle %d does not have", e.Tenant)
	}
	return e
}
