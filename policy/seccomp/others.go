package seccomp

import "golang.org/x/sys/unix"

// fileReads is how Go reads files and directories that its root offers.
func fileReads() []Rule {
	return []Rule{
		allow("openat", "files of the own small root; Landlock and read-only mounts bound it"),
		allow("newfstatat", "stat of files in the root"),
		allow("fstat", "size of an open file"),
		allow("lseek", "seeking in files"),
		allow("pread64", "reading files at an offset"),
		allow("getdents64", "listing folders"),
		allow("readlinkat", "resolving links inside the root"),
		allow("getcwd", "Go's path functions"),
		refuse("statx", uint16(unix.ENOSYS), "Go falls back to newfstatat"),
		refuse("faccessat2", uint16(unix.ENOSYS), "Go falls back"),
	}
}

// goRuntime is what any Go program with glibc may need beyond the worker's calls.
func goRuntime() []Rule {
	rules := append(runtimeCalls(), memoryCalls(false)...)
	rules = append(rules, fileReads()...)
	return append(rules,
		allow("getrandom", "keys and seeds"),
		allow("sched_getaffinity", "counting CPUs"),
		allow("eventfd2", "Go's netpoller starts lazily"),
		allow("epoll_create1", "Go's netpoller starts lazily"),
		allow("epoll_ctl", "Go's netpoller"),
		allow("pipe2", "Go's os package"),
		allow("fcntl", "flags of descriptors: query and set", eq(1, unix.F_GETFL)),
		allow("fcntl", "non-blocking mode", eq(1, unix.F_SETFL)),
		allow("fcntl", "descriptor flags", eq(1, unix.F_GETFD)),
		allow("fcntl", "descriptor flags", eq(1, unix.F_SETFD)),
		allow("fcntl", "duplicating descriptors", eq(1, unix.F_DUPFD_CLOEXEC)),
		allow("prlimit64", "reading limits; new ones can only be lower", eq(0, 0)),
		allow("getuid", "os/user and friends"),
		allow("geteuid", "os/user and friends"),
		allow("getgid", "os/user and friends"),
		allow("getegid", "os/user and friends"),
		allow("getppid", "harmless"),
		allow("uname", "kernel version checks of the Go library"),
		allow("clock_nanosleep", "glibc's sleep"),
		allow("epoll_wait", "older Go pollers"),
		allow("ppoll", "glibc"),
		allow("poll", "glibc"),
		allow("readv", "net.Buffers"),
		allow("writev", "net.Buffers"),
		allow("membarrier", "glibc and Go"),
		allow("getrusage", "process metrics"),
		allow("sysinfo", "process metrics"),
		allow("setitimer", "Go's profiler"),
		allow("timer_create", "Go's profiler"),
		allow("timer_settime", "Go's profiler"),
		allow("timer_delete", "Go's profiler"),
	)
}

// Gateway is the table of the gateway: an HTTP server with an admin API and, later, outgoing
// connections. It cannot execute, trace, mount or make a process; it cannot listen (its
// listeners are handed over) but may dial.
func Gateway() []Rule {
	rules := goRuntime()
	rules = append(rules, socketCalls()...)
	rules = append(rules,
		allow("accept4", "connections of clients"),
		allow("connect", "upstreams, name servers"),
		allow("bind", "Go binds UDP sockets of the resolver; TCP bind is refused by Landlock"),
		allow("getsockname", "addresses for logs"),
		allow("getpeername", "addresses for logs"),
		allow("getsockopt", "result of a non-blocking connect"),
		allow("shutdown", "half-closed connections; closing the reading side would also end a listener, for all later gateways", eq(1, unix.SHUT_WR)),
		allow("recvfrom", "sockets"),
		allow("recvmsg", "the order socket brings descriptors; UDP of the resolver"),
		allow("sendto", "sockets"),
		allow("sendmsg", "UDP of the resolver"),
		allow("recvmmsg", "UDP of the resolver"),
		allow("sendmmsg", "UDP of the resolver"),
		allow("sendfile", "Go's io.Copy from a file"),
		allow("splice", "Go's io.Copy between sockets"),
		allow("copy_file_range", "Go's io.Copy between files"),
		allow("inotify_init1", "tenant folders and the policy are watched"),
		allow("inotify_add_watch", "tenant folders and the policy are watched"),
		allow("inotify_rm_watch", "tenant folders and the policy are watched"),
		allow("pwrite64", "state in /data"),
		allow("ftruncate", "state in /data"),
		allow("fsync", "state in /data"),
		allow("fdatasync", "state in /data"),
		allow("renameat", "state in /data is replaced, not rewritten"),
		allow("renameat2", "as renameat"),
		allow("unlinkat", "old state in /data"),
		allow("mkdirat", "folders in /data"),
		allow("fchmod", "modes of own files"),
		allow("fchmodat", "modes of own files"),
		allow("flock", "one writer in /data"),
		allow("memfd_create", "buffers that outgrow memory"),
	)
	// The black box of a shard is mapped here, shared and readable; so mmap of a file, not
	// executable.
	return append(rules, allow("mmap", "black boxes of shards, files", masked(2, unix.PROT_EXEC, 0), masked(3, mmapOdd, 0)))
}

// socketCalls name the sockets an HTTP server dials with, and the options it sets. The launcher's
// listeners outlive a gateway, and so would a packet filter on one; protocols that nobody here
// speaks are kernel code that nobody needs to reach.
func socketCalls() (rules []Rule) {
	const kind = 0xffffffff &^ (unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK)
	for _, family := range []uint64{unix.AF_INET, unix.AF_INET6} {
		for _, protocol := range []uint64{0, unix.IPPROTO_TCP} {
			rules = append(rules, allow("socket", "dialling upstreams", eq(0, family), masked(1, kind, unix.SOCK_STREAM), eq(2, protocol)))
		}
		for _, protocol := range []uint64{0, unix.IPPROTO_UDP} {
			rules = append(rules, allow("socket", "name servers", eq(0, family), masked(1, kind, unix.SOCK_DGRAM), eq(2, protocol)))
		}
	}
	rules = append(rules, allow("socket", "host APIs may be unix sockets", eq(0, unix.AF_UNIX), masked(1, kind, unix.SOCK_STREAM), eq(2, 0)))
	for _, o := range []struct {
		level, name uint64
		why         string
	}{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, "Go keeps connections alive"},
		{unix.SOL_SOCKET, unix.SO_LINGER, "aborting a connection"},
		{unix.SOL_SOCKET, unix.SO_BROADCAST, "Go sets it on every UDP socket"},
		{unix.SOL_SOCKET, unix.SO_SNDBUF, "buffers of a connection"},
		{unix.SOL_SOCKET, unix.SO_RCVBUF, "buffers of a connection"},
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, "Go sets it on every TCP connection"},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, "Go keeps connections alive"},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, "Go keeps connections alive"},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, "Go keeps connections alive"},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, "HTTP/2 gives up on silent peers"},
		{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, "Go sets it on every IPv6 socket"},
	} {
		rules = append(rules, allow("setsockopt", o.why, eq(1, o.level), eq(2, o.name)))
	}
	return rules
}

// Bundler is the table of a bundler: it reads the one folder of its root and writes to a pipe.
func Bundler() []Rule {
	return append(goRuntime(), refuse("ioctl", uint16(unix.ENOTTY), "esbuild asks whether standard error is a terminal", eq(1, unix.TCGETS)))
}
