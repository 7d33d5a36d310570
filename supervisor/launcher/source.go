package launcher

import (
	"fmt"
	"os"

	"bulkhead/policy/namespaces"
	"bulkhead/sandboxworker/lockdown/setup"

	"golang.org/x/sys/unix"
)

// source is a directory or file of the host that some child will see, opened once.
type source struct {
	path     string // where it really is, for people and for rootless children
	fd       int    // O_PATH
	file     string // the name it has in the child, for the configuration
	dir      bool
	dev, ino uint64
	uid, gid uint32 // owner on disk
}

type hostMount struct {
	source
	target string
}

func openSource(path string) (source, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return source{}, fmt.Errorf("%q: %w", path, err)
	}
	s, err := fromFD(fd)
	if err != nil {
		unix.Close(fd)
		return source{}, fmt.Errorf("%q: %w", path, err)
	}
	return s, nil
}

// fromFD takes over fd.
func fromFD(fd int) (source, error) {
	fd, err := raise(fd)
	if err != nil {
		return source{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return source{}, err
	}
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return source{}, err
	}
	return source{path: path, fd: fd, dir: st.Mode&unix.S_IFMT == unix.S_IFDIR,
		dev: st.Dev, ino: st.Ino, uid: st.Uid, gid: st.Gid}, nil
}

// openTenant opens the folder of one tenant beneath its root. No component may be a link: the
// folder's owner could otherwise point a bundler at somebody else's (openat2(2)).
func openTenant(root source, name string) (source, error) {
	fd, err := unix.Openat2(root.fd, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC | unix.O_DIRECTORY,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return source{}, fmt.Errorf("tenant folder %q in %q: %w", name, root.path, err)
	}
	return fromFD(fd)
}

func (s *source) close() { unix.Close(s.fd) }

// hostMounts opens what of the gateway's table this host has. Links are followed: resolv.conf
// often is one.
func hostMounts() []hostMount {
	var found []hostMount
	for _, m := range namespaces.Mounts(namespaces.Gateway) {
		if m.Source != namespaces.HostPath {
			continue
		}
		if s, err := openSource(m.Path); err == nil {
			found = append(found, hostMount{s, m.Target})
		}
	}
	return found
}

// room is the list of mounts for one child and what it keeps open until the child is born.
type room struct {
	mounts []setup.Mount
	fds    []int // detached mounts; Mount.FD indexes it until the child's numbers are known
}

func (r *room) close() {
	for _, fd := range r.fds {
		unix.Close(fd)
	}
}

// add puts s at target. As root the launcher clones the mount itself, mapped so that the owner
// of s is, to the child, the child's own uid: an unprivileged child can so read a private
// folder, and only through this mount. Rootless the child has the invoker's rights anyway and
// clones it itself, checking that it is the same object.
func (l *launcher) add(r *room, s source, target string, writable bool, uid uint32) error {
	m := setup.Mount{FD: -1, Dir: s.dir, Writable: writable, Dev: s.dev, Ino: s.ino, Target: target, Source: s.path}
	if l.root {
		fd, err := unix.OpenTree(s.fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
		if err != nil {
			return fmt.Errorf("open_tree %q: %w", s.path, err)
		}
		r.fds = append(r.fds, fd)
		m.FD, m.Source = int32(len(r.fds)-1), ""
		if err := l.attributes(fd, s, writable, uid); err != nil {
			return err
		}
	}
	r.mounts = append(r.mounts, m)
	return nil
}

func (l *launcher) attributes(fd int, s source, writable bool, uid uint32) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}
	if !writable {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("mount_setattr %q: %w", s.path, err)
	}
	// A writable mount is not mapped: the child would make files that belong to the folder's
	// owner, root's perhaps. What everybody may read needs no map either.
	if writable || l.worldReadable(s) {
		return nil
	}
	userns, err := l.mapNamespace(s.uid, s.gid, uid)
	if err != nil {
		return fmt.Errorf("user namespace for %q: %w", s.path, err)
	}
	defer unix.Close(userns)
	attr = unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns)}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return l.lacking(&Missing{Feature: "idmap", What: "an idmapped mount of " + s.path, Reason: err.Error(),
			Remedy: "keep the folder on a file system that supports them (ext4, xfs, btrfs, tmpfs of a kernel from 6.3), or make it readable by everybody"})
	}
	return nil
}

// worldReadable is true for the host's own files in /etc and /usr: public, and owned by root.
func (l *launcher) worldReadable(s source) bool {
	for _, h := range l.host {
		if h.ino == s.ino && h.dev == s.dev {
			return true
		}
	}
	return false
}

// gatewayRoom is the gateway's root.
func (l *launcher) gatewayRoom() (*room, error) {
	r := &room{}
	uid := l.opt.UIDBase
	for _, m := range namespaces.Mounts(namespaces.Gateway) {
		var err error
		switch m.Source {
		case namespaces.TenantRoots:
			for i, s := range l.roots {
				if err == nil {
					err = l.add(r, s, fmt.Sprintf("%s/%d", m.Target, i), m.Writable, uid)
				}
			}
		case namespaces.Sockets:
			for i, s := range l.sockets {
				if err == nil {
					err = l.add(r, s, fmt.Sprintf("%s/%d", m.Target, i), m.Writable, uid)
				}
			}
		case namespaces.Config:
			if l.config != nil {
				err = l.add(r, *l.config, m.Target+"/"+l.config.file, m.Writable, uid)
			}
		case namespaces.Data:
			if l.data != nil {
				err = l.add(r, *l.data, m.Target, m.Writable, uid)
			}
		}
		if err != nil {
			r.close()
			return nil, err
		}
	}
	for _, h := range l.host {
		if err := l.add(r, h.source, h.target, false, uid); err != nil {
			r.close()
			return nil, err
		}
	}
	return r, nil
}
