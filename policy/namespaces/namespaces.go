// Package namespaces says what room each kind of child lives in: which namespaces it gets, what
// stands in its otherwise empty root, and the argv, environment and resource limits it starts
// with.
//
// It is data and pure functions, imported by the launcher (which builds the rooms and later
// compares what /proc shows with these very tables) and by nothing that runs tenant code.
package namespaces

import (
	"golang.org/x/sys/unix"

	"bulkhead/policy/limits"
)

// Role is the kind of a sealed child. The numbers are part of the setup struct that the C
// constructor in sandboxworker/lockdown reads.
type Role uint8

// The roles. The launcher itself has none.
const (
	Worker  Role = 1 // hosts isolates
	Gateway Role = 2 // speaks HTTP
	Bundler Role = 3 // turns one tenant folder into a bundle
)

// String is argv[0] without its prefix.
func (r Role) String() string {
	switch r {
	case Worker:
		return "worker"
	case Gateway:
		return "gateway"
	case Bundler:
		return "bundler"
	}
	return "none"
}

// Argv is the whole, constant argument vector.
func (r Role) Argv() []string { return []string{"bulkhead-" + r.String()} }

// Env is the whole, constant environment: nothing of the operator's environment reaches a child.
func (r Role) Env() []string {
	switch r {
	case Gateway:
		// The C resolver would load NSS modules from a root that has none.
		return []string{"GODEBUG=netdns=go,containermaxprocs=0,updatemaxprocs=0", "GOTRACEBACK=single"}
	case Worker:
		// Without the two settings Go holds cgroup files open and re-reads them with pread64,
		// which the seal does not allow. The traceback of a worker that dies is of no use to the
		// operator and 125 KB long; "none" keeps the panic message only. With clobberfree the collector
		// overwrites what it frees: nothing of an evicted tenant stays on Go's heap. With asyncpreemptoff
		// no thread gets signals whose frames would keep what its registers held of a tenant.
		return []string{"GODEBUG=containermaxprocs=0,updatemaxprocs=0,clobberfree=1,asyncpreemptoff=1", "GOTRACEBACK=none"}
	default:
		return []string{"GODEBUG=containermaxprocs=0,updatemaxprocs=0", "GOTRACEBACK=none"}
	}
}

// Namespace is one kind of namespace.
type Namespace struct {
	Name string  // for people
	Proc string  // its link in /proc/PID/ns
	Flag uintptr // CLONE_NEW... (namespaces(7))
	// Late: made by the child itself after it was born inside its cgroup. Made at clone, the
	// cgroup namespace would be rooted in the launcher's cgroup and show the child's siblings.
	Late bool
	Why  string
}

var (
	user   = Namespace{Name: "user", Proc: "user", Flag: unix.CLONE_NEWUSER, Why: "capabilities, while they last, reach nothing outside; uids of the host have no name inside"}
	pid    = Namespace{Name: "pid", Proc: "pid", Flag: unix.CLONE_NEWPID, Why: "no other process can be named, so none can be signalled or traced"}
	net    = Namespace{Name: "net", Proc: "net", Flag: unix.CLONE_NEWNET, Why: "no interface is up, no abstract socket of the host exists"}
	mount  = Namespace{Name: "mount", Proc: "mnt", Flag: unix.CLONE_NEWNS, Why: "an empty read-only root"}
	ipc    = Namespace{Name: "ipc", Proc: "ipc", Flag: unix.CLONE_NEWIPC, Why: "no System V objects or message queues are shared"}
	uts    = Namespace{Name: "uts", Proc: "uts", Flag: unix.CLONE_NEWUTS, Why: "the host's name is not the tenant's business"}
	cgroup = Namespace{Name: "cgroup", Proc: "cgroup", Flag: unix.CLONE_NEWCGROUP, Late: true, Why: "its own cgroup is all it could ever see"}
)

// Of lists the namespaces of a role, in the order the verification checks them.
func Of(r Role) []Namespace {
	switch r {
	case Gateway:
		// No net namespace: it dials upstreams. Its listeners it is given; it cannot bind.
		return []Namespace{user, pid, mount, ipc, uts, cgroup}
	case Worker, Bundler:
		return []Namespace{user, pid, net, mount, ipc, uts, cgroup}
	}
	return nil
}

// Hostname and Domainname inside every UTS namespace.
const Hostname = "bulkhead"

// Source says where the content of a mount comes from.
type Source uint8

// Sources of mounts. The launcher alone turns them into directories.
const (
	TenantRoots  Source = 1 // one mount for each --tenants directory, Target + "/" + index
	TenantFolder Source = 2 // the folder of one tenant, opened beneath its root
	Config       Source = 3 // the file of --config, Target + "/" + its name
	Data         Source = 4 // the gateway's part of the data directory
	HostPath     Source = 5 // Path on the host, left out where the host has none
	Sockets      Source = 6 // one mount for each --socket-dir directory, Target + "/" + index
)

// Mount is one thing that stands in an otherwise empty root. All mounts are nosuid, nodev and
// noexec, and read-only unless Writable.
type Mount struct {
	Source   Source
	Path     string // HostPath only
	Target   string
	Writable bool
	Why      string
}

// Mounts of a role. A worker has none.
func Mounts(r Role) []Mount {
	switch r {
	case Gateway:
		return []Mount{
			{Source: TenantRoots, Target: "/tenants", Why: "folders are watched and hashed; bundlers read them separately"},
			{Source: Config, Target: "/config", Why: "the policy; the file alone, because its directory may be somebody's home"},
			{Source: Data, Target: "/data", Writable: true, Why: "state that outlives a generation"},
			{Source: Sockets, Target: "/sockets", Why: "unix sockets of host APIs; the directory, because a service that starts again makes its socket anew"},
			{Source: HostPath, Path: "/etc/resolv.conf", Target: "/etc/resolv.conf", Why: "name servers"},
			{Source: HostPath, Path: "/etc/hosts", Target: "/etc/hosts", Why: "names of upstreams"},
			{Source: HostPath, Path: "/etc/nsswitch.conf", Target: "/etc/nsswitch.conf", Why: "Go's resolver reads the order of lookups"},
			{Source: HostPath, Path: "/etc/ssl/certs", Target: "/etc/ssl/certs", Why: "TLS roots (Debian, SUSE, Alpine)"},
			{Source: HostPath, Path: "/usr/share/ca-certificates", Target: "/usr/share/ca-certificates", Why: "what the links in /etc/ssl/certs point to"},
			{Source: HostPath, Path: "/etc/pki/tls/certs", Target: "/etc/pki/tls/certs", Why: "TLS roots (Fedora)"},
			{Source: HostPath, Path: "/etc/pki/ca-trust", Target: "/etc/pki/ca-trust", Why: "what the links in /etc/pki/tls/certs point to"},
			{Source: HostPath, Path: "/usr/share/zoneinfo", Target: "/usr/share/zoneinfo", Why: "time zones of cron expressions"},
		}
	case Bundler:
		return []Mount{{Source: TenantFolder, Target: "/src", Why: "the one folder it bundles"}}
	}
	return nil
}

// Rlimit is one resource limit, soft and hard alike (getrlimit(2)).
type Rlimit struct {
	Name     string // as /proc/PID/limits spells it
	Resource int
	Value    uint64
	Why      string
}

// threadStacks is the address space that glibc gives the stacks of a shard's threads, which
// RLIMIT_DATA counts although most of it is never touched.
const threadStacks = 512 << 20

// Rlimits of a role within a shard's limits.
func Rlimits(r Role, s limits.Shard) []Rlimit {
	rl := []Rlimit{
		{"Max core file size", unix.RLIMIT_CORE, 0, "a core holds the code and secrets of every tenant in the shard"},
		{"Max msgqueue size", unix.RLIMIT_MSGQUEUE, 0, "no message queues"},
		{"Max locked memory", unix.RLIMIT_MEMLOCK, 0, "nothing is locked into memory"},
		{"Max realtime priority", unix.RLIMIT_RTPRIO, 0, "the scheduler stays fair"},
		{"Max nice priority", unix.RLIMIT_NICE, 0, "the scheduler stays fair"},
		{"Max file locks", unix.RLIMIT_LOCKS, 0, "no locks"},
	}
	switch r {
	case Gateway:
		rl = append(rl, Rlimit{"Max processes", unix.RLIMIT_NPROC, uint64(s.PIDs), "a gateway gone mad cannot take all threads of the host"})
	case Worker:
		rl = append(rl,
			Rlimit{"Max processes", unix.RLIMIT_NPROC, uint64(s.PIDs), "stands in for the cgroup's limit of threads where there is none; counted in the child's own user namespace"},
			Rlimit{"Max file size", unix.RLIMIT_FSIZE, 0, "pipes, sockets and mapped memory are not files; nothing else is written"},
			Rlimit{"Max open files", unix.RLIMIT_NOFILE, s.Files, "the fd table never grows after the seal"},
			Rlimit{"Max data size", unix.RLIMIT_DATA, s.Memory + threadStacks, "stands in for the cgroup's memory limit where there is none (RLIMIT_AS is useless: V8 reserves terabytes)"},
		)
	case Bundler:
		rl = append(rl,
			Rlimit{"Max processes", unix.RLIMIT_NPROC, uint64(s.PIDs), "as for a worker"},
			Rlimit{"Max file size", unix.RLIMIT_FSIZE, 0, "output goes to a pipe"},
			Rlimit{"Max open files", unix.RLIMIT_NOFILE, 1024, "esbuild reads many files at once"},
			Rlimit{"Max data size", unix.RLIMIT_DATA, BundlerMemory + threadStacks, "an import graph cannot eat the machine"},
			Rlimit{"Max cpu time", unix.RLIMIT_CPU, 120, "seconds; nothing honest takes so long"},
		)
	}
	return rl
}

// BundlerMemory is the memory limit of one bundler in bytes.
const BundlerMemory = 1 << 30

// GatewayPIDs is the thread limit of the gateway. An honest one has a few dozen; what waits for
// files holds a thread each.
const GatewayPIDs = 4096

// BundlerPIDs is the thread limit of one bundler.
const BundlerPIDs = 64
