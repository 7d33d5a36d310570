#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__x86_64__)
long seat_int80(long nr, long a, long b, long c, long d, long e, long f) {
	(void)f; // the sixth travels in ebp, which the compiler wants for itself
	long r;
	__asm__ volatile("int $0x80" : "=a"(r) : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory", "r8", "r9", "r10", "r11");
	return r;
}
#else
long seat_int80(long nr, long a, long b, long c, long d, long e, long f) {
	(void)nr, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f;
	return -ENOSYS;
}
#endif

static void *sleeper(void *never) {
	pthread_mutex_lock(never);
	return NULL;
}

int seat_threads(int n) {
	static pthread_mutex_t never = PTHREAD_MUTEX_INITIALIZER;
	pthread_mutex_trylock(&never);
	pthread_attr_t small;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, PTHREAD_STACK_MIN > 65536 ? PTHREAD_STACK_MIN : 65536);
	int made = 0;
	for (pthread_t t; made < n && pthread_create(&t, &small, sleeper, &never) == 0; made++)
		;
	pthread_attr_destroy(&small);
	return made;
}

uintptr_t seat_code(void) { return (uintptr_t)&seat_threads; }

int seat_read_child(void) {
	pid_t child = (pid_t)syscall(SYS_fork);
	if (child < 0)
		return -1;
	if (child == 0)
		for (;;)
			pause();
	static long word = 1;
	long copy = 0;
	struct iovec here = {&copy, sizeof copy}, there = {&word, sizeof word};
	int rc = process_vm_readv(child, &here, 1, &there, 1, 0) == (ssize_t)sizeof copy ? 0 : errno;
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return rc;
}

int seat_run(const char *path, const char *name, const char *arg, char *out, int size) {
	int p[2];
	if (pipe(p) != 0)
		return -errno;
	pid_t child = (pid_t)syscall(SYS_fork);
	if (child < 0)
		return -errno;
	if (child == 0) {
		char *argv[] = {(char *)name, (char *)arg, NULL}, *envp[] = {NULL};
		dup2(p[1], 1);
		execve(path, argv, envp);
		_exit(120);
	}
	close(p[1]);
	int got = 0;
	for (ssize_t n; got < size && (n = read(p[0], out + got, (size_t)(size - got))) > 0;)
		got += (int)n;
	close(p[0]);
	int status = 0;
	waitpid(child, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 120)
		return -EACCES;
	return got;
}

uint64_t seat_capabilities(void) {
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct set[2] = {{0}};
	if (syscall(SYS_capget, &head, set) != 0)
		return ~0ULL;
	return (uint64_t)set[1].effective << 32 | set[0].effective;
}
