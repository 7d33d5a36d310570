// Command inventory is a small service of a platform, for `make run`: it counts parts, for each customer
// apart. It knows customers by the header bulkhead-tenant alone, which bulkhead sets and workers cannot;
// who else may connect is decided by the directory of its socket.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	path := flag.String("socket", "", "`PATH` of the unix socket to listen on")
	flag.Parse()
	log.SetFlags(0)
	log.SetPrefix("inventory: ")
	if err := run(*path); err != nil {
		log.Fatal(err)
	}
}

func run(path string) error {
	// `make run` starts this beside bulkhead, and it ends with it.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return fmt.Errorf("parent-death signal: %w", err)
	}
	os.Remove(path) // of one before
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	// For file systems whose mounts cannot be mapped to the gateway's user.
	if err := os.Chmod(path, 0o666); err != nil {
		return err
	}
	s := &http.Server{Handler: &inventory{stock: map[string]map[string]int{}}, ReadHeaderTimeout: 10 * time.Second}
	return s.Serve(l)
}

const maxParts = 100

type inventory struct {
	mu    sync.Mutex
	stock map[string]map[string]int // guarded by mu; by tenant and part
}

func (v *inventory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tenant := r.Header.Get("bulkhead-tenant")
	if tenant == "" {
		http.Error(w, "this service is for bulkhead's workers", http.StatusForbidden)
		return
	}
	if r.URL.Path == "/whoami" {
		fmt.Fprintf(w, "tenant %s\nrequest %s\nlimits %s\n", tenant, r.Header.Get("bulkhead-request-id"), r.Header.Get("bulkhead-limits"))
		return
	}
	part := strings.Trim(r.URL.Path, "/")
	v.mu.Lock()
	defer v.mu.Unlock()
	mine := v.stock[tenant]
	if mine == nil {
		mine = map[string]int{"bolts": 40, "nuts": 38}
		v.stock[tenant] = mine
	}
	switch {
	case r.Method == http.MethodPut && part != "" && len(part) <= 40:
		text, err := io.ReadAll(io.LimitReader(r.Body, 20))
		n, bad := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil || bad != nil || len(mine) >= maxParts {
			http.Error(w, "a number, and not too many parts", http.StatusBadRequest)
			return
		}
		mine[part] = n
		fallthrough
	case part == "":
		var lines []string
		for p, n := range mine {
			lines = append(lines, fmt.Sprintf("%s %d\n", p, n))
		}
		slices.Sort(lines)
		io.WriteString(w, strings.Join(lines, ""))
	case r.Method == http.MethodGet:
		n, ok := mine[part]
		if !ok {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintln(w, n)
	default:
		http.Error(w, "GET or PUT", http.StatusMethodNotAllowed)
	}
}
