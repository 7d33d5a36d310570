package orders

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"

	"bulkhead/policy/seccomp"

	"golang.org/x/sys/unix"
)

// Boot is what the launcher tells a fresh gateway, through the sealed memfd on fd 4. The
// gateway's own arguments pass through it unread.
type Boot struct {
	Args        []string   // --gateway-arg, in order; the launcher does not look at them
	Listeners   []Listener // first is the main one
	TenantRoots []string   // host paths, for people; root i is mounted at /tenants/i
	SocketDirs  []string   // host paths as the policy has them; directory i is mounted at /sockets/i
	SecretsKey  []byte     // an age identity file, for the gateway alone; it wipes it
	ConfigFile  string     // name below /config, "" if there is none
	ConfigPath  string     // the same file's host path, for people
	DataPath    string     // host path of what is mounted at /data, "" if there is none
	Rootless    bool
	MaxShards   int
	MaxBundlers int
	ShardMemory uint64 // bytes, the most one shard may ask for
	Memory      uint64 // bytes that all shards together should not exceed
	Profiles    []seccomp.Profile
	Degraded    []string // accepted degradations that are in effect here, "name: reason"
	LauncherPID int
	Generation  int // 1 for the first gateway of this launcher
}

// Listener is a socket the gateway inherits.
type Listener struct {
	Name string // "http", or the name that systemd gave (LISTEN_FDNAMES)
	Addr string // as bound, for people
	FD   int
}

// bootFD and firstListener are fixed numbers, see package setup.
const (
	orderFD       = 3
	bootFD        = 4
	firstListener = 8
)

// maxBoot bounds the memfd; it holds what fits on a command line.
const maxBoot = 4 << 20

// Encode writes pairs of strings, each behind its length as u32: no text format is parsed on
// either side.
func (b Boot) Encode() []byte {
	// Never grown: no copy of the key is left behind.
	out := make([]byte, 0, b.size())
	put := func(key, value string) {
		for _, s := range []string{key, value} {
			out = binary.LittleEndian.AppendUint32(out, uint32(len(s)))
			out = append(out, s...)
		}
	}
	for _, a := range b.Args {
		put("arg", a)
	}
	for _, l := range b.Listeners {
		put("listener", l.Name)
		put("address", l.Addr)
	}
	for _, t := range b.TenantRoots {
		put("tenants", t)
	}
	for _, d := range b.SocketDirs {
		put("sockets", d)
	}
	for _, p := range b.Profiles {
		put("profile", p.String())
	}
	for _, d := range b.Degraded {
		put("degraded", d)
	}
	put("config-file", b.ConfigFile)
	put("config-path", b.ConfigPath)
	put("data-path", b.DataPath)
	if len(b.SecretsKey) > 0 {
		for _, p := range [][]byte{[]byte("secrets-key"), b.SecretsKey} {
			out = binary.LittleEndian.AppendUint32(out, uint32(len(p)))
			out = append(out, p...)
		}
	}
	put("rootless", strconv.FormatBool(b.Rootless))
	put("max-shards", strconv.Itoa(b.MaxShards))
	put("max-bundlers", strconv.Itoa(b.MaxBundlers))
	put("shard-memory", strconv.FormatUint(b.ShardMemory, 10))
	put("memory", strconv.FormatUint(b.Memory, 10))
	put("launcher-pid", strconv.Itoa(b.LauncherPID))
	put("generation", strconv.Itoa(b.Generation))
	return out
}

// size is at least what Encode writes: eight bytes a pair, its key, its value.
func (b Boot) size() int {
	n := 4096 + len(b.SecretsKey) + len(b.ConfigFile) + len(b.ConfigPath) + len(b.DataPath)
	for _, l := range [][]string{b.Args, b.TenantRoots, b.SocketDirs, b.Degraded} {
		for _, s := range l {
			n += 64 + len(s)
		}
	}
	for _, l := range b.Listeners {
		n += 128 + len(l.Name) + len(l.Addr)
	}
	return n + 64*len(b.Profiles)
}

// DecodeBoot is the inverse of Encode.
func DecodeBoot(in []byte) (Boot, error) {
	var b Boot
	for len(in) > 0 {
		var pair [2]string
		for i := range pair {
			if len(in) < 4 || uint64(len(in)-4) < uint64(binary.LittleEndian.Uint32(in)) {
				return Boot{}, fmt.Errorf("%w: boot data ends early", ErrMalformed)
			}
			n := binary.LittleEndian.Uint32(in)
			pair[i], in = string(in[4:4+n]), in[4+n:]
		}
		if err := b.set(pair[0], pair[1]); err != nil {
			return Boot{}, fmt.Errorf("%w: boot field %q: %w", ErrMalformed, pair[0], err)
		}
	}
	return b, nil
}

func (b *Boot) set(key, value string) (err error) {
	switch key {
	case "arg":
		b.Args = append(b.Args, value)
	case "listener":
		b.Listeners = append(b.Listeners, Listener{Name: value, FD: firstListener + len(b.Listeners)})
	case "address":
		if len(b.Listeners) == 0 {
			return fmt.Errorf("address without a listener")
		}
		b.Listeners[len(b.Listeners)-1].Addr = value
	case "tenants":
		b.TenantRoots = append(b.TenantRoots, value)
	case "sockets":
		b.SocketDirs = append(b.SocketDirs, value)
	case "secrets-key":
		b.SecretsKey = []byte(value)
	case "profile":
		var p seccomp.Profile
		p, err = seccomp.ParseProfile(value)
		b.Profiles = append(b.Profiles, p)
	case "degraded":
		b.Degraded = append(b.Degraded, value)
	case "config-file":
		b.ConfigFile = value
	case "config-path":
		b.ConfigPath = value
	case "data-path":
		b.DataPath = value
	case "rootless":
		b.Rootless, err = strconv.ParseBool(value)
	case "max-shards":
		b.MaxShards, err = strconv.Atoi(value)
	case "max-bundlers":
		b.MaxBundlers, err = strconv.Atoi(value)
	case "shard-memory":
		b.ShardMemory, err = strconv.ParseUint(value, 10, 64)
	case "memory":
		b.Memory, err = strconv.ParseUint(value, 10, 64)
	case "launcher-pid":
		b.LauncherPID, err = strconv.Atoi(value)
	case "generation":
		b.Generation, err = strconv.Atoi(value)
	default:
		return fmt.Errorf("unknown")
	}
	return err
}

// Inherit is the gateway's first act: it reads the boot data (fd 4, closed afterwards) and
// takes the order socket (fd 3). Listeners stay at Boot.Listeners[i].FD until taken with
// os.NewFile.
func Inherit() (*Client, Boot, error) {
	f := os.NewFile(bootFD, "boot")
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, Boot{}, fmt.Errorf("boot data: %w", err)
	}
	if st.Size() > maxBoot {
		return nil, Boot{}, fmt.Errorf("boot data: %w: %d bytes", ErrMalformed, st.Size())
	}
	buf := make([]byte, st.Size())
	if n, err := unix.Pread(bootFD, buf, 0); err != nil || n != len(buf) {
		return nil, Boot{}, fmt.Errorf("boot data: read %d of %d bytes: %w", n, len(buf), err)
	}
	b, err := DecodeBoot(buf)
	if err != nil {
		return nil, Boot{}, err
	}
	return NewClient(os.NewFile(orderFD, "orders")), b, nil
}
