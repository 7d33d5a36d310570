package cli

import (
	"encoding/json"
	"fmt"
	"io"
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
}

func doctorCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "doctor", Short: "Say what this host offers and which layers will hold", Args: cobra.NoArgs,
		Long: "Try the kernel features that bulkhead's seal is made of, as the user who asks, and say what\n" +
			"is missing and how to get it. Exit code 1 if bulkhead could not start here at all.",
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

func printFindings(out io.Writer, found []finding, worst string) {
	var accept []string
	for _, f := range found {
		mark := map[string]string{stateOK: "ok  ", stateDegraded: "WEAK", stateMissing: "NONE"}[f.State]
		fmt.Fprintf(out, "%s  %-22s %s\n", mark, f.Name, f.Found)
		if f.State == stateOK {
			continue
		}
		fmt.Fprintf(out, "      needed: %s\n      remedy: %s\n", f.For, f.Remedy)
		if f.Accept != "" {
			accept = append(accept, "--accept "+f.Accept)
		}
	}
	switch {
	case worst == stateOK:
		fmt.Fprintln(out, "\nEvery layer can hold here.")
	case worst == stateDegraded && len(accept) == 0:
		fmt.Fprintln(out, "\nbulkhead can serve here; what is weak stays weak.")
	case worst == stateDegraded:
		fmt.Fprintf(out, "\nbulkhead can serve here if you accept what is weak: bulkhead serve %s\n", strings.Join(accept, " "))
	default:
		fmt.Fprintln(out, "\nbulkhead cannot serve here until what is missing is there.")
	}
}
