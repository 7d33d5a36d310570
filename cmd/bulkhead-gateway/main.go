//go:debug containermaxprocs=0
//go:debug decoratemappings=0
//go:debug updatemaxprocs=0

// Command bulkhead-gateway serves HTTP to clients and the admin API to operators. It has no
// privilege: bulkhead-launcher starts it in a room of its own, with the listeners, the order
// socket and the tenants' folders, and it asks the launcher for everything else.
//
// It is not started by hand; `bulkhead serve` starts the launcher. Its own arguments come through
// the boot data (--gateway-arg of the launcher), because argv is a constant like that of every
// sealed process.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"bulkhead/ipc"
	"bulkhead/ipc/gatewayside"
	"bulkhead/policy"
	"bulkhead/policy/limits"
	"bulkhead/policy/namespaces"
	"bulkhead/policy/suspicion"
	"bulkhead/sandboxworker/lockdown"
	"bulkhead/supervisor/cache"
	"bulkhead/supervisor/egress"
	"bulkhead/supervisor/gateway"
	"bulkhead/supervisor/launcher/orders"
	"bulkhead/supervisor/observe"
	"bulkhead/supervisor/placement"
	"bulkhead/supervisor/secrets"
	"bulkhead/supervisor/tenants"

	"golang.org/x/sys/unix"
)

// Fixed places in the gateway's room; see package policy/namespaces.
const (
	tenantsDir = "/tenants"
	dataDir    = "/data"
	socketsDir = "/sockets"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bulkhead-gateway:", err)
		os.Exit(1)
	}
}

// options are the gateway's own arguments.
type options struct {
	preset  string
	only    string
	dev     bool
	index   bool
	scheme  string
	format  string
	verbose bool
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bulkhead-gateway", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.preset, "preset", "standard", "policy `NAME` for what the document does not say")
	f.StringVar(&o.only, "only", "", "serve this `TENANT` alone")
	f.BoolVar(&o.dev, "dev", false, "show errors to whoever asks, logs on the terminal; the preset dev implies it")
	f.BoolVar(&o.index, "index", true, "a page at http://localhost that lists the workers, for clients on this machine")
	f.BoolVar(&o.verbose, "verbose", false, "log details")
	f.StringVar(&o.scheme, "scheme", "http", "of the URLs workers see: https behind a front that ends TLS")
	f.StringVar(&o.format, "log", "auto", "json, text, or auto: text on a terminal")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.scheme != "http" && o.scheme != "https":
		return o, fmt.Errorf("--scheme %q: http or https", o.scheme)
	case o.format != "auto" && o.format != "json" && o.format != "text":
		return o, fmt.Errorf("--log %q: auto, json or text", o.format)
	}
	o.dev = o.dev || o.preset == "dev"
	return o, nil
}

func run() error {
	if lockdown.Role() != namespaces.Gateway {
		return errors.New("this binary is started by bulkhead-launcher; run `bulkhead serve`")
	}
	_, err := unix.IoctlGetTermios(2, unix.TCGETS)
	terminal := err == nil
	conns, upstreams := maxConns()
	// With the descriptors as they were given: the launcher compares them with its own list before
	// it lets this process go on.
	if err := lockdown.Seal(); err != nil {
		return err
	}
	// Garbage is most of what the gateway makes, and little of what it keeps: collecting less often
	// is worth more here than the memory.
	debug.SetGCPercent(400)

	client, boot, err := orders.Inherit()
	if err != nil {
		return err
	}
	opt, err := parse(boot.Args)
	if err != nil {
		return fmt.Errorf("gateway arguments: %w", err)
	}
	stderr := observe.NewPatientWriter(os.Stderr)
	defer stderr.Flush(time.Second)
	log := logger(opt, terminal, stderr)
	listeners, err := inherited(boot)
	if err != nil {
		return err
	}
	src, err := readPolicy(context.Background(), client, boot)
	if err != nil {
		return fmt.Errorf("policy %s: %w", boot.ConfigPath, err)
	}
	pol, err := policy.ParseOver(opt.preset, boot.ConfigPath, src)
	if err != nil {
		return err
	}
	return serve(client, boot, opt, pol, src, listeners, conns, upstreams, log)
}

// maxConns is how many connections of clients and to upstreams fit the limit of descriptors beside
// what shards, bundlers and operators need: neither must be able to keep a new shard's sockets from
// being taken over, nor one the other.
func maxConns() (clients, upstreams int) {
	limit := unix.Rlimit{Cur: 4096}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 1024, 256
	}
	upstreams = int(min(max(limit.Cur/8, 64), 1024))
	others := uint64(1536 + upstreams) // four for each of 256 shards; bundlers and operators; upstreams
	return int(min(max(limit.Cur, others+256)-others, 16<<10)), upstreams
}

// logger writes for people on a terminal, else JSON for the journal.
func logger(o options, terminal bool, stderr io.Writer) *slog.Logger {
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	if o.format == "text" || o.format == "auto" && terminal {
		return observe.NewPeopleLogger(stderr, level)
	}
	return observe.NewLogger(stderr, level)
}

// inherited takes the listeners over.
func inherited(b orders.Boot) ([]net.Listener, error) {
	var out []net.Listener
	for _, l := range b.Listeners {
		f := os.NewFile(uintptr(l.FD), l.Name)
		ln, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("listener %s (%s): %w", l.Name, l.Addr, err)
		}
		out = append(out, ln)
	}
	if len(out) == 0 {
		return nil, errors.New("no listener: give bulkhead serve --listen ADDR")
	}
	return out, nil
}

// maxPolicy bounds the policy document.
const maxPolicy = 4 << 20

// policyEvery is how often the policy document is looked at for changes.
const policyEvery = 2 * time.Second

// readPolicy reads the policy document as it is now, through the launcher: what is mounted at /config is
// the file as it was at the start. Without a document it is empty.
func readPolicy(ctx context.Context, client *orders.Client, b orders.Boot) ([]byte, error) {
	if b.ConfigFile == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	f, err := client.Config(ctx)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(f, maxPolicy+1))
	if err != nil {
		return nil, err
	}
	if len(src) > maxPolicy {
		return nil, fmt.Errorf("larger than %d bytes", maxPolicy)
	}
	return src, nil
}

// serve wires the parts together and runs until it is drained.
func serve(client *orders.Client, boot orders.Boot, opt options, pol *policy.Policy, src []byte, listeners []net.Listener, conns, upstreams int, log *slog.Logger) error {
	events := eventLog(boot, log)
	defer events.Close()
	obs := observe.New(log, observe.Options{Events: events, Scripts: scripts(boot, log)})
	// net/http has remarks about upstreams, which are tenants' perhaps: not a line for each.
	stdlog.SetFlags(0)
	stdlog.SetOutput(remarks{obs})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	if most := pol.ShardMemory(); most > boot.ShardMemory {
		return fmt.Errorf("policy: a shard of %s is more than the launcher's --shard-memory, %s; lower it or start with bulkhead serve, which raises the other",
			policy.FormatBytes(most), policy.FormatBytes(boot.ShardMemory))
	}
	store, err := secrets.Open(secretsDir(boot), boot.SecretsKey)
	if err != nil {
		return err
	}
	boot.SecretsKey = nil
	var policies *gateway.Policies // set before the first request
	var server *gateway.Server     // set before the first request
	out := egress.New(egress.Options{Policy: func() *policy.Policy { return policies.Current() }, Observer: obs, Conns: upstreams,
		Reached: func(chain []string, host, path string) { server.Reached(chain, host, path) },
		Socket:  func(path string) (string, bool) { return inRoom(boot.SocketDirs, path) }})
	defer out.Close()
	var registry *tenants.Registry // set before the first load
	caches := cache.New(cache.Options{Policy: func() *policy.Policy { return policies.Current() }, Observer: obs,
		Known: func(tenant string) bool { return registry.Known(tenant) }})
	defer caches.Close()
	pool := placement.New(placement.Options{
		Spawn:     placement.FromLauncher(client, limits.DefaultWire(), pol.Shard.MaxTenants),
		Policy:    pol,
		Shard:     pol.Shard,
		Profile:   pol.Profile,
		MaxShards: boot.MaxShards,
		Memory:    boot.Memory,
		Observer:  obs,
		MayCall:   func(caller, callee string) bool { return policies.Current().MayCall(caller, callee) },
		Fetch: func(v *tenants.Version, r *gatewayside.Subrequest) {
			if r.Binding == ipc.CacheBinding {
				caches.Do(v.Tenant, r)
				return
			}
			if b := v.Binding(r.Binding); b != nil && b.HostAPI != "" {
				out.HostAPI(v.Tenant, b.HostAPI, r)
				return
			}
			if r.Binding > 0 {
				server.Service(v, r)
				return
			}
			out.Fetch(v.Tenant, r)
		},
		Secrets: func(tenant string) (env []gatewayside.EnvVar, err error) {
			list, err := store.Reveal(tenant)
			for _, s := range list {
				env = append(env, gatewayside.EnvVar{Name: s.Name, Secret: s.Value})
			}
			return env, err
		},
		OnLog:      onLog(log, opt.dev),
		OnObserved: func(o suspicion.Observation) { events.Add("observed", observed{o.Tenant, o.Gone, o.Seen}) },
		OnStarted:  func(v *tenants.Version) { registry.Started(v) },
		OnRejected: func(v *tenants.Version, f gatewayside.LoadFailure) *tenants.Version {
			return registry.Reject(v, f.Outcome, tenants.Diagnostic{File: f.File, Line: int(f.Line), Column: int(f.Column),
				Excerpt: f.Excerpt, Message: f.Message}, f.Stack)
		},
	})
	defer pool.Close()

	roots := make([]string, len(boot.TenantRoots))
	for i := range roots {
		roots[i] = filepath.Join(tenantsDir, strconv.Itoa(i))
	}
	registry, err = tenants.Open(ctx, tenants.Config{
		Roots: roots, Bundle: tenants.SealedBundler(client, 0), Policy: pol, Dev: opt.dev, Only: opt.only,
		Secrets: store.Digest, Report: report(obs, opt.dev), Concurrency: boot.MaxBundlers, BundleDir: bundleDir(boot, log),
	})
	if err != nil {
		return err
	}
	known := func() (ids []string) {
		for _, t := range registry.List() {
			ids = append(ids, t.ID)
		}
		return ids
	}
	po := gateway.PolicyOptions{
		Initial: pol, Preset: opt.preset, Path: boot.ConfigPath, ShardMemory: boot.ShardMemory, Profiles: boot.Profiles, SocketDirs: boot.SocketDirs, Tenants: known, Observer: obs,
		Apply: func(_, after *policy.Policy) {
			pool.SetPolicy(after)
			registry.SetPolicy(after)
		},
	}
	if boot.ConfigFile != "" {
		po.Read = func(ctx context.Context) ([]byte, error) { return readPolicy(ctx, client, boot) }
	}
	policies = gateway.NewPolicies(po, src)
	go policies.Watch(ctx, policyEvery)
	// One at a time: of two changes the later must not be undone by the earlier's late word.
	var changing sync.Mutex
	registry.OnChange(func(id string) {
		changing.Lock()
		defer changing.Unlock()
		now, known := registry.Current(id)
		pool.Retire(id, now)
		if !known {
			caches.Forget(id)
			obs.Metrics.Forget(id)
		}
	})
	obs.Metrics.SetGauges(func() observe.Gauges {
		g := pool.Gauges()
		g.TenantsKnown = registry.Len()
		return g
	})

	// An answer to the first request, or a reason now why there can be none.
	warm, stop := context.WithTimeout(ctx, time.Minute)
	err = pool.Warm(warm)
	stop()
	if err != nil {
		return err
	}

	server = gateway.New(gateway.Options{
		Get: registry.Get, Owner: registry.Owner, Policy: policies.Current,
		Lookup: registry.LookupContext, Tenants: registry.List, Known: registry.Known, Len: registry.Len, Pool: pool, Observer: obs, Index: opt.index, Scheme: opt.scheme,
		MaxConns: conns, OnLog: onLog(log, opt.dev),
	})
	go server.RunCrons(ctx, registry.Crons)
	go server.RunTails(ctx)
	asked := make(chan struct{})
	admin := gateway.NewAdmin(gateway.AdminOptions{
		Server: server, Boot: boot, Policy: policies.Current, Reload: policies.Reload,
		Secrets: store, Renew: registry.Renew,
		Drain: sync.OnceFunc(func() { close(asked) }),
	})
	go admin.Serve(client.AdminConns())
	failed := make(chan error, len(listeners))
	for i, l := range listeners {
		log.Info("serving", "address", boot.Listeners[i].Addr, "preset", pol.Preset, "policy", pol.Hash())
		go func() { failed <- server.Serve(l) }()
	}
	if err := client.Ready(); err != nil {
		return err
	}
	err = untilStopped(client, server.Idle, asked, failed, log)
	if err != nil {
		return err
	}
	// The launcher sets the deadline: it kills what is still there after --drain-timeout.
	if err := server.Drain(ctx); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	pool.Close()
	admin.Close()
	log.Info("stopped")
	return nil
}

// inRoom is where a host API's socket stands in this process's root.
func inRoom(dirs []string, path string) (string, bool) {
	i := slices.Index(dirs, filepath.Dir(path))
	return filepath.Join(socketsDir, strconv.Itoa(i), filepath.Base(path)), i >= 0
}

// remarks takes what libraries say to the standard logger.
type remarks struct{ obs *observe.Observer }

func (r remarks) Write(p []byte) (int, error) {
	r.obs.LogOften(slog.LevelDebug, "library", "library remark", "text", string(p[:min(len(p), 500)]))
	return len(p), nil
}

// rest gives memory back when the host has nothing to do: garbage is collected late here, and what
// the last burst needed would stay with an idle process for ever.
type rest struct {
	idle func() bool // whether no request came since it was last asked
	done bool
}

func (r *rest) beat() {
	switch idle := r.idle(); {
	case !idle:
		r.done = false
	case !r.done:
		r.done = true
		debug.FreeOSMemory()
	}
}

// untilStopped keeps the watchdog content until somebody asks for the end.
func untilStopped(client *orders.Client, idle func() bool, asked <-chan struct{}, failed <-chan error, log *slog.Logger) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	beat := time.NewTicker(2 * time.Second)
	defer beat.Stop()
	rest := rest{idle: idle}
	for {
		select {
		case <-beat.C:
			if err := client.Heartbeat(); err != nil {
				return err
			}
			rest.beat()
			continue
		case err := <-failed:
			return fmt.Errorf("listener: %w", err)
		case <-client.Drain():
		case <-asked:
		case s := <-signals:
			log.Info("signal", "signal", s.String())
		}
		log.Info("draining")
		return nil
	}
}

// observed is an observation as the event log has it, which has the time.
type observed struct {
	Tenant string             `json:"tenant"`
	Gone   bool               `json:"gone,omitempty"`
	Seen   map[string]float64 `json:"seen"`
}

// eventLog is the log of measures and incidents in the data directory, nil without one.
func eventLog(b orders.Boot, log *slog.Logger) *observe.Events {
	if b.DataPath == "" {
		return nil
	}
	failed := func(err error) {
		log.Error("the event log cannot be written; what happens from now on is in the journal alone", "data", b.DataPath, "error", err.Error())
	}
	events, err := observe.OpenEvents(dataDir, failed)
	if err != nil {
		failed(err)
		return nil
	}
	return events
}

// scripts keeps the code of tenants that incidents name, beside the event log; nil without a data directory.
func scripts(b orders.Boot, log *slog.Logger) *observe.Scripts {
	if b.DataPath == "" {
		return nil
	}
	s, err := observe.OpenScripts(filepath.Join(dataDir, observe.ScriptsDir))
	if err != nil {
		log.Error("the code of tenants that incidents name cannot be kept", "data", b.DataPath, "error", err.Error())
		return nil
	}
	return s
}

// secretsDir is where tenants' secrets are, encrypted; "" where the gateway can write nowhere.
func secretsDir(b orders.Boot) string {
	if b.DataPath == "" {
		return ""
	}
	return filepath.Join(dataDir, "secrets")
}

// bundleDir is where bundles go that do not fit in memory, or "" where the gateway can write
// nowhere: then they are made anew when they are wanted.
func bundleDir(b orders.Boot, log *slog.Logger) string {
	if b.DataPath == "" {
		return ""
	}
	dir := filepath.Join(dataDir, "bundles")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		log.Warn("bundles that do not fit in memory are made anew: the data directory is not the gateway's to write", "data", b.DataPath, "error", err.Error())
		return ""
	}
	return dir
}

// onLog shows tenants' logs on the terminal in dev.
func onLog(log *slog.Logger, dev bool) func(string, observe.Line) {
	if !dev {
		return nil
	}
	return func(tenant string, l observe.Line) {
		level := slog.LevelInfo
		if l.Level == "warn" {
			level = slog.LevelWarn
		}
		if l.Level == "error" {
			level = slog.LevelError
		}
		log.Log(context.Background(), level, tenant+": "+l.Text, "request", l.Request)
	}
}

// report says on the terminal what became of a tenant's folder: in dev all of it, elsewhere not
// more of one folder than somebody would read.
func report(obs *observe.Observer, dev bool) func(tenants.Report) {
	return func(r tenants.Report) {
		level := slog.LevelInfo
		switch r.Kind {
		case tenants.ReportFound:
			level = slog.LevelDebug
		case tenants.ReportBroken:
			level = slog.LevelError
		case tenants.ReportWarning, tenants.ReportConflict, tenants.ReportWatch:
			level = slog.LevelWarn
		}
		text := ""
		for i, d := range r.Diagnostics {
			if i > 0 {
				text += "\n"
			}
			text += d.String()
		}
		if r.Kind == tenants.ReportBroken {
			obs.Logs.Note(r.Tenant, "broken", observe.Line{Time: time.Now().UTC(), Level: "error", Text: r.Message + ": " + text})
		}
		attrs := []any{"tenant", r.Tenant}
		if text != "" {
			attrs = append(attrs, "diagnostics", text)
		}
		if r.Took > 0 {
			attrs = append(attrs, "tookMs", r.Took.Milliseconds())
		}
		if dev {
			obs.Log.Log(context.Background(), level, "tenant "+string(r.Kind)+": "+r.Message, attrs...)
			return
		}
		obs.LogOften(level, string(r.Kind)+" "+r.Tenant, "tenant "+string(r.Kind)+": "+r.Message, attrs...)
	}
}
