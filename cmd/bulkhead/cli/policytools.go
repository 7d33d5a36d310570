package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bulkhead/policy"
	"bulkhead/policy/doctree"
	"bulkhead/policy/seccomp"
	"bulkhead/policy/suspicion"
)

// anyPolicy loads what an operator names: a preset or a file.
func anyPolicy(name string) (*policy.Policy, error) {
	if slices.Contains(policy.Presets(), name) {
		if _, err := os.Stat(name); err != nil {
			return policy.Preset(name)
		}
	}
	return loadPolicy(name, "standard")
}

func policySchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of policies, for editors", Args: cobra.NoArgs,
		Long: "Print the JSON Schema of policy documents. Editors with the YAML language server complete and check a\n" +
			"document that begins with:\n\n  # yaml-language-server: $schema=policy.schema.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(policy.Schema())
			return err
		},
	}
}

func policyReloadCommand() *cobra.Command {
	var f hostFlags
	c := &cobra.Command{
		Use: "reload", Short: "Have a running host read its policy document now", Args: cobra.NoArgs,
		Long: "Have a running host read its policy document now, and say what changes. A host looks at its document every\n" +
			"two seconds by itself; this shows what is wrong with it. A document that is wrong changes nothing.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var answer struct {
				Changed             bool
				Before, After, Text string
			}
			raw, err := f.get(cmd.Context(), "POST", "/v1/policy/reload", &answer)
			if err != nil {
				return err
			}
			if f.json {
				_, err := cmd.OutOrStdout().Write(raw)
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "policy %s: %s\n", answer.After, doctree.Printable(answer.Text))
			return nil
		},
	}
	f.add(c)
	f.addJSON(c)
	return c
}

// explanation is the answer of GET /v1/explain/TENANT.
type explanation struct {
	Tenant    string
	Values    []policy.Value
	Profile   string
	Shard     *uint32
	PID       int
	Beside    []string
	Standing  string
	Suspicion *suspicion.Score
}

func policyExplainCommand() *cobra.Command {
	var f hostFlags
	var config, preset string
	c := &cobra.Command{
		Use:   "explain TENANT",
		Short: "Show what a tenant gets, and why",
		Long: "Show every value in force for a tenant with the line, preset or default that set it, what its processes may\n" +
			"ask of the kernel, which process it is in and why, and what is held against it. With --config or --preset the\n" +
			"values alone, of a document or preset.",
		Args: tenantArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			var e explanation
			var raw []byte
			if config != "" || preset != "" {
				if preset == "" {
					preset = "standard"
				}
				p, err := loadPolicy(config, preset)
				if err != nil {
					return err
				}
				e = explanation{Tenant: args[0], Values: p.Explain(args[0]), Profile: p.ClassOf(p.For(args[0])).Profile.String()}
				if raw, err = json.Marshal(e); err != nil {
					return err
				}
			} else {
				var err error
				if raw, err = f.get(cmd.Context(), "GET", "/v1/explain/"+args[0], &e); err != nil {
					return fmt.Errorf("%w; or name a document with --config FILE, a preset with --preset NAME", err)
				}
			}
			if f.json {
				_, err := cmd.OutOrStdout().Write(raw)
				return err
			}
			return printExplanation(cmd.OutOrStdout(), e, config == "" && preset == "")
		},
	}
	f.add(c)
	f.addJSON(c)
	c.Flags().StringVar(&config, "config", "", "policy `FILE`")
	c.Flags().StringVar(&preset, "preset", "", "`NAME` of a preset")
	return c
}

func printExplanation(out io.Writer, e explanation, live bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, v := range e.Values {
		fmt.Fprintf(w, "%s\t%s\t%s\n", v.Key, doctree.Printable(v.Value), doctree.Printable(v.From))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	profile, err := seccomp.ParseProfile(e.Profile)
	if err != nil {
		return fmt.Errorf("the host's answer is not understood (is it of another version?): %w", err)
	}
	fmt.Fprintf(out, "\nkernel    %s\n", inWords(profile))
	if !live {
		return nil
	}
	switch {
	case e.Shard == nil:
		fmt.Fprintln(out, "process   none: it is not loaded; its next request chooses one at random among those it may be in")
	default:
		beside := "with nobody else"
		if n := len(e.Beside); n > 0 {
			beside = fmt.Sprintf("with %d other tenants (%s)", n, strings.Join(e.Beside[:min(n, 8)], ", "))
		}
		fmt.Fprintf(out, "process   shard %d, pid %d, %s: chosen at random among those of its class and cordon that had room\n", *e.Shard, e.PID, beside)
	}
	if e.Standing != "" {
		fmt.Fprintf(out, "standing  %s\n", doctree.Printable(e.Standing))
	}
	if e.Suspicion != nil {
		fmt.Fprintf(out, "suspicion %s\n", doctree.Printable(e.Suspicion.String()))
	}
	return nil
}

// inWords says what a profile leaves a process of the kernel.
func inWords(p seccomp.Profile) string {
	allowed, filtered := seccomp.Calls(seccomp.Worker(p))
	text := fmt.Sprintf("%s: %d system calls are left, %d of them with listed arguments only; it can open, connect to, execute and create nothing; ", p, allowed, filtered)
	switch p {
	case seccomp.Jitless:
		return text + "no page is ever writable and executable; no WebAssembly"
	case seccomp.JIT:
		return text + "JavaScript is compiled into memory mapped before the seal, no new executable memory; no WebAssembly"
	}
	return text + "it may make memory executable after the seal, which WebAssembly needs"
}

func policyDiffCommand() *cobra.Command {
	var asJSON bool
	var roots []string
	c := &cobra.Command{
		Use:   "diff A B",
		Short: "Show what changes, and for whom, from policy A to policy B",
		Long: "Show what changes from A to B, each a policy FILE or the name of a preset. Of tenants, those that a document names\n" +
			"are compared, and those in the --tenants directories.",
		Example: "  bulkhead policy diff standard new.yaml --tenants ./tenants",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := anyPolicy(args[0])
			if err != nil {
				return err
			}
			b, err := anyPolicy(args[1])
			if err != nil {
				return err
			}
			ids := map[string]bool{}
			for _, p := range []*policy.Policy{a, b} {
				for _, r := range p.Rules {
					if policy.ValidTenantID(r.Match) {
						ids[r.Match] = true
					}
				}
			}
			if len(roots) > 0 {
				found, err := (&serveFlags{tenants: roots}).findTenants()
				if err != nil {
					return err
				}
				for _, id := range found {
					ids[id] = true
				}
			}
			d := difference{Before: a.Hash(), After: b.Hash(), Host: a.DiffHost(b), Tenants: []policy.TenantChange{}}
			for _, id := range slices.Sorted(maps.Keys(ids)) {
				if t := a.Diff(b, id); len(t.Changes) > 0 || t.Moves {
					d.Tenants = append(d.Tenants, t)
				}
			}
			d.Compared = len(ids)
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(d)
			}
			return d.print(cmd.OutOrStdout())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringArrayVar(&roots, "tenants", nil, "`DIR` of tenant folders (repeat)")
	return c
}

// difference is the output of `policy diff`. The JSON names are a contract.
type difference struct {
	Before   string                `json:"before"`
	After    string                `json:"after"`
	Host     []policy.Change       `json:"host"`
	Tenants  []policy.TenantChange `json:"tenants"`
	Compared int                   `json:"compared"`
}

func (d difference) print(out io.Writer) error {
	if d.Before == d.After {
		_, err := fmt.Fprintf(out, "no difference (%s)\n", d.After)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	change := func(who string, c policy.Change) {
		fmt.Fprintf(w, "%s\t%s\t%s\t→ %s\n", who, c.Key, dash(doctree.Printable(c.Before)), dash(doctree.Printable(c.After)))
	}
	for _, c := range d.Host {
		change("host", c)
	}
	moving := 0
	for _, t := range d.Tenants {
		for _, c := range t.Changes {
			change(t.Tenant, c)
		}
		if t.Moves {
			moving++
			fmt.Fprintf(w, "%s\tmoves to another process\n", t.Tenant)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%d of %d tenants compared change, %d of them move\n", len(d.Tenants), d.Compared, moving)
	return err
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func policySimulateCommand() *cobra.Command {
	var events, file string
	var guilty []string
	var asJSON bool
	c := &cobra.Command{
		Use:   "simulate --events FILE --policy FILE",
		Short: "Replay recorded signals under another policy",
		Long: "Replay recorded observations under another policy: who would have been watched, isolated or stopped, when and why.\n" +
			"FILE is the event log of a host (events.jsonl in its data directory), or - for standard input. With --guilty the\n" +
			"named tenants (globs) should be isolated: whoever else would be is counted as a false alarm.",
		Example: "  bulkhead policy simulate --events events.jsonl --policy stricter.yaml --guilty 'attacker-*'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if events == "" || file == "" {
				return usagef("name the recording with --events FILE and the policy with --policy FILE (or a preset)")
			}
			p, err := anyPolicy(file)
			if err != nil {
				return err
			}
			in, name := cmd.InOrStdin(), "standard input"
			if events != "-" {
				f, err := os.Open(events)
				if err != nil {
					return err
				}
				defer f.Close()
				in, name = f, events
			}
			courses, err := suspicion.Simulate(&p.Suspicion, name, in)
			if err != nil {
				return err
			}
			if len(courses) == 0 {
				return errors.New("the recording holds no observations")
			}
			s := simulation{Policy: p.Hash(), Tenants: courses, Guilty: guilty}
			s.count()
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(s)
			}
			return s.print(cmd.OutOrStdout())
		},
	}
	c.Flags().StringVar(&events, "events", "", "recorded events, JSON lines, in `FILE`")
	c.Flags().StringVar(&file, "policy", "", "policy `FILE`, or the name of a preset")
	c.Flags().StringArrayVar(&guilty, "guilty", nil, "`TENANT` or glob that should be isolated (repeat)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// simulation is the output of `policy simulate`. The JSON names are a contract.
type simulation struct {
	Policy      string             `json:"policy"`
	Tenants     []suspicion.Course `json:"tenants"`
	Guilty      []string           `json:"guilty"`
	Isolated    int                `json:"isolated"`
	FalseAlarms int                `json:"falseAlarms"`
	Missed      int                `json:"missed"`
}

func (s *simulation) count() {
	for _, t := range s.Tenants {
		guilty := slices.ContainsFunc(s.Guilty, func(g string) bool { return policy.MatchTenant(g, t.Tenant) })
		isolated := !t.Isolated.IsZero()
		switch {
		case isolated:
			s.Isolated++
			if !guilty && len(s.Guilty) > 0 {
				s.FalseAlarms++
			}
		case guilty:
			s.Missed++
		}
	}
}

func (s *simulation) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TENANT\tVERDICT\tPOINTS\tISOLATED AFTER\tWHY")
	for _, t := range s.Tenants {
		after := "-"
		if !t.Isolated.IsZero() {
			after = fmt.Sprintf("%.2f s", t.After)
		}
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%s\t%s\n", doctree.Printable(t.Tenant), t.Verdict, t.Highest, after, doctree.Printable(t.Why))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	text := fmt.Sprintf("%d tenants, %d isolated", len(s.Tenants), s.Isolated)
	if len(s.Guilty) > 0 {
		text += fmt.Sprintf(", %d false alarms, %d of the guilty missed", s.FalseAlarms, s.Missed)
	}
	_, err := fmt.Fprintln(out, text)
	return err
}
