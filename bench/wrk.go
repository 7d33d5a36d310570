package main

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// measurement is what one run of the load generator saw.
type measurement struct {
	requests  int
	perSecond float64
	p50, p99  float64 // µs
	failed    int     // answers other than 2xx and 3xx, and socket errors
}

var (
	wrkRequests = regexp.MustCompile(`(\d+) requests in`)
	wrkRate     = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkLatency  = regexp.MustCompile(`(?m)^\s+(50|99)%\s+([\d.]+)(us|ms|s)`)
	wrkStatus   = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
	wrkSocket   = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
)

// load runs wrk against t. wrk is closed-loop: a target that answers slowly is asked less often,
// so its percentiles flatter it; both targets are flattered alike.
func load(t *target, connections int, d time.Duration) (measurement, error) {
	return loadWith(t, shot{path: "/"}, connections, d)
}

// shot is the request that wrk repeats.
type shot struct {
	path   string
	script string // FILE for wrk -s, which sets what else there is; "" for a GET
}

func loadWith(t *target, s shot, connections int, d time.Duration) (measurement, error) {
	threads := min(2, connections)
	args := []string{"-t" + strconv.Itoa(threads), "-c" + strconv.Itoa(connections),
		fmt.Sprintf("-d%ds", max(1, int(d.Seconds()))), "--latency", "--timeout", "10s", "-H", "Host: " + t.host}
	if s.script != "" {
		args = append(args, "-s", s.script)
	}
	out, err := exec.Command("wrk", append(args, "http://"+t.addr+s.path)...).CombinedOutput()
	if err != nil {
		return measurement{}, fmt.Errorf("wrk against %s: %w\n%s", t.name, err, out)
	}
	text := string(out)
	var m measurement
	rate := wrkRate.FindStringSubmatch(text)
	count := wrkRequests.FindStringSubmatch(text)
	if rate == nil || count == nil {
		return m, fmt.Errorf("wrk against %s printed no rate:\n%s", t.name, out)
	}
	m.perSecond, _ = strconv.ParseFloat(rate[1], 64)
	m.requests, _ = strconv.Atoi(count[1])
	for _, l := range wrkLatency.FindAllStringSubmatch(text, -1) {
		v, _ := strconv.ParseFloat(l[2], 64)
		v *= map[string]float64{"us": 1, "ms": 1e3, "s": 1e6}[l[3]]
		if l[1] == "50" {
			m.p50 = v
		} else {
			m.p99 = v
		}
	}
	for _, re := range []*regexp.Regexp{wrkStatus, wrkSocket} {
		if f := re.FindStringSubmatch(text); f != nil {
			for _, n := range f[1:] {
				k, _ := strconv.Atoi(n)
				m.failed += k
			}
		}
	}
	return m, nil
}
