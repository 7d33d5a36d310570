// Landlock, the second lock on the file system, the network and signals (landlock(7)). It shows
// nowhere in /proc, so the launcher asks the kernel in the child's place (package launcher,
// inspection) and the security suites probe it.
#define _GNU_SOURCE
#include "setup.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

// By value: the headers of the distributions are older than the ABI in use.
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif
enum { RULE_PATH_BENEATH = 1 };
struct ruleset_attr {
	uint64_t handled_access_fs, handled_access_net, scoped;
};
struct path_beneath_attr {
	uint64_t allowed_access;
	int32_t parent_fd;
} __attribute__((packed));

// Rights that mean something for a file that is no directory; others are refused there.
static const uint64_t file_rights = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15;

static void allow_mount(int ruleset, const struct setup *s, const struct setup_mount *m) {
	struct path_beneath_attr a = {
		.allowed_access = m->writable ? s->write_access : s->read_access,
		.parent_fd = open(m->target, O_PATH | O_CLOEXEC),
	};
	if (a.parent_fd < 0)
		lockdown_fail("landlock", m->target, errno);
	if (!m->dir)
		a.allowed_access &= file_rights;
	if (syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &a, 0) != 0)
		lockdown_fail("landlock", m->target, errno);
	close(a.parent_fd);
}

void lockdown_landlock(const struct setup *s) {
	if (!(s->flags & FLAG_LANDLOCK))
		return;
	struct ruleset_attr attr = {s->handled_fs, s->handled_net, s->scoped};
	// Kernels that do not know the later fields accept the longer struct while they are zero.
	int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
	if (ruleset < 0)
		lockdown_fail("landlock", "create_ruleset", errno);
	for (int i = 0; i < s->mounts; i++)
		allow_mount(ruleset, s, &s->mount[i]);
	if (syscall(SYS_landlock_restrict_self, ruleset, 0) != 0)
		lockdown_fail("landlock", "restrict_self", errno);
	close(ruleset);
}
