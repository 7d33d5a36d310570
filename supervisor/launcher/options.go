package launcher

import (
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"bulkhead/policy/limits"
	"bulkhead/policy/seccomp"

	"golang.org/x/sys/unix"
)

// Options are the launcher's ceilings and doors: its argv, and nothing else, decides them. Orders
// of the gateway choose within them.
type Options struct {
	Listen       []string // ADDR of the HTTP listeners; empty with socket activation
	Admin        string   // path of the admin socket, "" for none
	Tenants      []string // directories of tenant folders
	Data         string   // directory for state; the gateway sees its subdirectory "gateway"
	SocketDirs   []string // directories of host APIs' sockets, which the gateway may dial
	SecretsKey   string   // file of the key to tenants' secrets, which the gateway gets
	Config       string   // policy file; the launcher does not read it
	Gateway      string   // binaries
	Worker       string
	Bundler      string
	GatewayArgs  []string // opaque
	MaxShards    int
	MaxBundlers  int
	ShardMemory  uint64       // bytes, at most: a shard's order says how much
	Shard        limits.Shard // of every shard, its memory apart
	Memory       uint64       // bytes that all shards together should not exceed; the gateway keeps to it
	UIDBase      uint32       // root: the gateway's uid; children get the ones after it
	Accept       []string
	Profiles     []seccomp.Profile
	DrainTimeout time.Duration
	Mitigations  bool // force the CPU's speculation mitigations in every child

	Log io.Writer // where the launcher itself writes, one line per event
}

// Defaults of the options.
const (
	// DefaultUIDBase lies above the ranges of users, systemd's dynamic users and containers, and
	// below those that file systems and old programs mistake for negative.
	DefaultUIDBase   = 1_900_000_000
	defaultMaxShards = 256
	defaultBundlers  = 4
	defaultDrain     = 30 * time.Second
)

type listFlag struct{ values *[]string }

func (l listFlag) String() string { return "" }
func (l listFlag) Set(v string) error {
	*l.values = append(*l.values, v)
	return nil
}

// ParseArgs reads argv without argv[0]. It returns flag.ErrHelp after printing the usage.
func ParseArgs(args []string, log io.Writer) (Options, error) {
	o := Options{Log: log}
	var profiles []string
	var uidBase uint64
	f := flag.NewFlagSet("bulkhead-launcher", flag.ContinueOnError)
	f.SetOutput(log)
	f.Var(listFlag{&o.Listen}, "listen", "`ADDR` to serve HTTP on: IP:PORT, :PORT, localhost:PORT or unix:PATH (repeat)")
	f.StringVar(&o.Admin, "admin", "", "`PATH` of the admin socket")
	f.Var(listFlag{&o.Tenants}, "tenants", "`DIR` of tenant folders (repeat)")
	f.StringVar(&o.Data, "data", "", "`DIR` for state")
	f.Var(listFlag{&o.SocketDirs}, "socket-dir", "`DIR` of host APIs' unix sockets, for the gateway to dial (repeat)")
	f.StringVar(&o.SecretsKey, "secrets-key", "", "`FILE` of the key to tenants' secrets, passed to the gateway unread")
	f.StringVar(&o.Config, "config", "", "policy `FILE`, shown to the gateway read-only")
	f.StringVar(&o.Gateway, "gateway", "", "`PATH` of bulkhead-gateway")
	f.StringVar(&o.Worker, "worker", "", "`PATH` of bulkhead-worker")
	f.StringVar(&o.Bundler, "bundler", "", "`PATH` of the binary that bundles (bulkhead itself)")
	f.Var(listFlag{&o.GatewayArgs}, "gateway-arg", "opaque `ARG` for the gateway (repeat)")
	f.IntVar(&o.MaxShards, "max-shards", defaultMaxShards, "`N` worker processes at most")
	f.IntVar(&o.MaxBundlers, "max-bundlers", defaultBundlers, "`N` bundlers at once at most")
	f.Uint64Var(&o.ShardMemory, "shard-memory", limits.DefaultShard().Memory, "`BYTES` of memory that one shard may have at most")
	o.Shard = limits.DefaultShard()
	f.IntVar(&o.Shard.PIDs, "shard-pids", o.Shard.PIDs, "`N` threads that one shard may have")
	f.IntVar(&o.Shard.CPUWeight, "shard-cpu-weight", o.Shard.CPUWeight, "one shard's share of the processors, `N` as cgroup v2's cpu.weight")
	f.Uint64Var(&o.Shard.Files, "shard-files", o.Shard.Files, "`N` descriptors that one shard may have")
	f.Uint64Var(&o.Memory, "memory", physicalMemory()/4*3, "`BYTES` of memory that all shards together should not exceed: idle tenants are unloaded, the least recently used first")
	f.Uint64Var(&uidBase, "uid-base", DefaultUIDBase, "as root: the gateway's `UID`; children use the ones after it")
	f.Var(listFlag{&o.Accept}, "accept", "degradation `NAME` the operator accepts (repeat): "+strings.Join(degradationNames(), ", "))
	f.Var(listFlag{&profiles}, "allow-profile", "`PROFILE` that shards may have (repeat); default: jitless, jit")
	f.DurationVar(&o.DrainTimeout, "drain-timeout", defaultDrain, "how long SIGTERM waits for requests in flight")
	f.BoolVar(&o.Mitigations, "force-mitigations", false, "force the CPU's speculation mitigations in every child")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if uidBase == 0 || uidBase > 1<<31 {
		return o, fmt.Errorf("--uid-base %d: must be above 0 and below 2^31", uidBase)
	}
	o.UIDBase = uint32(uidBase)
	if len(profiles) == 0 {
		profiles = []string{seccomp.Jitless.String(), seccomp.JIT.String()}
	}
	for _, name := range profiles {
		p, err := seccomp.ParseProfile(name)
		if err != nil {
			return o, fmt.Errorf("--allow-profile: %w", err)
		}
		if !slices.Contains(o.Profiles, p) {
			o.Profiles = append(o.Profiles, p)
		}
	}
	return o, o.check()
}

// check refuses what the launcher could only trip over later.
func (o *Options) check() error {
	for name, path := range map[string]string{"--gateway": o.Gateway, "--worker": o.Worker, "--bundler": o.Bundler} {
		if path == "" {
			return fmt.Errorf("%s is missing: the path of that binary", name)
		}
	}
	for _, dir := range o.Tenants {
		if dir == "" {
			return fmt.Errorf("--tenants: empty directory name")
		}
	}
	for i, dir := range o.Tenants {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return fmt.Errorf("--tenants %q: %w", dir, err)
		}
		o.Tenants[i] = abs
	}
	for _, dir := range o.SocketDirs {
		if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir || dir == "/" {
			return fmt.Errorf("--socket-dir %q: an absolute path, and not the root", dir)
		}
	}
	if len(o.SocketDirs) > maxSocketDirs {
		return fmt.Errorf("--socket-dir: %d directories, at most %d", len(o.SocketDirs), maxSocketDirs)
	}
	if len(o.Tenants) > maxRoots {
		return fmt.Errorf("--tenants: %d directories, at most %d", len(o.Tenants), maxRoots)
	}
	for _, name := range o.Accept {
		if !slices.Contains(degradationNames(), name) {
			return fmt.Errorf("--accept %q: unknown; one of %s", name, strings.Join(degradationNames(), ", "))
		}
	}
	if o.MaxShards < 1 || o.MaxShards > 4096 || o.MaxBundlers < 1 || o.MaxBundlers > 256 {
		return fmt.Errorf("--max-shards is 1 to 4096, --max-bundlers 1 to 256")
	}
	if o.Memory < minMemory {
		return fmt.Errorf("--memory %s: at least %d", strconv.FormatUint(o.Memory, 10), uint64(minMemory))
	}
	if o.ShardMemory < minShardMemory {
		return fmt.Errorf("--shard-memory %s: at least %d", strconv.FormatUint(o.ShardMemory, 10), uint64(minShardMemory))
	}
	if s := o.Shard; s.PIDs < 16 || s.PIDs > 4096 || s.CPUWeight < 1 || s.CPUWeight > 10_000 || s.Files < 16 || s.Files > 4096 {
		return fmt.Errorf("--shard-pids and --shard-files are 16 to 4096, --shard-cpu-weight 1 to 10000")
	}
	return nil
}

const (
	// maxRoots leaves room in the gateway's mount table for the rest of its root.
	maxRoots = 16
	// maxSocketDirs is policy.MaxSocketDirs.
	maxSocketDirs = 4
	// minShardMemory is what V8 and Go take before the first tenant, with some air.
	minShardMemory = 64 << 20
	// minMemory is room for a few shards.
	minMemory = 256 << 20
)

// physicalMemory is what the machine has, bytes (sysinfo(2)); the least that would do where the
// kernel does not say.
func physicalMemory() uint64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 4 * minMemory / 3
	}
	return max(info.Totalram*uint64(info.Unit), 2*minMemory)
}
