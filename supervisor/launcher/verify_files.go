package launcher

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// descriptors compares the fd table with the launcher's list. Nothing may be missing from it
// and nothing added, but for what Go's netpoller makes: one eventpoll and one eventfd.
func (k *look) descriptors() error {
	dir := filepath.Join(k.dir, "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	missing := len(k.c.want.files)
	anonymous := map[string]int{}
	for _, e := range entries {
		number, err := strconv.Atoi(e.Name())
		if err != nil {
			return err
		}
		want, listed := k.c.want.files[number]
		if !listed {
			if err := k.extra(number, anonymous); err != nil {
				return err
			}
			continue
		}
		missing--
		got, err := k.identity(number)
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("descriptor %d is %v, want %v", number, got, want)
		}
	}
	if missing != 0 {
		return fmt.Errorf("%d of the %d descriptors are missing", missing, len(k.c.want.files))
	}
	return nil
}

func (k *look) identity(number int) (identity, error) {
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(k.dir, "fd", strconv.Itoa(number)), &st); err != nil {
		return identity{}, err
	}
	access, err := k.access(number)
	if err != nil {
		return identity{}, err
	}
	return identity{dev: st.Dev, ino: st.Ino, rdev: st.Rdev, kind: st.Mode & unix.S_IFMT, access: access}, nil
}

// access is how a descriptor was opened, of O_ACCMODE (proc_pid_fdinfo(5), flags).
func (k *look) access(number int) (int, error) {
	info, err := k.text.read(filepath.Join("fdinfo", strconv.Itoa(number)))
	if err != nil {
		return 0, err
	}
	text, err := statusField(info, "flags")
	if err != nil {
		return 0, err
	}
	flags, err := strconv.ParseInt(text, 8, 64)
	return int(flags) & unix.O_ACCMODE, err
}

// extra judges a descriptor that the launcher did not hand over.
func (k *look) extra(number int, seen map[string]int) error {
	link, err := k.text.link(filepath.Join("fd", strconv.Itoa(number)))
	if err != nil {
		return err
	}
	if link != "anon_inode:[eventpoll]" && link != "anon_inode:[eventfd]" {
		return fmt.Errorf("descriptor %d is %q", number, link)
	}
	if seen[link]++; seen[link] > 1 {
		return fmt.Errorf("descriptor %d is a second %q", number, link)
	}
	if link == "anon_inode:[eventpoll]" {
		return k.watches(number)
	}
	return nil
}

// watches makes sure that the eventpoll keeps nothing alive that the fd table no longer shows:
// a file in an epoll set outlives its descriptor if a copy of it was open elsewhere.
func (k *look) watches(number int) error {
	info, err := k.text.read(filepath.Join("fdinfo", strconv.Itoa(number)))
	if err != nil {
		return err
	}
	for line := range strings.Lines(info) {
		// tfd: 3 events: 19 data: 1234 pos:0 ino:3f9 sdev:8, proc_pid_fdinfo(5)
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "tfd:" {
			continue
		}
		target, err := strconv.Atoi(f[1])
		if err != nil {
			return err
		}
		i := slices.IndexFunc(f, func(s string) bool { return strings.HasPrefix(s, "ino:") })
		if i < 0 {
			continue // kernels before 4.13 do not tell
		}
		ino, err := strconv.ParseUint(f[i][len("ino:"):], 16, 64)
		if err != nil {
			return err
		}
		if err := k.watched(number, target, ino); err != nil {
			return err
		}
	}
	return nil
}

func (k *look) watched(epoll, target int, ino uint64) error {
	if want, ok := k.c.want.files[target]; ok {
		if want.ino != ino {
			return fmt.Errorf("eventpoll %d watches an inode %d that is not descriptor %d", epoll, ino, target)
		}
		return nil
	}
	link, err := k.text.link(filepath.Join("fd", strconv.Itoa(target)))
	if err != nil {
		return fmt.Errorf("eventpoll %d watches descriptor %d, which is closed: %w", epoll, target, err)
	}
	if link != "anon_inode:[eventfd]" {
		return fmt.Errorf("eventpoll %d watches descriptor %d, which is %q", epoll, target, link)
	}
	return nil
}
