// Package cli is the command line of bulkhead.
//
// Duty: check what people typed, say clearly what will happen or went wrong, and do it: by
// becoming the launcher (serve, dev), by asking a running host through its admin socket (tenants,
// shards, incidents, logs, evict), or by itself (doctor, securitytest,
// policy, version).
//
// Trust: it runs with the rights of whoever types. What a running host answers may hold text
// of tenants and shards, so it is made printable before a terminal sees it.
//
// Exit codes: 0 done, 1 failed, 2 bad usage. Errors name the thing and the remedy.
package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// The exit codes.
const (
	ExitDone   = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// usageError is the operator's mistake in what was typed.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// errReported ends a command that has already said what is wrong.
var errReported = errors.New("reported")

// Main runs one command and returns the exit code.
func Main(version string, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "bulkhead",
		Short: "A hardened host for the JavaScript of many mutually distrusting tenants",
		Long: "bulkhead runs the JavaScript of many mutually distrusting tenants on one machine:\n" +
			"each in its own V8 isolate, packed into a few sealed processes.",
		Version:           version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(stderr)
			_ = cmd.Help() // writing to stderr: nowhere to report a failure
			return usageError{errReported}
		},
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetVersionTemplate("bulkhead {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w; see `%s --help`", err, cmd.CommandPath())
	})
	root.AddCommand(serveCommand(), devCommand(), doctorCommand(), securitytestCommand(), tenantsCommand(), shardsCommand(), incidentsCommand(),
		logsCommand(), topCommand(), secretCommand(), evictCommand(), isolateCommand(), releaseCommand(), stopCommand(), reshuffleCommand(), policyCommand(), versionCommand(version))
	for _, c := range root.Commands() {
		strict(c)
	}
	err := root.Execute()
	if err == nil {
		return ExitDone
	}
	if !errors.Is(err, errReported) {
		fmt.Fprintf(stderr, "bulkhead: %v\n", err)
	}
	var usage usageError
	if errors.As(err, &usage) || strings.HasPrefix(err.Error(), "unknown command") {
		return ExitUsage
	}
	return ExitFailed
}

// strict makes wrong arguments of a command, and of those below it, a usage error.
func strict(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usagef("%w; see `%s --help`", err, cmd.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		strict(sub)
	}
}

func versionCommand(version string) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintf(cmd.OutOrStdout(), "bulkhead %s\n", version)
			return nil
		},
	}
}
