package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"bulkhead/policy"
)

// serveFlags is what serve and dev let people choose.
type serveFlags struct {
	config, admin, data, preset string
	secretsKey                  string
	listen, tenants, accept     []string
	workerDir                   string
	dev, index, verbose         bool
	maxShards                   int
	memory                      string
	drain                       time.Duration

	only string // one tenant of its root; set by dev
}

func serveCommand() *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve tenants",
		Long: "Serve the tenants found in --tenants directories. Each folder in one is a tenant: its name is\n" +
			"the tenant's id, and it answers for http://ID.localhost and the routes it names.\n" +
			"Folders are watched: a change is served from the next request on.",
		Example: "  bulkhead serve --tenants ./tenants --listen 127.0.0.1:8080 --index",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.OutOrStdout())
		},
	}
	f.common(c)
	c.Flags().StringArrayVar(&f.tenants, "tenants", nil, "`DIR` of tenant folders (repeat); default: ./tenants")
	c.Flags().BoolVar(&f.dev, "dev", false, "show tenants' errors to whoever asks, and their logs on the terminal")
	c.Flags().BoolVar(&f.index, "index", false, "a page at http://localhost that lists the tenants, for clients on this machine")
	return c
}

func devCommand() *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "dev DIR",
		Short: "Serve one worker while it is being written",
		Long: "Serve the worker in DIR under the preset dev: every change is served from the next request on,\n" +
			"its logs appear on the terminal, and its errors in the answers.",
		Example: "  bulkhead dev ./hello",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.oneFolder(args[0]); err != nil {
				return err
			}
			return f.run(cmd.OutOrStdout())
		},
	}
	f.common(c)
	return c
}

func (f *serveFlags) common(c *cobra.Command) {
	c.Flags().StringVar(&f.config, "config", "", "policy `FILE`")
	c.Flags().StringVar(&f.secretsKey, "secrets-key", "", "`FILE` with the key to tenants' secrets (bulkhead secret key FILE makes one)")
	c.Flags().StringArrayVar(&f.listen, "listen", nil, "`ADDR` to serve HTTP on (repeat); default: 127.0.0.1:8080, or systemd's sockets")
	c.Flags().StringVar(&f.admin, "admin", "", "`PATH` of the admin socket; default: admin.sock in the data directory")
	c.Flags().StringVar(&f.data, "data", "", "`DIR` for state; default: "+defaultData())
	c.Flags().StringVar(&f.preset, "preset", "", "policy `NAME` for what the document does not say: "+strings.Join(policy.Presets(), ", ")+"; default: standard, dev for `dev`")
	c.Flags().StringArrayVar(&f.accept, "accept", nil, "degradation `NAME` of this host to accept (repeat): "+strings.Join(policy.Degradations(), ", "))
	c.Flags().StringVar(&f.workerDir, "worker-dir", "", "`DIR` to take bulkhead-worker from instead of the one beside this binary")
	c.Flags().IntVar(&f.maxShards, "max-shards", 0, "`N` worker processes at most; default: the launcher's")
	c.Flags().StringVar(&f.memory, "memory", "", "`SIZE` such as 12GiB that all worker processes together should not exceed; default: three quarters of the machine's")
	c.Flags().DurationVar(&f.drain, "drain-timeout", 0, "how long a stop waits for requests in flight; default: the launcher's")
	c.Flags().BoolVar(&f.verbose, "verbose", false, "log details")
}

// defaultData is where state lives if nobody says otherwise.
func defaultData() string {
	if os.Getuid() == 0 {
		return "/var/lib/bulkhead"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "bulkhead")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "state", "bulkhead")
	}
	return filepath.Join(os.TempDir(), "bulkhead-"+strconv.Itoa(os.Getuid()))
}

// oneFolder makes DIR of `dev` the only tenant of its parent directory.
func (f *serveFlags) oneFolder(dir string) error {
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return fmt.Errorf("the worker's folder: %w", err)
	}
	st, err := os.Stat(abs)
	if err != nil {
		return fmt.Errorf("the worker's folder: %w", err)
	}
	id := filepath.Base(abs)
	switch {
	case !st.IsDir():
		return usagef("%s is a file; name the folder it is in: bulkhead dev %s", dir, filepath.Dir(dir))
	case !policy.ValidTenantID(id):
		return fmt.Errorf("the folder's name %q cannot be a tenant id (lower-case letters, digits and -, at most 63, not beginning with -); rename it", id)
	}
	f.tenants, f.only, f.dev = []string{filepath.Dir(abs)}, id, true
	if f.preset == "" {
		f.preset = "dev"
	}
	if f.data == "" {
		f.data = filepath.Join(defaultData(), "dev-"+id)
	}
	return nil
}

// run checks everything that can be checked from here, says what will happen, and becomes the
// launcher.
func (f *serveFlags) run(out io.Writer) error {
	if f.preset == "" {
		f.preset = "standard"
	}
	pol, err := loadPolicy(f.config, f.preset)
	if err != nil {
		return err
	}
	if err := f.paths(); err != nil {
		return err
	}
	found, err := f.findTenants()
	if err != nil {
		return err
	}
	bins, err := findBinaries(f.workerDir)
	if err != nil {
		return err
	}
	accept, err := f.accepted(pol)
	if err != nil {
		return err
	}
	f.describe(out, pol, found)
	args, err := f.launcherArgs(pol, bins, accept)
	if err != nil {
		return err
	}
	argv := append([]string{"bulkhead-launcher"}, args...)
	// Nothing of ours is needed any more: the process becomes the launcher, with the same pid, so
	// that a service manager and a shell's job control see one thing.
	if err := syscall.Exec(bins.launcher, argv, os.Environ()); err != nil {
		return fmt.Errorf("start %s: %w", bins.launcher, err)
	}
	return nil
}

// loadPolicy is the effective policy of a document and the preset for what it does not say.
func loadPolicy(file, preset string) (*policy.Policy, error) {
	if file == "" {
		p, err := policy.Preset(preset)
		if err != nil {
			return nil, usageError{err}
		}
		return p, nil
	}
	if !slices.Contains(policy.Presets(), preset) {
		_, err := policy.Preset(preset)
		return nil, usageError{err}
	}
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return policy.ParseOver(preset, file, src)
}

// paths makes the directories and addresses absolute and checks them.
func (f *serveFlags) paths() error {
	if f.data == "" {
		f.data = defaultData()
	}
	if len(f.tenants) == 0 {
		if _, err := os.Stat("tenants"); err != nil {
			return usagef("no tenants: name the directory that holds their folders with --tenants DIR")
		}
		f.tenants = []string{"tenants"}
	}
	for _, p := range append([]*string{&f.data}, pointers(f.tenants)...) {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return fmt.Errorf("%s: %w", *p, err)
		}
		*p = abs
	}
	if f.secretsKey != "" {
		abs, err := filepath.Abs(f.secretsKey)
		if err != nil {
			return fmt.Errorf("%s: %w", f.secretsKey, err)
		}
		f.secretsKey = abs
	}
	if f.config != "" {
		abs, err := filepath.Abs(f.config)
		if err != nil {
			return fmt.Errorf("%s: %w", f.config, err)
		}
		f.config = abs
	}
	if err := os.MkdirAll(f.data, 0o755); err != nil {
		return fmt.Errorf("the data directory: %w; name another with --data DIR", err)
	}
	if f.admin == "" {
		f.admin = filepath.Join(f.data, "admin.sock")
	}
	f.admin = strings.TrimPrefix(f.admin, "unix:")
	if !filepath.IsAbs(f.admin) {
		if _, _, err := net.SplitHostPort(f.admin); err == nil && !strings.Contains(f.admin, "/") {
			return usagef("--admin %s: only a unix socket so far; give a path", f.admin)
		}
		abs, err := filepath.Abs(f.admin)
		if err != nil {
			return fmt.Errorf("%s: %w", f.admin, err)
		}
		f.admin = abs
	}
	// unix(7): sun_path has 108 bytes, one of them the final NUL.
	if len(f.admin) > 107 {
		return usagef("the admin socket's path is too long (%d bytes, at most 107): %s; choose a shorter one with --admin PATH", len(f.admin), f.admin)
	}
	if len(f.listen) == 0 && os.Getenv("LISTEN_FDS") == "" {
		f.listen = []string{"127.0.0.1:8080"}
	}
	for _, l := range f.listen {
		if path, ok := strings.CutPrefix(l, "unix:"); ok {
			if path == "" {
				return usagef("--listen %s: the path is missing", l)
			}
			continue
		}
		_, port, err := net.SplitHostPort(l)
		if err != nil {
			return usagef("--listen %s: write IP:PORT, :PORT or unix:PATH", l)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 && port != "0" {
			return usagef("--listen %s: %q is not a port (0 to 65535)", l, port)
		}
	}
	return nil
}

func pointers(list []string) []*string {
	out := make([]*string, len(list))
	for i := range list {
		out[i] = &list[i]
	}
	return out
}

// findTenants lists the tenants as the gateway will find them, so that a wrong directory is said
// at once.
func (f *serveFlags) findTenants() ([]string, error) {
	var ids []string
	for _, dir := range f.tenants {
		list, err := os.ReadDir(dir)
		if err != nil {
			var pe *os.PathError
			if errors.As(err, &pe) && errors.Is(err, syscall.ENOTDIR) {
				return nil, usagef("--tenants %s is not a directory", dir)
			}
			return nil, fmt.Errorf("the tenants' directory: %w; name the one that holds their folders with --tenants DIR", err)
		}
		for _, d := range list {
			if d.IsDir() && policy.ValidTenantID(d.Name()) && (f.only == "" || d.Name() == f.only) {
				ids = append(ids, d.Name())
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// accepted joins what the policy and the command line accept to do without.
func (f *serveFlags) accepted(pol *policy.Policy) ([]string, error) {
	out := slices.Clone(pol.Accept)
	for _, a := range f.accept {
		if !slices.Contains(policy.Degradations(), a) {
			return nil, usagef("--accept %s: unknown; one of %s", a, strings.Join(policy.Degradations(), ", "))
		}
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out, nil
}

// describe says what is about to be done.
func (f *serveFlags) describe(out io.Writer, pol *policy.Policy, found []string) {
	fmt.Fprintf(out, "policy    preset %s, hash %s, profile %s, at most %d tenants in a process\n", pol.Preset, pol.Hash(), pol.Profile, pol.Shard.MaxTenants)
	names := strings.Join(found[:min(8, len(found))], ", ")
	if len(found) > 8 {
		names += fmt.Sprintf(", and %d more", len(found)-8)
	}
	switch {
	case len(found) == 0:
		names = "none yet; a folder put there is served at once"
	case f.only != "":
		names += " alone, reloaded on change"
	default:
		names = fmt.Sprintf("%d: %s", len(found), names)
	}
	fmt.Fprintf(out, "tenants   %s (%s)\n", names, strings.Join(f.tenants, ", "))
	if len(f.listen) == 0 {
		fmt.Fprintln(out, "listening on the sockets of the service manager")
	}
	for _, l := range f.listen {
		fmt.Fprintf(out, "listening %s%s\n", l, exampleURL(l, found, f.index))
	}
	fmt.Fprintf(out, "admin     %s\n", f.admin)
}

// exampleURL is where to point a browser, for addresses that have a port.
func exampleURL(listen string, found []string, index bool) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil || port == "0" || strings.HasPrefix(listen, "unix:") {
		return ""
	}
	if host != "" && host != "localhost" && host != "0.0.0.0" && host != "::" && !strings.HasPrefix(host, "127.") && host != "::1" {
		return ""
	}
	if index {
		return "  http://localhost:" + port + "/"
	}
	if len(found) > 0 {
		return "  http://" + found[0] + ".localhost:" + port + "/"
	}
	return ""
}

// launcherArgs is the launcher's whole command line.
func (f *serveFlags) launcherArgs(pol *policy.Policy, b binaries, accept []string) ([]string, error) {
	args := []string{"--gateway", b.gateway, "--worker", b.worker, "--bundler", b.self, "--data", f.data, "--admin", f.admin,
		"--shard-memory", strconv.FormatUint(pol.ShardMemory(), 10), "--shard-pids", strconv.Itoa(pol.Shard.PIDs),
		"--shard-cpu-weight", strconv.Itoa(pol.Shard.CPUWeight), "--shard-files", strconv.FormatUint(pol.Shard.Files, 10)}
	if pol.ForceMitigations {
		args = append(args, "--force-mitigations")
	}
	add := func(flag string, values ...string) {
		for _, v := range values {
			args = append(args, flag, v)
		}
	}
	add("--tenants", f.tenants...)
	add("--socket-dir", pol.SocketDirs()...)
	add("--listen", f.listen...)
	add("--accept", accept...)
	add("--allow-profile", profiles(pol)...)
	if f.secretsKey != "" {
		add("--secrets-key", f.secretsKey)
	}
	if f.config != "" {
		add("--config", f.config)
	}
	if f.maxShards > 0 {
		add("--max-shards", strconv.Itoa(f.maxShards))
	}
	if f.memory != "" {
		bytes, err := policy.ParseBytes(f.memory)
		if err != nil {
			return nil, fmt.Errorf("--memory: %w", err)
		}
		add("--memory", strconv.FormatUint(bytes, 10))
	}
	if f.drain > 0 {
		add("--drain-timeout", f.drain.String())
	}
	// The gateway's own options; the launcher passes them on unread.
	add("--gateway-arg", "--preset="+f.preset, "--dev="+strconv.FormatBool(f.dev), "--index="+strconv.FormatBool(f.index))
	if f.only != "" {
		add("--gateway-arg", "--only="+f.only)
	}
	if f.verbose {
		add("--gateway-arg", "--verbose")
	}
	return args, nil
}

// profiles are those the policy gives to anybody: the launcher refuses all others.
func profiles(pol *policy.Policy) []string {
	var out []string
	for _, p := range pol.Profiles() {
		out = append(out, p.String())
	}
	return out
}
