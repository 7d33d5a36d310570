package placement

import (
	"context"
	"fmt"
	"os"

	"bulkhead/ipc/gatewayside"
	"bulkhead/policy/limits"
	"bulkhead/policy/seccomp"
	"bulkhead/supervisor/launcher/orders"
)

// FromLauncher spawns through the order socket shards that are to expect at most maxTenants.
func FromLauncher(c *orders.Client, wire limits.Wire, maxTenants int) Spawn {
	return func(ctx context.Context, profile seccomp.Profile, memory uint64, onViolation func(error)) (Process, Conn, error) {
		child, err := c.SpawnShard(ctx, profile, memory)
		if err != nil {
			return Process{}, nil, err
		}
		conn, err := gatewayside.Dial(child.Control, child.Data, gatewayside.Options{Wire: wire, OnViolation: onViolation, Look: activity(child, child.BlackBox)})
		if err != nil {
			child.Kill()
			child.BlackBox.Close()
			child.Stderr.Close()
			return Process{}, nil, fmt.Errorf("connect to shard %d: %w", child.ID, err)
		}
		if err := conn.Configure(ctx, memory, maxTenants); err != nil {
			child.Kill()
			conn.Close()
			child.BlackBox.Close()
			child.Stderr.Close()
			return Process{}, nil, fmt.Errorf("configure shard %d: %w", child.ID, err)
		}
		return Process{ID: child.ID, PID: child.PID, BlackBox: child.BlackBox, Stderr: child.Stderr,
			Exited: child.Exited(), Kill: child.Kill, RSS: child.RSS}, conn, nil
	}
}

// activity asks the launcher what a child is doing, and its black box for whom.
func activity(child *orders.Child, box *os.File) func(context.Context) (gatewayside.Activity, error) {
	return func(ctx context.Context) (gatewayside.Activity, error) {
		l, err := child.Look(ctx)
		running, _ := readBox(box)
		return gatewayside.Activity{CPU: l.CPU, Delay: l.Delay, Runnable: l.Runnable, Running: running}, err
	}
}
