// What the launcher tells a child, and the steps the child takes with it. The layout is the
// same as in package setup; lockdown_test.go compares the two.
#ifndef BULKHEAD_LOCKDOWN_SETUP_H
#define BULKHEAD_LOCKDOWN_SETUP_H

#include <stddef.h>
#include <stdint.h>
#include <linux/filter.h>

enum {
	SETUP_MAGIC = 0x70736b62,
	SETUP_VERSION = 1,
	SETUP_SIZE = 64 << 10,
	SETUP_MAX_MOUNTS = 32,
	SETUP_MAX_RLIMITS = 16,
	SETUP_MAX_PROGRAM = 2048,

	FD_READY = 6,
	FD_SETUP = 7,

	FLAG_MDWE = 1 << 0,
	FLAG_LANDLOCK = 1 << 1,
	FLAG_SPECULATE = 1 << 2,
	FLAG_CGROUP_NS = 1 << 3,
	FLAG_PATH_MOUNTS = 1 << 4,
	FLAG_INSPECT = 1 << 5,
};

struct setup_rlimit {
	uint32_t resource;
	uint32_t zero;
	uint64_t soft, hard;
};

struct setup_mount {
	int32_t fd; // detached mount, or -1: clone source
	uint8_t dir, writable, zero[2];
	uint64_t dev, ino; // what source must turn out to be
	uint64_t zero2;
	char target[64];
	char source[1024];
};

struct setup {
	uint32_t magic, version;
	uint8_t role, profile;
	uint16_t program_len; // instructions
	uint32_t flags;
	uint32_t keep; // descriptors from here on are closed
	uint8_t mounts, rlimits, zero[2];
	uint64_t handled_fs, handled_net, scoped; // Landlock
	uint64_t read_access, write_access;
	char hostname[64];
	char comm[64];
	struct setup_rlimit rlimit[SETUP_MAX_RLIMITS];
	struct setup_mount mount[SETUP_MAX_MOUNTS];
	struct sock_filter program[SETUP_MAX_PROGRAM];
};

_Static_assert(sizeof(struct setup) <= SETUP_SIZE, "the setup struct fits its memfd");

// lockdown_fail says which step failed on fd 2 and ends the process with status 70. It never
// returns: a half locked process is worse than none.
void lockdown_fail(const char *step, const char *what, int err) __attribute__((noreturn));

// lockdown_room builds the read-only root out of the setup's mounts and moves the process into
// it (room.c).
void lockdown_room(const struct setup *s);

// lockdown_landlock restricts the thread to the mounts of its root (landlock.c).
void lockdown_landlock(const struct setup *s);

// lockdown_seal installs the filter on all threads, forgets the setup and waits until the
// launcher has verified the seal. It returns 0, or the errno; *thread is then the thread that could not be synchronised, if that was the reason.
int lockdown_seal(int *thread);

// What the constructor learnt, 0 if it did not act.
int lockdown_role(void);
int lockdown_profile(void);

// Whether this is a build that leaves things out for a test, and is to leave out this one.
int lockdown_left_out(const char *name);

// Name of the constructor's step i, NULL behind the last.
const char *lockdown_step_name(size_t i);

#endif
