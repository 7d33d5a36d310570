package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// cpuShares is CPU time by program name, µs.
type cpuShares map[string]float64

// cpu sums user and system time of the target's processes by name (proc_pid_stat(5), fields 14 and
// 15, in clock ticks of 10 ms on every Linux of today).
func (t *target) cpu() cpuShares {
	out := cpuShares{}
	for _, pid := range descendants(t.cmd.Process.Pid) {
		f := statFields(pid)
		if len(f) < 13 {
			continue
		}
		user, _ := strconv.ParseFloat(f[11], 64)
		system, _ := strconv.ParseFloat(f[12], 64)
		out[name(pid)] += (user + system) * 10_000
	}
	return out
}

func (c cpuShares) since(before cpuShares) cpuShares {
	out := cpuShares{}
	for k, v := range c {
		out[k] = v - before[k]
	}
	return out
}

// add averages in the cost of n requests.
func (c *cpuShares) add(spent cpuShares, n int) {
	if *c == nil {
		*c = cpuShares{}
	}
	for k, v := range spent {
		per := v / float64(max(n, 1))
		if old, ok := (*c)[k]; ok {
			per = (old + per) / 2
		}
		(*c)[k] = per
	}
}

func statFields(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	s := string(b)
	return strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
}

func name(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	arg0, _, _ := strings.Cut(string(b), "\x00")
	return strings.TrimPrefix(filepath.Base(arg0), "bulkhead-")
}

func descendants(root int) []int {
	parents := map[int][]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(d))
		if f := statFields(pid); len(f) > 1 {
			parent, _ := strconv.Atoi(f[1])
			parents[parent] = append(parents[parent], pid)
		}
	}
	out := []int{root}
	for i := 0; i < len(out); i++ {
		out = append(out, parents[out[i]]...)
	}
	return out
}

func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		if k, v, _ := strings.Cut(in.Text(), ":"); strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

// pss sums the proportional set size of a target's processes, shared pages divided among their
// users (proc_pid_smaps(5)), and the bytes of their page tables.
func pss(t *target) (sum, tables uint64) {
	for _, pid := range descendants(t.cmd.Process.Pid) {
		sum += pssOf(pid)
		tables += field(fmt.Sprintf("/proc/%d/status", pid), "VmPTE:")
	}
	return sum, tables
}

// pssShards is pss of all processes, and of the workers among them.
func pssShards(t *target) (all, shards uint64) {
	for _, pid := range descendants(t.cmd.Process.Pid) {
		n := pssOf(pid)
		all += n
		if name(pid) == "worker" {
			shards += n
		}
	}
	return all, shards
}

func pssOf(pid int) uint64 { return field(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:") }

// field reads a "Name:  123 kB" line in bytes.
func field(path, name string) uint64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			kb, _ := strconv.ParseUint(f[1], 10, 64)
			return kb << 10
		}
	}
	return 0
}
