package cli

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/url"
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
	Scripts []string
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
	c := listing("incidents", "List what went wrong in a running host", "/v1/incidents",
		[]string{"TIME", "KIND", "SHARD", "SIGNAL", "SYSCALL", "OUTCOME", "TENANTS", "SCRIPT", "DETAIL"},
		func(i incidentRow) []string {
			return []string{i.Time.Local().Format(time.DateTime), i.Kind, strconv.FormatUint(uint64(i.Shard), 10), deref(i.Signal), deref(i.Syscall),
				i.Outcome, strings.Join(i.Tenants, " "), strings.Join(i.Scripts, " "), i.Detail}
		}, "no incidents")
	c.Long = "List what went wrong in a running host, and what was done about it, the latest first.\n\n" +
		"SCRIPT names what was kept of the code of the tenants, as it ran: files in gateway/scripts of the data\n" +
		"directory, named TENANT.HASH.json, without values of variables. `bulkhead incidents script HASH` prints one."
	c.AddCommand(scriptCommand())
	return c
}

func scriptCommand() *cobra.Command {
	var f hostFlags
	c := &cobra.Command{
		Use: "script HASH", Short: "Print the code of a tenant that an incident names, as it ran", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var s struct {
				Tenant, Version, Policy, Incident, Main string
				Time                                    time.Time
				Env                                     []string
				Modules                                 []struct {
					Name, Kind, Text string
					Bytes            []byte
				}
			}
			hash := strings.TrimSuffix(args[0], ".json") // a whole name will do
			raw, err := f.get(cmd.Context(), "GET", "/v1/scripts/"+url.PathEscape(hash[strings.LastIndexByte(hash, '.')+1:]), &s)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if f.json {
				_, err := out.Write(raw)
				return err
			}
			fmt.Fprintf(out, "// %s, version %s, under policy %s; kept %s, when it was first %s\n// main: %s; env: %s\n", doctree.Printable(s.Tenant), doctree.Printable(s.Version),
				doctree.Printable(s.Policy), s.Time.Local().Format(time.DateTime), doctree.Printable(s.Incident), doctree.Printable(s.Main), doctree.Printable(strings.Join(s.Env, " ")))
			for _, m := range s.Modules {
				fmt.Fprintf(out, "\n// ---- %s (%s)\n", doctree.Printable(m.Name), doctree.Printable(m.Kind))
				if len(m.Bytes) > 0 {
					fmt.Fprintf(out, "// %d bytes that are no text: see --json\n", len(m.Bytes))
				}
				for line := range strings.Lines(m.Text) { // hostile: nothing of it is to reach the terminal but text
					fmt.Fprintln(out, doctree.Printable(strings.TrimRight(line, "\r\n")))
				}
			}
			return nil
		},
	}
	f.add(c)
	f.addJSON(c)
	return c
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
