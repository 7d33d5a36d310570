package cli

import (
	"cmp"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// measureCommand is a command that takes a measure against a tenant, with a reason that is recorded.
func measureCommand(name, short, long string, done func(tenant string, left, busy int) string) *cobra.Command {
	var f hostFlags
	var reason string
	c := &cobra.Command{
		Use: name + " TENANT --reason TEXT", Short: short, Long: long, Args: tenantArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return usagef("say why with --reason TEXT: it is kept with the event")
			}
			var answer struct{ Left, Busy int }
			raw, err := f.get(cmd.Context(), "POST", "/v1/"+name+"/"+args[0]+"?reason="+url.QueryEscape(reason), &answer)
			if err != nil {
				return err
			}
			if f.json {
				_, err := cmd.OutOrStdout().Write(raw)
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), done(args[0], answer.Left, answer.Busy))
			return nil
		},
	}
	f.add(c)
	f.addJSON(c)
	c.Flags().StringVar(&reason, "reason", "", "`TEXT` that is kept with the event")
	return c
}

func isolateCommand() *cobra.Command {
	return measureCommand("isolate", "Have everybody else leave a tenant's process",
		"Have everybody else leave the process that a tenant runs in, and keep it apart until it is released. The tenant\n"+
			"notices nothing; the others end their requests where they are.",
		func(tenant string, left, busy int) string {
			return fmt.Sprintf("%s is kept apart: %d neighbours left at once, %d when their requests have ended", tenant, left, busy)
		})
}

func releaseCommand() *cobra.Command {
	return measureCommand("release", "End what is held against a tenant",
		"End what suspicion, deaths or an operator hold against a tenant. Its next request goes among the others; what was\n"+
			"seen of it until now is forgotten.",
		func(tenant string, _, _ int) string { return tenant + " is released" })
}

func stopCommand() *cobra.Command {
	return measureCommand("stop", "End a tenant and do not start it until it is released",
		"End all that runs of a tenant, and answer its requests with the outcome killed until it is released.",
		func(tenant string, _, _ int) string { return tenant + " is stopped" })
}

func reshuffleCommand() *cobra.Command {
	var f hostFlags
	var shards []uint
	c := &cobra.Command{
		Use: "reshuffle", Short: "Spread tenants at random over fresh processes now", Args: cobra.NoArgs,
		Long: "Replace every worker process, or those named with --shard, by fresh ones over which tenants are spread at random.\n" +
			"Requests end where they are.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{}
			for _, id := range shards {
				q.Add("shard", strconv.FormatUint(uint64(id), 10))
			}
			var answer struct{ Shards, Tenants int }
			raw, err := f.get(cmd.Context(), "POST", "/v1/reshuffle?"+q.Encode(), &answer)
			if err != nil {
				return err
			}
			if f.json {
				_, err := cmd.OutOrStdout().Write(raw)
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d tenants leave %d processes\n", answer.Tenants, answer.Shards)
			return nil
		},
	}
	f.add(c)
	f.addJSON(c)
	c.Flags().UintSliceVar(&shards, "shard", nil, "`ID` of a shard (repeat); default: all")
	return c
}

type usageRow struct {
	Tenant             string
	Shard              uint32
	Running            int64
	CPUMs, BracketedMs float64
	HeapBytes          uint64
	Points             float64
	Verdict, Standing  string
}

func topCommand() *cobra.Command {
	var f hostFlags
	var rounds int
	var every time.Duration
	c := &cobra.Command{
		Use: "top", Short: "Show what tenants use, and how suspicious they are, as it changes", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 100*time.Millisecond {
				return usagef("--every %s: at least 100ms", every)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			var before []usageRow
			if _, err := f.get(ctx, "GET", "/v1/top", &before); err != nil {
				return err
			}
			at := time.Now()
			for n := 0; rounds == 0 || n < rounds; n++ {
				select {
				case <-time.After(every):
				case <-ctx.Done():
					return nil
				}
				var now []usageRow
				raw, err := f.get(ctx, "GET", "/v1/top", &now)
				switch {
				case err != nil && ctx.Err() != nil:
					return nil
				case err != nil:
					return err
				case f.json:
					if _, err := cmd.OutOrStdout().Write(raw); err != nil {
						return err
					}
					continue
				}
				took := time.Since(at)
				at = time.Now()
				if rounds != 1 {
					fmt.Fprint(cmd.OutOrStdout(), "\x1b[H\x1b[2J")
				}
				if err := table(cmd.OutOrStdout(), []string{"TENANT", "SHARD", "CPU", "TIMED", "RUNNING", "MEMORY", "POINTS", "VERDICT", "STANDING"}, topLines(before, now, took)); err != nil {
					return err
				}
				before = now
			}
			return nil
		},
	}
	f.add(c)
	f.addJSON(c)
	c.Flags().IntVar(&rounds, "rounds", 0, "stop after `N` looks; default: when interrupted")
	c.Flags().DurationVar(&every, "every", time.Second, "time between looks")
	return c
}

// topLines are the rows by CPU used between two looks.
func topLines(before, now []usageRow, took time.Duration) [][]string {
	type key struct {
		tenant string
		shard  uint32
	}
	was := map[key]usageRow{}
	for _, r := range before {
		was[key{r.Tenant, r.Shard}] = r
	}
	share := func(r usageRow) float64 {
		return max(0, r.CPUMs-was[key{r.Tenant, r.Shard}].CPUMs) / max(1, float64(took.Milliseconds())) * 100
	}
	slices.SortStableFunc(now, func(a, b usageRow) int { return cmp.Compare(share(b), share(a)) })
	var lines [][]string
	for _, r := range now {
		lines = append(lines, []string{r.Tenant, strconv.FormatUint(uint64(r.Shard), 10), fmt.Sprintf("%.1f %%", share(r)), fmt.Sprintf("%.0f ms", r.BracketedMs),
			strconv.FormatInt(r.Running, 10), megabytes(r.HeapBytes), fmt.Sprintf("%.0f", r.Points), r.Verdict, r.Standing})
	}
	return lines
}
