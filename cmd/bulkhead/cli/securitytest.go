package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"bulkhead/policy/doctree"
	"bulkhead/policy/seccomp"
	"bulkhead/securitytests/suites"
)

// securityFlags say what of the suites to run and where the results go.
type securityFlags struct {
	list, thorough     bool
	suite, json, junit string
	modes, profiles    []string
}

func securitytestCommand() *cobra.Command {
	var f securityFlags
	c := &cobra.Command{
		Use:   "securitytest",
		Short: "Try on this host what an attacker could do from inside a worker",
		Long: "Run the security regression suites on this host. They start from the assumption that V8 fell: a\n" +
			"worker that sealed itself as every worker does makes hostile system calls, and must get nowhere.\n" +
			"Exit code 1 if any promise is broken. What could not be tried here is \"not shown\", never held.",
		Example: "  bulkhead securitytest\n  bulkhead securitytest --suite syscalls --thorough --junit report.xml",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 1 && f.json == "-":
				f.json = args[0] // --json FILE; a flag with an optional value takes its value only after "="
			case len(args) == 1:
				return usagef("unexpected argument %q", args[0])
			}
			if f.list {
				return listPromises(cmd.OutOrStdout())
			}
			return f.run(cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fl := c.Flags()
	fl.BoolVar(&f.list, "list", false, "list the promises and end")
	fl.StringVar(&f.suite, "suite", "", "only this suite `NAME`: "+strings.Join(suites.Suites(), ", "))
	fl.StringVar(&f.json, "json", "", "write the results as JSON to `FILE`, or to standard output")
	fl.Lookup("json").NoOptDefVal = "-"
	fl.StringVar(&f.junit, "junit", "", "write the results as JUnit XML to `FILE`")
	fl.BoolVar(&f.thorough, "thorough", false, "try every call number under every profile in every mode; takes twice as long")
	fl.StringArrayVar(&f.modes, "mode", []string{"root", "rootless"}, "`MODE` to try (repeat)")
	fl.StringArrayVar(&f.profiles, "profile", nil, "`PROFILE` to try (repeat); default: all")
	return c
}

func listPromises(out io.Writer) error {
	suite := ""
	for _, p := range suites.Promises() {
		if p.Suite != suite {
			suite = p.Suite
			fmt.Fprintf(out, "%s\n", suite)
		}
		fmt.Fprintf(out, "  %s\n", p.Name)
	}
	return nil
}

// options checks the flags.
func (f *securityFlags) options() (suites.Options, error) {
	o := suites.Options{Suite: f.suite, Thorough: f.thorough}
	if f.suite != "" && !slices.Contains(suites.Suites(), f.suite) {
		return o, usagef("--suite %s: unknown; one of %s", f.suite, strings.Join(suites.Suites(), ", "))
	}
	for _, m := range f.modes {
		if m != string(suites.Root) && m != string(suites.Rootless) {
			return o, usagef("--mode %s: root or rootless", m)
		}
		o.Modes = append(o.Modes, suites.Mode(m))
	}
	for _, name := range f.profiles {
		p, err := seccomp.ParseProfile(name)
		if err != nil {
			return o, usagef("--profile: %w", err)
		}
		o.Profiles = append(o.Profiles, p)
	}
	bins, err := findBinaries("")
	if err != nil {
		return o, err
	}
	seat, err := findSeat()
	if err != nil {
		return o, err
	}
	o.Binaries = suites.Binaries{Launcher: bins.launcher, Bulkhead: bins.self, Seat: seat}
	return o, nil
}

func (f *securityFlags) run(out, progress io.Writer) error {
	o, err := f.options()
	if err != nil {
		return err
	}
	begin, done := time.Now(), 0
	o.Progress = func(p suites.Promise, r suites.Result) {
		done++
		fmt.Fprintf(progress, "%4d  %5.1f s  %-9s  %s (%s, %s)\n", done, time.Since(begin).Seconds(), r.Status, r.Promise, r.Profile, r.Mode)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	results, err := suites.Run(ctx, o)
	if err != nil {
		return err
	}
	if f.junit != "" {
		text, err := suites.JUnit(results, time.Since(begin))
		if err == nil {
			err = os.WriteFile(f.junit, text, 0o644)
		}
		if err != nil {
			return fmt.Errorf("--junit: %w", err)
		}
	}
	if f.json != "" {
		if err := writeJSON(f.json, out, results); err != nil {
			return fmt.Errorf("--json: %w", err)
		}
	}
	if f.json != "-" {
		report(out, results, time.Since(begin))
	}
	if slices.ContainsFunc(results, func(r suites.Result) bool { return r.Status == suites.Broken }) ||
		!slices.ContainsFunc(results, func(r suites.Result) bool { return r.Status == suites.Held }) {
		return errReported
	}
	return nil
}

// writeJSON writes to a file, or to out for "-".
func writeJSON(file string, out io.Writer, results []suites.Result) error {
	text, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if file == "-" {
		_, err = out.Write(text)
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// report groups the results by promise.
func report(out io.Writer, results []suites.Result, took time.Duration) {
	count := map[string]int{}
	suite := ""
	for _, p := range suites.Promises() {
		var of []suites.Result
		for _, r := range results {
			if r.Promise == p.Name {
				of = append(of, r)
			}
		}
		if len(of) == 0 {
			continue
		}
		if p.Suite != suite {
			suite = p.Suite
			fmt.Fprintf(out, "\n%s\n", suite)
		}
		all := inAll(of)
		count[all]++
		fmt.Fprintf(out, "  %-9s  %s\n", all, p.Name)
		for _, g := range sameDetail(of) {
			fmt.Fprintf(out, "             %s: %s: %s\n", g.where, g.status, doctree.Printable(g.detail))
		}
		if all == inAllBroken {
			fmt.Fprintf(out, "             an attacker gains: %s\n             repair: %s\n", p.Gain, p.Repair)
		}
	}
	fmt.Fprintf(out, "\n%d promises held, %d held where they could be shown, %d not shown, %d broken, in %.0f s\n",
		count[inAllHeld], count[inAllPart], count[inAllNot], count[inAllBroken], took.Seconds())
}

// What a promise comes to over all scenes, for the report.
const (
	inAllHeld   = "held"
	inAllPart   = "in part" // held where it could be shown, and somewhere it could not
	inAllNot    = "not shown"
	inAllBroken = "BROKEN"
)

func inAll(of []suites.Result) string {
	n := map[suites.Status]int{}
	for _, r := range of {
		n[r.Status]++
	}
	switch {
	case n[suites.Broken] > 0:
		return inAllBroken
	case n[suites.Held] == 0:
		return inAllNot
	case n[suites.NotShown] > 0:
		return inAllPart
	}
	return inAllHeld
}

type group struct {
	where  string
	status suites.Status
	detail string
}

// sameDetail puts the scenes together in which the same was found.
func sameDetail(of []suites.Result) (out []group) {
	for _, r := range of {
		where := r.Mode + " " + r.Profile
		if r.Mode == "any" {
			where = "this host"
		}
		if i := slices.IndexFunc(out, func(g group) bool { return g.status == r.Status && g.detail == r.Detail }); i >= 0 {
			out[i].where += ", " + where
			continue
		}
		out = append(out, group{where, r.Status, r.Detail})
	}
	return out
}
