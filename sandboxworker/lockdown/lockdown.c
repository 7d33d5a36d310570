// The child's half of the seal. Capabilities, the bounding set, Landlock, speculation controls
// and no_new_privs belong to a thread, so they are set here, in a constructor that runs before
// the Go runtime or V8's static platform can start a second one: every later thread inherits
// them. Only seccomp comes later (lockdown_seal), on all threads at once.
#define _GNU_SOURCE
#include "setup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif
#ifndef SECCOMP_SET_MODE_FILTER
#define SECCOMP_SET_MODE_FILTER 1
#define SECCOMP_FILTER_FLAG_TSYNC 1
#endif
enum { KEYCTL_JOIN = 1 }; // KEYCTL_JOIN_SESSION_KEYRING

// Process-wide by nature: there is one seal in a process. Written before main, read by
// lockdown_seal; NULL outside a child of the launcher.
static const struct setup *the_setup;
static int the_role, the_profile;

int lockdown_role(void) { return the_role; }
int lockdown_profile(void) { return the_profile; }

void lockdown_fail(const char *step, const char *what, int err) {
	char line[512];
	int n = snprintf(line, sizeof line, "lockdown: step %s: %s: %s\n", step, what, strerror(err));
	if (n > (int)sizeof line)
		n = sizeof line;
	ssize_t ignored = write(2, line, (size_t)n);
	(void)ignored;
	_exit(70);
}

static void check(int rc, const char *step, const char *what) {
	if (rc != 0)
		lockdown_fail(step, what, errno);
}

static void step_descriptors(const struct setup *s) {
	check((int)syscall(SYS_close_range, s->keep, ~0U, 0), "descriptors", "close_range");
}

static void step_cgroup_ns(const struct setup *s) {
	if (s->flags & FLAG_CGROUP_NS)
		check(unshare(CLONE_NEWCGROUP), "cgroup-namespace", "unshare");
}

static void step_names(const struct setup *s) {
	check(sethostname(s->hostname, strnlen(s->hostname, sizeof s->hostname)), "names", "sethostname");
	check(setdomainname(s->hostname, strnlen(s->hostname, sizeof s->hostname)), "names", "setdomainname");
	check(prctl(PR_SET_NAME, s->comm, 0, 0, 0), "names", "PR_SET_NAME");
}

static void step_keyring(const struct setup *s) {
	(void)s;
	// A kernel without keyrings has none to leave.
	if (syscall(SYS_keyctl, KEYCTL_JOIN, NULL) < 0 && errno != ENOSYS)
		lockdown_fail("keyring", "KEYCTL_JOIN_SESSION_KEYRING", errno);
}

static void step_rlimits(const struct setup *s) {
	for (int i = 0; i < s->rlimits && i < SETUP_MAX_RLIMITS; i++) {
		struct rlimit r = {s->rlimit[i].soft, s->rlimit[i].hard};
		check(setrlimit((__rlimit_resource_t)s->rlimit[i].resource, &r), "rlimits", "setrlimit");
	}
}

static void step_speculation(const struct setup *s) {
	if (!(s->flags & FLAG_SPECULATE))
		return;
	// ENODEV, ENXIO: the CPU or the boot line leaves nothing to switch. EPERM: already forced.
	static const unsigned long which[] = {PR_SPEC_STORE_BYPASS, PR_SPEC_INDIRECT_BRANCH};
	for (size_t i = 0; i < sizeof which / sizeof *which; i++)
		if (prctl(PR_SET_SPECULATION_CTRL, which[i], PR_SPEC_FORCE_DISABLE, 0, 0) != 0 && errno != ENODEV &&
		    errno != ENXIO && errno != EPERM && errno != EINVAL)
			lockdown_fail("speculation", "PR_SET_SPECULATION_CTRL", errno);
}

static void step_bounding(const struct setup *s) {
	(void)s;
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		check(prctl(PR_CAPBSET_DROP, cap, 0, 0, 0), "bounding-set", "PR_CAPBSET_DROP");
}

static void step_securebits(const struct setup *s) {
	(void)s;
	check(prctl(PR_SET_SECUREBITS,
		    SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED |
			    SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED,
		    0, 0, 0),
	      "securebits", "PR_SET_SECUREBITS");
}

static void step_capabilities(const struct setup *s) {
	(void)s;
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct none[2] = {{0}};
	check(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "capabilities", "PR_CAP_AMBIENT");
	check((int)syscall(SYS_capset, &head, none), "capabilities", "capset");
}

static void step_no_new_privs(const struct setup *s) {
	(void)s;
	check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no-new-privs", "PR_SET_NO_NEW_PRIVS");
}

static void step_mdwe(const struct setup *s) {
	if (s->flags & FLAG_MDWE)
		check(prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0), "mdwe", "PR_SET_MDWE");
}

// After everything that changes credentials: those changes reset it.
static void step_dumpable(const struct setup *s) {
	(void)s;
	check(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable", "PR_SET_DUMPABLE");
}

// The launcher set it before exec; a credential change would have cleared it. Whoever died in
// between cannot send the signal any more, but its end of the ready socket is closed then.
static void step_parent_death(const struct setup *s) {
	(void)s;
	check(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "parent-death", "PR_SET_PDEATHSIG");
	struct pollfd p = {.fd = FD_READY};
	if (poll(&p, 1, 0) < 0 || (p.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0)
		lockdown_fail("parent-death", "the launcher is gone", ECHILD);
}

static const struct {
	const char *name;
	void (*run)(const struct setup *);
} steps[] = {
	// clang-format off
	{"descriptors", step_descriptors},
	{"cgroup-namespace", step_cgroup_ns},
	{"root", lockdown_room},
	{"names", step_names},
	{"keyring", step_keyring},
	{"rlimits", step_rlimits},
	{"speculation", step_speculation},
	{"bounding-set", step_bounding},
	{"securebits", step_securebits},
	{"capabilities", step_capabilities},
	{"no-new-privs", step_no_new_privs},
	{"mdwe", step_mdwe},
	{"landlock", lockdown_landlock},
	{"dumpable", step_dumpable},
	{"parent-death", step_parent_death},
	// clang-format on
};

const char *lockdown_step_name(size_t i) { return i < sizeof steps / sizeof *steps ? steps[i].name : NULL; }

#ifdef BULKHEAD_SABOTAGE
// By this a test shows that no other build has any of it; the launcher's has the same.
__attribute__((used)) static const char marker[] = "bulkhead sabotage build: for tests only";

// A test build leaves out the steps that the file beside its binary names, one a line. The file is
// read before anything is locked; nothing of this exists in a production build.
static const char *sabotaged(void) {
	static char steps_left_out[512];
	char path[512];
	ssize_t n = readlink("/proc/self/exe", path, sizeof path - 6);
	if (n < 0)
		return "";
	strcpy(path + n, ".skip");
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return "";
	n = read(fd, steps_left_out, sizeof steps_left_out - 1);
	close(fd);
	steps_left_out[n < 0 ? 0 : n] = 0;
	return steps_left_out;
}
static const char *skipped_steps;
static int skipped(const char *name) {
	size_t len = strlen(name);
	for (const char *p = skipped_steps ? skipped_steps : ""; *p; p += strcspn(p, "\n"), p += *p == '\n')
		if (strncmp(p, name, len) == 0 && (p[len] == 0 || p[len] == '\n'))
			return 1;
	return 0;
}
#define SKIPPED(name) skipped(name)
#else
#define SKIPPED(name) 0
#endif

int lockdown_left_out(const char *name) {
	(void)name;
	return SKIPPED(name);
}

static const struct setup *take_setup(void) {
	struct stat st;
	if (fstat(FD_SETUP, &st) != 0)
		lockdown_fail("setup", "not started by bulkhead-launcher", errno);
	if (!S_ISREG(st.st_mode) || st.st_size != SETUP_SIZE)
		lockdown_fail("setup", "fd 7 is no setup", EINVAL);
	int seals = fcntl(FD_SETUP, F_GET_SEALS);
	if (seals < 0 || !(seals & F_SEAL_WRITE))
		lockdown_fail("setup", "fd 7 is no sealed memfd", EINVAL);
	const struct setup *s = mmap(NULL, SETUP_SIZE, PROT_READ, MAP_PRIVATE, FD_SETUP, 0);
	if (s == MAP_FAILED)
		lockdown_fail("setup", "mmap", errno);
	if (s->magic != SETUP_MAGIC || s->version != SETUP_VERSION || s->program_len == 0 ||
	    s->program_len > SETUP_MAX_PROGRAM)
		lockdown_fail("setup", "launcher and child are of different versions", EPROTO);
	close(FD_SETUP);
	return s;
}

// report tells the launcher how far the child is and waits for its answer. The launcher meanwhile
// looks at the child; if it does not like what it sees, the answer is SIGKILL.
static void report(char c, const char *step) {
	ssize_t n;
	do
		n = write(FD_READY, &c, 1);
	while (n < 0 && errno == EINTR);
	while (n == 1) {
		n = read(FD_READY, &c, 1);
		if (n == 1)
			return;
		if (n < 0 && errno == EINTR)
			n = 1;
	}
	lockdown_fail(step, "the launcher is gone", ECHILD);
}

__attribute__((constructor(101))) static void lockdown(int argc, char **argv) {
	static const char *const names[] = {NULL, "bulkhead-worker", "bulkhead-gateway", "bulkhead-bundler"};
	int role = 0;
	if (argc == 1)
		for (int i = 1; i <= 3; i++)
			if (strcmp(argv[0], names[i]) == 0)
				role = i;
	if (role == 0)
		return; // the command line tool, or a test binary
#ifdef BULKHEAD_SABOTAGE
	skipped_steps = sabotaged();
#endif
	const struct setup *s = take_setup();
	if (s->role != role)
		lockdown_fail("setup", "the setup is for another role", EINVAL);
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
		if (!SKIPPED(steps[i].name))
			steps[i].run(s);
	// With this thread as its mouth (ptrace(2)) the launcher now asks the kernel about what /proc
	// does not show.
	if (s->flags & FLAG_INSPECT)
		report('i', "inspection");
	the_setup = s;
	the_role = role;
	the_profile = s->profile;
}

int lockdown_seal(int *thread) {
	*thread = 0;
	if (the_setup == NULL)
		return EPERM;
	struct sock_fprog prog = {.len = the_setup->program_len, .filter = (struct sock_filter *)the_setup->program};
	int rc = 0;
	if (!SKIPPED("seccomp"))
		rc = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
				  SKIPPED("seccomp-all-threads") ? 0 : SECCOMP_FILTER_FLAG_TSYNC, &prog);
	if (rc != 0) {
		*thread = rc > 0 ? rc : 0;
		return rc > 0 ? ESRCH : errno;
	}
	munmap((void *)the_setup, SETUP_SIZE);
	the_setup = NULL;
	// The thread stands still here while the launcher verifies, so nothing is opened meanwhile.
	report('s', "verification");
	close(FD_READY);
	return 0;
}
