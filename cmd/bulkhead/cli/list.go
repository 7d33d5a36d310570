package cli

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bulkhead/policy/doctree"
)

// tenantRow, shardRow and incidentRow are what the tables show of the admin API's answers. With
// --json the host's own JSON is printed, fields unknown here included.
type tenantRow struct {
	Tenant   string
	Version  string
	Shard    *uint32
	State    string
	Requests uint64
	Outcomes map[string]uint64
	Error    string
}

type shardRow struct {
	ID         uint32
	PID        int
	Profile    string
	Sealed     bool
	Tenants    []string
	Isolates   int
	RSSBytes   *uint64
	HeapBytes  uint64
	AgeSeconds float64
	Spare      bool
}

type incidentRow struct {
	ID      string
	Time    time.Time
	Kind    string
	Shard   uint32
	Tenants []string
	Outcome string
	Signal  *string
	Syscall *string
	Detail  string
}

// listing makes a command that prints one resource as a table or as the host's JSON.
func listing[Row any](use, short, path string, header []string, cells func(Row) []string, empty string) *cobra.Command {
	var f hostFlags
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var rows []Row
			raw, err := f.get(cmd.Context(), "GET", path, &rows)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if f.json {
				_, err := out.Write(raw)
				return err
			}
			if len(rows) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), empty)
				return nil
			}
			var lines [][]string
			for _, r := range rows {
				lines = append(lines, cells(r))
			}
			return table(out, header, lines)
		},
	}
	f.add(c)
	f.addJSON(c)
	return c
}

// table prints columns. Cells are made printable: tenants and shards chose parts of them.
func table(out io.Writer, header []string, rows [][]string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(header, "\t"))
	for _, r := range rows {
		for i := range r {
			r[i] = cmp.Or(doctree.Printable(r[i]), "-")
		}
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}

func tenantsCommand() *cobra.Command {
	return listing("tenants", "List the tenants of a running host", "/v1/tenants",
		[]string{"TENANT", "STATE", "SHARD", "VERSION", "REQUESTS", "NOT OK"},
		func(t tenantRow) []string {
			shard := ""
			if t.Shard != nil {
				shard = strconv.FormatUint(uint64(*t.Shard), 10)
			}
			return []string{t.Tenant, t.State, shard, t.Version, strconv.FormatUint(t.Requests, 10), outcomes(t.Outcomes)}
		}, "no tenants")
}

// outcomes lists those that are not ok, by name.
func outcomes(m map[string]uint64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if name != "ok" && m[name] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", name, m[name]))
		}
	}
	return strings.Join(parts, ", ")
}

func shardsCommand() *cobra.Command {
	return listing("shards", "List the worker processes of a running host", "/v1/shards",
		[]string{"SHARD", "PID", "PROFILE", "SEALED", "TENANTS", "ISOLATES", "MEMORY", "HEAP", "AGE", "HOSTS"},
		func(s shardRow) []string {
			hosts := strings.Join(s.Tenants[:min(6, len(s.Tenants))], " ")
			if len(s.Tenants) > 6 {
				hosts += " …"
			}
			if s.Spare {
				hosts = "(spare)"
			}
			memory := "" // not told yet
			if s.RSSBytes != nil {
				memory = megabytes(*s.RSSBytes)
			}
			return []string{strconv.FormatUint(uint64(s.ID), 10), strconv.Itoa(s.PID), s.Profile, yesNo(s.Sealed), strconv.Itoa(len(s.Tenants)),
				strconv.Itoa(s.Isolates), memory, megabytes(s.HeapBytes), seconds(s.AgeSeconds), hosts}
		}, "no worker processes")
}

func incidentsCommand() *cobra.Command {
	return listing("incidents", "List what went wrong in a running host", "/v1/incidents",
		[]string{"TIME", "KIND", "SHARD", "SIGNAL", "SYSCALL", "OUTCOME", "TENANTS", "DETAIL"},
		func(i incidentRow) []string {
			return []string{i.Time.Local().Format(time.DateTime), i.Kind, strconv.FormatUint(uint64(i.Shard), 10), deref(i.Signal), deref(i.Syscall),
				i.Outcome, strings.Join(i.Tenants, " "), i.Detail}
		}, "no incidents")
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "NO"
}

func megabytes(n uint64) string { return strconv.FormatFloat(float64(n)/(1<<20), 'f', 1, 64) + " MiB" }

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Truncate(time.Second).String()
}
