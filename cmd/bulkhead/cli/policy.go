package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"bulkhead/policy"
)

func policyCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "policy", Short: "Check, show, explain, compare and try policies", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("say what to do: bulkhead policy check|show|explain|diff|simulate|reload|schema")
		},
	}
	c.AddCommand(policyCheckCommand(), policyShowCommand(), policyExplainCommand(), policyDiffCommand(), policySimulateCommand(), policyReloadCommand(), policySchemaCommand())
	return c
}

func policyCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check FILE", Short: "Check a policy document", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := loadPolicy(args[0], "standard")
			if err != nil {
				var joined interface{ Unwrap() []error }
				if errors.As(err, &joined) {
					// One after the other, in the order of the file: editors read this form.
					for _, e := range joined.Unwrap() {
						fmt.Fprintln(cmd.ErrOrStderr(), e)
					}
					return errReported
				}
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: good; preset %s, hash %s\n", args[0], p.Preset, p.Hash())
			return nil
		},
	}
}

func policyShowCommand() *cobra.Command {
	var f hostFlags
	var config, preset string
	c := &cobra.Command{
		Use:   "show",
		Short: "Show the effective policy",
		Long:  "Show the effective policy of a running host, or, with --config or --preset, of a document or preset.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := f.effective(cmd, config, preset)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "# hash %s\n%s", p.Hash(), p.YAML())
			return nil
		},
	}
	f.add(c)
	c.Flags().StringVar(&config, "config", "", "policy `FILE`")
	c.Flags().StringVar(&preset, "preset", "", "`NAME` of a preset")
	return c
}

func (f *hostFlags) effective(cmd *cobra.Command, config, preset string) (*policy.Policy, error) {
	if config != "" || preset != "" {
		if preset == "" {
			preset = "standard"
		}
		return loadPolicy(config, preset)
	}
	var answer struct{ Policy *policy.Policy }
	if _, err := f.get(cmd.Context(), "GET", "/v1/policy", &answer); err != nil {
		return nil, fmt.Errorf("%w; or show a document with --config FILE, a preset with --preset NAME", err)
	}
	if answer.Policy == nil {
		return nil, errors.New("the host's answer holds no policy (is it of another version?)")
	}
	return answer.Policy, nil
}
