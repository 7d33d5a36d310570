package canary

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
)

// Hit is a part of a secret in a process's memory.
type Hit struct {
	Place   Place
	Wide    bool // as UTF-16LE
	Address uint64
	Mapping string // as /proc/PID/maps has it
	Around  string // it and the bytes before and after
}

func (h Hit) String() string {
	form := "UTF-8"
	if h.Wide {
		form = "UTF-16"
	}
	return fmt.Sprintf("%s (%s) at %x in %s", h.Place, form, h.Address, h.Mapping)
}

// find calls hit for each part of a secret in b.
func (s *Secrets) find(b []byte, hit func(at int, p Place, wide bool)) {
	mark := []byte(s.mark)
	for from := 0; ; {
		i := bytes.Index(b[from:], mark)
		if i < 0 || from+i+partLen > len(b) {
			break
		}
		from += i
		if p, ok := s.whose[string(b[from:from+partLen])]; ok {
			hit(from, p, false)
		}
		from++
	}
	wide := wideOf(mark)
	for from := 0; ; {
		i := bytes.Index(b[from:], wide)
		if i < 0 || from+i+2*partLen > len(b) {
			return
		}
		from += i
		var narrow [partLen]byte
		for j := range narrow {
			narrow[j] = b[from+2*j]
			if b[from+2*j+1] != 0 {
				narrow[j] = 0
			}
		}
		if p, ok := s.whose[string(narrow[:])]; ok {
			hit(from, p, true)
		}
		from++
	}
}

func wideOf(b []byte) []byte {
	out := make([]byte, 2*len(b))
	for i, c := range b {
		out[2*i] = c
	}
	return out
}

// Count is how many parts of secrets are in a process, by place.
type Count map[Place]int

func (c Count) String() string {
	if len(c) == 0 {
		return "none"
	}
	var all []string
	for _, p := range slices.Sorted(maps.Keys(c)) {
		all = append(all, fmt.Sprintf("%s %d", p, c[p]))
	}
	return strings.Join(all, ", ")
}

// CountOf counts hits by place.
func CountOf(hits []Hit) Count {
	c := Count{}
	for _, h := range hits {
		c[h.Place]++
	}
	return c
}

// chunk is how much memory is read at once. Chunks overlap by what could be cut in two.
const chunk = 1 << 20

// Scan looks through every readable mapping of a process, stacks included. Only root may, of a worker.
// A process that is gone holds nothing: os.ErrNotExist.
func Scan(pid int, s *Secrets) ([]Hit, error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, fmt.Errorf("scan: %w", err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, fmt.Errorf("scan: %w", err)
	}
	defer mem.Close()
	pages, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		return nil, fmt.Errorf("scan: %w", err)
	}
	defer pages.Close()
	var hits []Hit
	read := 0
	buf := make([]byte, 0, chunk+1<<12)
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var perms string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perms); n != 3 {
			return nil, fmt.Errorf("scan: /proc/%d/maps: %q", pid, line)
		}
		if perms[0] != 'r' || strings.Contains(line, "[vvar") || strings.Contains(line, "[vsyscall") {
			continue
		}
		name := strings.Join(strings.Fields(line), " ")
		err := present(pages, from, to, func(from, to uint64) error {
			for at := from; at < to; at += chunk {
				n := min(to-at, chunk+2*partLen)
				got, err := mem.ReadAt(buf[:n], int64(at))
				if err != nil && !errors.Is(err, syscall.EIO) && !errors.Is(err, io.EOF) {
					return err
				}
				read += got
				s.find(buf[:got], func(i int, p Place, wide bool) {
					if i < chunk {
						hits = append(hits, Hit{Place: p, Wide: wide, Address: at + uint64(i), Mapping: name,
							Around: fmt.Sprintf("%q", buf[max(0, i-48):min(got, i+64)])})
					}
				})
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("scan: process %d, %s: %w", pid, strings.TrimSpace(line), err)
		}
	}
	if read == 0 {
		return nil, fmt.Errorf("scan: no memory of process %d could be read: %w", pid, os.ErrNotExist)
	}
	return hits, nil
}

// present calls f for each run of pages that are there: the rest of a mapping is zero, and may be
// terabytes.
func present(pagemap *os.File, from, to uint64, f func(from, to uint64) error) error {
	const page, entry = 4096, 8
	buf := make([]byte, 64<<10)
	start := uint64(0)
	for at := from; at < to; {
		n := min(uint64(len(buf)), (to-at)/page*entry)
		got, err := pagemap.ReadAt(buf[:n], int64(at/page*entry))
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if got < entry {
			break
		}
		for i := 0; i+entry <= got; i += entry {
			there := buf[i+7]&0xc0 != 0 // in memory, or in swap (proc_pid_pagemap(5))
			switch {
			case there && start == 0:
				start = at
			case !there && start != 0:
				if err := f(start, at); err != nil {
					return err
				}
				start = 0
			}
			at += page
		}
	}
	if start != 0 {
		return f(start, to)
	}
	return nil
}
