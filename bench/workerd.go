package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// workerdBinary finds the peer and asks its version.
func (b *bench) workerdBinary() (bin, version string, err error) {
	bins, err := filepath.Glob(filepath.Join(b.root, "bench/peers/node_modules/@cloudflare/workerd-linux-*/bin/workerd"))
	if err != nil || len(bins) == 0 {
		return "", "", fmt.Errorf("no workerd for this machine below bench/peers/node_modules (%v): `make bench` installs it", err)
	}
	out, err := exec.Command(bins[0], "--version").Output()
	if err != nil {
		return "", "", fmt.Errorf("workerd --version: %w", err)
	}
	return bins[0], strings.TrimSpace(string(out)), nil
}

// newWorkerd makes a target in a folder of its own that is not started yet.
func (b *bench) newWorkerd() (t *target, bin string, err error) {
	bin, version, err := b.workerdBinary()
	if err != nil {
		return nil, "", err
	}
	dir, err := os.MkdirTemp("", "wdbench")
	if err != nil {
		return nil, "", err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, "", err
	}
	return &target{name: "workerd", addr: addr, host: "hello.localhost", dir: dir, version: version, public: newClient(addr)}, bin, nil
}

// startWorkerd runs the peer on a configuration with a socket named http.
func (b *bench) startWorkerd(config string) (*target, error) {
	t, bin, err := b.newWorkerd()
	if err != nil {
		return nil, err
	}
	return t, t.start(bin, []string{"serve", config, "--socket-addr", "http=" + t.addr}, func() error { return answers(t.public) })
}

func answers(c *client) error {
	a, ok := c.get("hello.localhost", "/")
	if !ok {
		return fmt.Errorf("it answers %s (%v)", a.String(), a.err)
	}
	return nil
}

// workerdMany is one workerd process with many workers, each behind a socket of its own: a unix socket, or
// a port where what is compared is asked over TCP too.
type workerdMany struct {
	*target
	clients []*client
	took    time.Duration // from exec to the first answer: it serves when all of them are loaded
}

func (b *bench) startWorkerdMany(n int, tcp bool, source func(i int) (string, error)) (*workerdMany, error) {
	t, bin, err := b.newWorkerd()
	if err != nil {
		return nil, err
	}
	m := &workerdMany{target: t}
	var ports []string
	if tcp {
		if ports, err = freeAddrs(n); err != nil {
			return nil, err
		}
	}
	var services, sockets, defs strings.Builder
	for i := range n {
		text, err := source(i)
		if err != nil {
			return nil, err
		}
		file := fmt.Sprintf("w%d.js", i)
		if err := os.WriteFile(filepath.Join(t.dir, file), []byte(text), 0o644); err != nil {
			return nil, err
		}
		c := newClient(filepath.Join(t.dir, fmt.Sprintf("s%d", i)))
		c.network = "unix"
		address := "unix:" + c.addr
		if tcp {
			address = ports[i]
			c = newClient(address)
		}
		m.clients = append(m.clients, c)
		fmt.Fprintf(&services, "    (name = \"w%d\", worker = .w%d),\n", i, i)
		fmt.Fprintf(&sockets, "    (name = \"s%d\", address = %q, http = (), service = \"w%d\"),\n", i, address, i)
		fmt.Fprintf(&defs, "const w%d :Workerd.Worker = (modules = [ (name = \"worker.js\", esModule = embed \"%s\") ], compatibilityDate = \"2026-01-01\");\n", i, file)
	}
	config := filepath.Join(t.dir, "config.capnp")
	text := "using Workerd = import \"/workerd/workerd.capnp\";\nconst config :Workerd.Config = (\n  services = [\n" + services.String() +
		"  ],\n  sockets = [\n" + sockets.String() + "  ],\n);\n" + defs.String()
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	start := time.Now()
	err = t.start(bin, []string{"serve", config}, func() error { return answers(m.clients[n-1]) })
	m.took = time.Since(start)
	return m, err
}

// loaderRouter makes a worker for each host name when it is first asked for. Each has a first line
// of its own, so that no two share a source.
const loaderRouter = `export default { async fetch(request, env) {
  const id = new URL(request.url).hostname;
  const worker = env.LOADER.get(id, async () => ({
    compatibilityDate: "2026-01-01", mainModule: "worker.js", modules: { "worker.js": "// " + id + "\n" + env.SOURCE },
  }));
  return worker.getEntrypoint().fetch(request);
} };
`

// startWorkerdLoader runs workerd with its experimental worker loader.
func (b *bench) startWorkerdLoader(source func(i int) (string, error)) (*target, error) {
	text, err := source(0)
	if err != nil {
		return nil, err
	}
	t, bin, err := b.newWorkerd()
	if err != nil {
		return nil, err
	}
	config := `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [ (name = "main", worker = .router) ],
  sockets = [ (name = "http", address = "127.0.0.1:0", http = (), service = "main") ],
);
const router :Workerd.Worker = (
  modules = [ (name = "router.js", esModule = embed "router.js") ],
  bindings = [ (name = "LOADER", workerLoader = ()), (name = "SOURCE", text = embed "source.js") ],
  compatibilityDate = "2026-01-01",
  compatibilityFlags = ["experimental"],
);
`
	for name, text := range map[string]string{"config.capnp": config, "router.js": loaderRouter, "source.js": text} {
		if err := os.WriteFile(filepath.Join(t.dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	return t, t.start(bin, []string{"serve", "--experimental", filepath.Join(t.dir, "config.capnp"), "--socket-addr", "http=" + t.addr},
		func() error { return answers(t.public) })
}
