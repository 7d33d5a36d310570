// The room: an empty read-only root with at most a few mounts in it (pivot_root(2)).
#define _GNU_SOURCE
#include "setup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// The new mount API by number and value: Debian 12's glibc knows the calls but its headers
// quarrel with linux/mount.h, and older ones know nothing.
#ifndef SYS_open_tree
#define SYS_open_tree 428
#endif
#ifndef SYS_move_mount
#define SYS_move_mount 429
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
enum {
	OPEN_TREE_CLONE_FLAG = 1,
	MOVE_MOUNT_EMPTY_FROM = 0x4, // MOVE_MOUNT_F_EMPTY_PATH
	ATTR_RDONLY = 0x1,
	ATTR_NOSUID = 0x2,
	ATTR_NODEV = 0x4,
	ATTR_NOEXEC = 0x8,
};
struct attr { // struct mount_attr
	uint64_t set, clr, propagation, userns_fd;
};

// make_target creates target and the directories that lead to it, relative to the working
// directory, which is the new root.
static void make_target(const struct setup_mount *m) {
	char path[sizeof m->target];
	size_t len = strnlen(m->target, sizeof m->target);
	if (len < 2 || len == sizeof m->target || m->target[0] != '/')
		lockdown_fail("root", "mount target", EINVAL);
	memcpy(path, m->target + 1, len); // with its terminating zero
	for (char *p = strchr(path, '/'); p != NULL; p = strchr(p + 1, '/')) {
		*p = 0;
		if (mkdir(path, 0555) != 0 && errno != EEXIST)
			lockdown_fail("root", path, errno);
		*p = '/';
	}
	if (m->dir) {
		if (mkdir(path, 0555) != 0 && errno != EEXIST)
			lockdown_fail("root", path, errno);
		return;
	}
	int fd = open(path, O_CREAT | O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0444);
	if (fd < 0)
		lockdown_fail("root", path, errno);
	close(fd);
}

// clone_source opens what a rootless launcher could only name, and insists that it is still the
// object the launcher looked at. It runs before the root changes, so that paths mean what they
// meant to the launcher.
static int clone_source(const struct setup_mount *m) {
	int fd = (int)syscall(SYS_open_tree, AT_FDCWD, m->source, OPEN_TREE_CLONE_FLAG | O_CLOEXEC | AT_NO_AUTOMOUNT);
	if (fd < 0)
		lockdown_fail("root", m->source, errno);
	struct stat st;
	if (fstat(fd, &st) != 0)
		lockdown_fail("root", m->source, errno);
	if (st.st_dev != m->dev || st.st_ino != m->ino)
		lockdown_fail("root", m->source, ESTALE);
	struct attr a = {.set = ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC | (m->writable ? 0 : ATTR_RDONLY)};
	if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &a, sizeof a) != 0)
		lockdown_fail("root", m->source, errno);
	return fd;
}

void lockdown_room(const struct setup *s) {
	int trees[SETUP_MAX_MOUNTS];
	if (s->mounts > SETUP_MAX_MOUNTS)
		lockdown_fail("root", "mount table", E2BIG);
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
		lockdown_fail("root", "private propagation", errno);
	for (int i = 0; i < s->mounts; i++)
		trees[i] = s->mount[i].fd >= 0 ? s->mount[i].fd : clone_source(&s->mount[i]);

	// /proc is a directory every host has; it is covered only in this namespace and only until
	// the old root goes.
	const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
	if (mount("room", "/proc", "tmpfs", flags, "mode=0555,size=64k,nr_inodes=128") != 0)
		lockdown_fail("root", "tmpfs", errno);
	if (chdir("/proc") != 0)
		lockdown_fail("root", "chdir to the new root", errno);
	for (int i = 0; i < s->mounts; i++) {
		make_target(&s->mount[i]);
		if (syscall(SYS_move_mount, trees[i], "", AT_FDCWD, s->mount[i].target + 1, MOVE_MOUNT_EMPTY_FROM) != 0)
			lockdown_fail("root", s->mount[i].target, errno);
		close(trees[i]);
	}
	// The old root lands on top of the new one and is taken off at once: no directory is needed
	// to put it in.
	if (syscall(SYS_pivot_root, ".", ".") != 0)
		lockdown_fail("root", "pivot_root", errno);
	if (umount2(".", MNT_DETACH) != 0)
		lockdown_fail("root", "unmounting the old root", errno);
	if (chdir("/") != 0)
		lockdown_fail("root", "chdir to /", errno);
	// Both the mount and its superblock.
	if (mount("none", "/", NULL, MS_REMOUNT | MS_RDONLY | flags, "mode=0555,size=64k,nr_inodes=128") != 0)
		lockdown_fail("root", "read-only remount", errno);
}
