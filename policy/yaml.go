package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"bulkhead/policy/limits"
)

// YAML writes the effective policy as a document that Parse reads back to the same policy.
func (p *Policy) YAML() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "preset: %s\nprofile: %s\nidleEvict: %s\n", p.Preset, p.Profile, duration(p.IdleEvict))
	if len(p.Accept) > 0 {
		fmt.Fprintf(&b, "accept: [%s]\n", strings.Join(p.Accept, ", "))
	}
	b.WriteString("limits:\n")
	writeLimits(&b, "  ", p.Tenant)
	b.WriteString("egress:\n")
	writeEgress(&b, "  ", p.Egress)
	writeCalls(&b, p)
	fmt.Fprintf(&b, "shard:\n  memory: %s\n  pids: %d\n  cpuWeight: %d\n  files: %d\n  maxTenants: %d\n",
		FormatBytes(p.Shard.Memory), p.Shard.PIDs, p.Shard.CPUWeight, p.Shard.Files, p.Shard.MaxTenants)
	if len(p.TenantOverrides) > 0 {
		b.WriteString("tenants:\n")
		for _, id := range slices.Sorted(maps.Keys(p.TenantOverrides)) {
			t := p.TenantOverrides[id]
			// Quoted: ids such as 123 or null are text.
			fmt.Fprintf(&b, "  %q:\n    profile: %s\n    limits:\n", id, t.Profile)
			writeLimits(&b, "      ", t.Limits)
			if e, ok := p.TenantEgress[id]; ok {
				b.WriteString("    egress:\n")
				writeEgress(&b, "      ", e)
			}
		}
	}
	return []byte(b.String())
}

func writeLimits(b *strings.Builder, indent string, l limits.Tenant) {
	for _, kv := range [][2]string{
		{"cpu", duration(l.CPU)},
		{"startupCpu", duration(l.StartupCPU)},
		{"wall", duration(l.Wall)},
		{"waitUntil", duration(l.WaitUntil)},
		{"memory", FormatBytes(l.Memory)},
		{"concurrent", fmt.Sprint(l.Concurrent)},
		{"weight", fmt.Sprint(l.Weight)},
		{"requestBody", FormatBytes(l.RequestBody)},
		{"responseBody", FormatBytes(l.ResponseBody)},
		{"headers", FormatBytes(uint64(l.HeaderBytes))},
		{"logBytes", FormatBytes(uint64(l.LogBytes))},
		{"timers", fmt.Sprint(l.Timers)},
		{"pending", fmt.Sprint(l.Pending)},
		{"subrequests", fmt.Sprint(l.Subrequests)},
		{"scriptSize", FormatBytes(uint64(l.ScriptSize))},
		{"eval", fmt.Sprint(l.Eval)},
		{"wasm", fmt.Sprint(l.Wasm)},
	} {
		fmt.Fprintf(b, "%s%s: %s\n", indent, kv[0], kv[1])
	}
}

// duration is time.Duration's form without the zero parts: 10m, not 10m0s.
func duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
