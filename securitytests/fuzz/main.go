// Command fuzz runs the native Go fuzzers of every decoder that reads bytes of somebody who is not
// trusted, each for a number of executions, and prints a table. `make fuzz` is this command.
//
// A crash is written by Go into testdata/fuzz of its package, where the next plain `go test` finds
// it: mend the code and commit the file.
package main

import (
	"bufio"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	execs := flag.Int("execs", 1_000_000, "executions of each decoder")
	only := flag.String("only", "", "regular expression of PACKAGE.FUZZER to run")
	keep := flag.Int("keep", 0, "copy up to this many of the interesting inputs found into each testdata/fuzz")
	parallel := flag.Int("parallel", 2, "worker processes of each fuzzer")
	list := flag.Bool("list", false, "print the decoders and end")
	flag.Parse()
	if *execs < 1 || *keep < 0 || *parallel < 1 || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "fuzz: -execs and -parallel must be at least 1, -keep at least 0, and nothing may follow the flags")
		os.Exit(2)
	}
	want, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzz: -only:", err)
		os.Exit(2)
	}
	rows := decoders()
	slices.SortStableFunc(rows, func(a, b decoder) int { return cmp.Compare(b2i(a.slow), b2i(b.slow)) })
	rows = slices.DeleteFunc(rows, func(d decoder) bool { return !want.MatchString(d.pkg + "." + d.fuzz) })
	if *list {
		for _, d := range rows {
			fmt.Printf("%-60s %-22s %s\n", d.pkg+"."+d.fuzz, d.from, d.reads)
		}
		return
	}
	var done []result
	failed := false
	for i, d := range rows {
		r := run(d, *execs, *parallel, fmt.Sprintf("[%d/%d]", i+1, len(rows)))
		if r.err == nil && *keep > 0 {
			if err := keepInteresting(d, *keep); err != nil {
				r.err = fmt.Errorf("keep: %w", err)
			}
		}
		failed = failed || r.err != nil
		done = append(done, r)
	}
	table(os.Stdout, done)
	if failed {
		os.Exit(1)
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// progress is a line of the Go fuzzer's: "fuzz: elapsed: 3s, execs: 325 (108/sec), new interesting: 1 (total: 2)".
var progress = regexp.MustCompile(`^fuzz: elapsed: \S+, execs: (\d+) .*new interesting: (\d+) \(total: (\d+)\)`)

// crash is what it says before it ends with a failing input.
var crash = regexp.MustCompile(`Failing input written to (\S+)`)

// run fuzzes one decoder. What it prints is passed on where it is more than progress.
func run(d decoder, execs, parallel int, label string) (r result) {
	r.decoder = d
	began := time.Now()
	// Nothing is minimised: where an input covers more now and then only, Go spends a minute on it and
	// then takes the worker for hung.
	cmd := exec.Command("go", "test", "./"+d.pkg, "-run=^$", "-fuzz=^"+d.fuzz+"$", "-fuzztime="+strconv.Itoa(execs)+"x",
		"-fuzzminimizetime=0x", "-parallel="+strconv.Itoa(parallel), "-timeout=0")
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	go func() { in.CloseWithError(cmp.Or(cmd.Run(), io.EOF)) }()
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		switch m := progress.FindStringSubmatch(line); {
		case m != nil:
			r.execs, _ = strconv.Atoi(m[1])
			r.interesting, _ = strconv.Atoi(m[2])
			r.corpus, _ = strconv.Atoi(m[3])
			fmt.Fprintf(os.Stderr, "%s %s.%s %d of %d, %d new, %v\n", label, d.pkg, d.fuzz, r.execs, execs, r.interesting, time.Since(began).Round(time.Second))
		case strings.HasPrefix(line, "fuzz: ") || strings.HasPrefix(line, "ok ") || line == "PASS\n" || strings.TrimSpace(line) == "":
		default:
			fmt.Fprint(os.Stderr, line)
		}
		if m := crash.FindStringSubmatch(line); m != nil {
			r.crasher = filepath.Join(d.pkg, m[1])
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				r.err = err
			}
			break
		}
	}
	r.took = time.Since(began)
	if r.err == nil && r.execs < execs {
		r.err = fmt.Errorf("ended after %d executions", r.execs)
	}
	return r
}

func table(w io.Writer, rows []result) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "DECODER\tREADS\tFROM\tEXECUTIONS\tNEW INTERESTING\tCORPUS\tTIME\tRESULT")
	for _, r := range rows {
		verdict := "ok"
		if r.err != nil {
			verdict = cmp.Or(r.crasher, r.err.Error())
		}
		fmt.Fprintf(t, "%s.%s\t%s\t%s\t%d\t%d\t%d\t%v\t%s\n", r.pkg, r.fuzz, r.reads, r.from, r.execs, r.interesting, r.corpus, r.took.Round(time.Second), verdict)
	}
	t.Flush()
}

// maxKept bounds the size of an input that is worth a place in the tree.
const maxKept = 2 << 10

// keepInteresting copies inputs of Go's fuzz cache into the tree: spread over the sizes, small ones only.
func keepInteresting(d decoder, most int) error {
	out, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		return fmt.Errorf("go env GOCACHE: %w", err)
	}
	entries, err := os.ReadDir(filepath.Join(strings.TrimSpace(string(out)), "fuzz", "bulkhead", d.pkg, d.fuzz))
	if err != nil {
		return err
	}
	type input struct {
		name string
		text []byte
	}
	var found []input
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "fuzz", "bulkhead", d.pkg, d.fuzz, e.Name()))
		if err != nil {
			return err
		}
		if len(text) <= maxKept {
			found = append(found, input{e.Name(), text})
		}
	}
	slices.SortFunc(found, func(a, b input) int {
		return cmp.Or(cmp.Compare(len(a.text), len(b.text)), cmp.Compare(a.name, b.name))
	})
	to := filepath.Join(d.pkg, "testdata", "fuzz", d.fuzz)
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for i := range min(most, len(found)) {
		x := found[i*len(found)/min(most, len(found))]
		if err := os.WriteFile(filepath.Join(to, x.name), x.text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
