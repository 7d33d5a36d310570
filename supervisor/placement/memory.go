package placement

import "time"

// What a shard and a loaded tenant are taken to hold before the kernel has been asked: the launcher
// tells sizes every few seconds, and hundreds of tenants can be loaded in between.
const (
	shardBytes  = 20 << 20
	tenantBytes = 1 << 20
)

// memoryLocked estimates what all shards hold together, bytes.
func (p *Pool) memoryLocked() (sum uint64) {
	for _, s := range p.shards {
		sum += max(s.proc.RSS(), shardBytes+uint64(s.slots)*tenantBytes)
	}
	return sum
}

// overLocked returns the idle tenant that must go because the shards hold more than they should,
// claimed for eviction; nil if there is room, or nobody is idle.
func (p *Pool) overLocked() *place {
	if p.opt.Memory == 0 || p.memoryLocked() <= p.opt.Memory {
		return nil
	}
	return p.idlestLocked(func(*shard) bool { return true })
}

// shrink evicts idle tenants, the least recently used first, while the shards hold more than they
// should. Sizes lag behind, so it goes in steps.
func (p *Pool) shrink() {
	p.mu.Lock()
	var idle []*place
	if over := p.memoryLocked(); p.opt.Memory != 0 && over > p.opt.Memory {
		n := min((over-p.opt.Memory)/tenantBytes+1, shrinkStep)
		for range n {
			pl := p.idlestLocked(func(*shard) bool { return true })
			if pl == nil {
				break
			}
			idle = append(idle, pl)
		}
	}
	p.mu.Unlock()
	for _, pl := range idle {
		p.wg.Go(func() { p.evict(pl) })
	}
}

const (
	shrinkEvery = time.Second
	shrinkStep  = 64
)
