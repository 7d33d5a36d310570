package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"bulkhead/policy"
	"bulkhead/policy/doctree"
)

// tenantArg checks the one argument of a command about a tenant.
func tenantArg(cmd *cobra.Command, args []string) error {
	if err := cobra.ExactArgs(1)(cmd, args); err != nil {
		return errors.New("name one tenant")
	}
	if !policy.ValidTenantID(args[0]) {
		return fmt.Errorf("%q cannot be a tenant id (lower-case letters, digits and -)", args[0])
	}
	return nil
}

func logsCommand() *cobra.Command {
	var f hostFlags
	var follow bool
	c := &cobra.Command{
		Use: "logs TENANT", Short: "Show what a tenant wrote to its console", Args: tenantArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			path := "/v1/logs/" + args[0]
			if follow {
				path += "?follow=1"
			}
			resp, err := f.request(ctx, "GET", path)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			out := bufio.NewWriter(cmd.OutOrStdout())
			defer out.Flush()
			lines := bufio.NewScanner(resp.Body)
			lines.Buffer(nil, 16<<20)
			for lines.Scan() {
				if f.json {
					fmt.Fprintf(out, "%s\n", lines.Bytes())
				} else if err := printLog(out, lines.Bytes()); err != nil {
					return err
				}
				if err := out.Flush(); err != nil {
					return err
				}
			}
			if err := lines.Err(); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("the host's log stream: %w", err)
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on as new lines come")
	f.add(c)
	f.addJSON(c)
	return c
}

// printLog prints one line of a tenant. Its text may have several lines; each is made printable.
func printLog(out *bufio.Writer, raw []byte) error {
	var l struct {
		Time      time.Time
		Level     string
		Request   string
		Text      string
		Truncated bool
	}
	if err := json.Unmarshal(raw, &l); err != nil {
		return fmt.Errorf("the host's log line is not understood (is it of another version?): %w", err)
	}
	text := strings.Split(l.Text, "\n")
	for i := range text {
		text[i] = doctree.Printable(text[i])
	}
	more := ""
	if l.Truncated {
		more = " …"
	}
	_, err := fmt.Fprintf(out, "%s %-5s %s%s\n", l.Time.Local().Format("15:04:05.000"), doctree.Printable(l.Level), strings.Join(text, "\n                   "), more)
	return err
}

func evictCommand() *cobra.Command {
	var f hostFlags
	c := &cobra.Command{
		Use: "evict TENANT", Short: "Unload a tenant; its next request loads it anew", Args: tenantArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			var rows []tenantRow
			if _, err := f.get(cmd.Context(), "GET", "/v1/tenants", &rows); err != nil {
				return err
			}
			var ids []string
			known := false
			for _, r := range rows {
				ids = append(ids, r.Tenant)
				known = known || r.Tenant == args[0]
			}
			if !known {
				return fmt.Errorf("no tenant %q%s", args[0], doctree.Suggest(args[0], ids))
			}
			var answer struct{ Evicted, Busy int }
			raw, err := f.get(cmd.Context(), "POST", "/v1/evict/"+args[0], &answer)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch {
			case f.json:
				_, err := out.Write(raw)
				return err
			case answer.Busy > 0:
				return fmt.Errorf("%s stays loaded: requests are in flight; try again", args[0])
			case answer.Evicted == 0:
				fmt.Fprintf(out, "%s was not loaded\n", args[0])
			default:
				fmt.Fprintf(out, "%s is unloaded\n", args[0])
			}
			return nil
		},
	}
	f.add(c)
	f.addJSON(c)
	return c
}
