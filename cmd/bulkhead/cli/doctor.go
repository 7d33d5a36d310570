package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// The findings' states.
const (
	stateOK       = "ok"
	stateDegraded = "degraded" // can be accepted by name; the layer is weaker or absent
	stateMissing  = "missing"  // bulkhead does not start without it
)

// finding is one thing the doctor looked at. The JSON names are a contract.
type finding struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Found  string `json:"found"`            // what this host said
	For    string `json:"for"`              // what it is needed for
	Accept string `json:"accept,omitempty"` // degradation to accept, if it may be done without
	Remedy string `json:"remedy,omitempty"`
	// Weight is the part's share in the score; Exposure is what of it is lost here, 0 to 1.
	Weight   int     `json:"weight"`
	Exposure float64 `json:"exposure"`
}

// The shares of the parts in the score. What keeps an attacker from other tenants weighs most; what
// only tells the operator of it weighs nothing.
var weights = map[string]int{
	"kernel": 10, "namespaces": 20, "seccomp": 20, "uids": 10, "cgroup": 8, "landlock": 8, "mdwe": 3, "inspection": 5,
	"speculation": 5, "smt": 4, "page merging": 2, "swap": 2, "core dumps": 2, "binaries": 5,
}

// score is the exposure of the host from 0.0 (nothing of the seal is missing) to 10.0, in the manner of
// systemd-analyze security, and a word for it.
func score(found []finding) (float64, string) {
	var lost, all float64
	for _, f := range found {
		lost += float64(f.Weight) * f.Exposure
		all += float64(f.Weight)
	}
	exposure := 10 * lost / max(all, 1)
	switch {
	case slices.ContainsFunc(found, func(f finding) bool { return f.State == stateMissing }):
		return exposure, "UNABLE"
	case exposure < 1:
		return exposure, "SAFE"
	case exposure < 3:
		return exposure, "OK"
	case exposure < 6:
		return exposure, "MEDIUM"
	}
	return exposure, "EXPOSED"
}

func doctorCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "doctor", Short: "Say what this host offers and which layers will hold", Args: cobra.NoArgs,
		Long: "Try the kernel features that bulkhead's seal is made of, as the user who asks, and say what\n" +
			"is missing and how to get it. The score is an exposure: 0.0 where every layer holds, 10.0 where\n" +
			"none does. Exit code 1 if bulkhead could not start here at all. `bulkhead securitytest` is the\n" +
			"long form: it attacks.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			found := examine()
			worst := stateOK
			for _, f := range found {
				if f.State == stateMissing || worst == stateOK {
					worst = f.State
				}
			}
			if asJSON {
				e := json.NewEncoder(out)
				e.SetIndent("", "  ")
				if err := e.Encode(found); err != nil {
					return err
				}
			} else {
				printFindings(out, found, worst)
			}
			if worst == stateMissing {
				return errReported
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// points is what a part adds to the score.
func (f finding) points(found []finding) float64 {
	alone := f
	rest := []finding{alone}
	for _, o := range found {
		if o.Name != f.Name {
			o.Exposure = 0
			rest = append(rest, o)
		}
	}
	p, _ := score(rest)
	return p
}

func printFindings(out io.Writer, found []finding, worst string) {
	var accept []string
	for _, f := range found {
		mark := map[string]string{stateOK: "ok  ", stateDegraded: "WEAK", stateMissing: "NONE"}[f.State]
		exposure := "   "
		if f.Weight > 0 {
			exposure = fmt.Sprintf("%.1f", f.points(found))
		}
		fmt.Fprintf(out, "%s  %s  %-18s %s\n", mark, exposure, f.Name, f.Found)
		if f.State == stateOK {
			continue
		}
		fmt.Fprintf(out, "      needed: %s\n      remedy: %s\n", f.For, f.Remedy)
		if f.Accept != "" {
			accept = append(accept, "--accept "+f.Accept)
		}
	}
	total, word := score(found)
	fmt.Fprintf(out, "\nOverall exposure of workers on this host: %.1f %s\n", total, word)
	switch {
	case worst == stateOK:
		fmt.Fprintln(out, "Every layer can hold here.")
	case worst == stateDegraded && len(accept) == 0:
		fmt.Fprintln(out, "bulkhead can serve here; what is weak stays weak.")
	case worst == stateDegraded:
		fmt.Fprintf(out, "bulkhead can serve here if you accept what is weak: bulkhead serve %s\n", strings.Join(accept, " "))
	default:
		fmt.Fprintln(out, "bulkhead cannot serve here until what is missing is there.")
	}
}
