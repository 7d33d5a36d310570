package cron

import (
	"strings"
	"testing"
	"time"
)

// fired lists the minutes at which an expression is due, as the zone's clock shows them.
func fired(t *testing.T, text, zone string, from, to string) []string {
	t.Helper()
	e, err := Parse(text, zone)
	if err != nil {
		t.Fatal(err)
	}
	begin, err1 := time.Parse(time.RFC3339, from)
	end, err2 := time.Parse(time.RFC3339, to)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	var out []string
	for m := begin; m.Before(end); m = m.Add(time.Minute) {
		if e.Due(m) {
			out = append(out, m.In(e.loc).Format("2006-01-02 15:04 MST"))
		}
	}
	return out
}

func TestDue(t *testing.T) {
	for _, c := range []struct {
		text, zone, from, to string
		want                 []string
	}{
		{"*/15 * * * *", "", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z", []string{"2026-01-01 00:00 UTC", "2026-01-01 00:15 UTC", "2026-01-01 00:30 UTC", "2026-01-01 00:45 UTC"}},
		{"30 4 * * MON", "", "2026-01-01T00:00:00Z", "2026-01-14T00:00:00Z", []string{"2026-01-05 04:30 UTC", "2026-01-12 04:30 UTC"}},
		{"0 12 29 2 *", "", "2027-01-01T00:00:00Z", "2029-01-01T00:00:00Z", []string{"2028-02-29 12:00 UTC"}},
		{"0 0 L * *", "", "2028-02-01T00:00:00Z", "2028-04-02T00:00:00Z", []string{"2028-02-29 00:00 UTC", "2028-03-31 00:00 UTC"}},
		{"0 3 * * *", "Asia/Kolkata", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", []string{"2026-01-02 03:00 IST"}},
		// Berlin's clock goes from 02:00 to 03:00 on 29 March 2026, and from 03:00 back to 02:00 on 25 October.
		{"30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z", []string{"2026-03-28 02:30 CET", "2026-03-29 03:00 CEST", "2026-03-30 02:30 CEST"}},
		{"30 2 * * *", "Europe/Berlin", "2026-10-24T00:00:00Z", "2026-10-27T00:00:00Z", []string{"2026-10-24 02:30 CEST", "2026-10-25 02:30 CEST", "2026-10-26 02:30 CET"}},
		{"0 3 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T06:00:00Z", []string{"2026-03-29 03:00 CEST"}},
		{"0 3 * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", "2026-10-25T06:00:00Z", []string{"2026-10-25 03:00 CET"}},
		{"30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T03:00:00Z", []string{"2026-03-29 01:30 CET", "2026-03-29 03:30 CEST", "2026-03-29 04:30 CEST"}},
		{"30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", "2026-10-25T03:00:00Z", []string{"2026-10-25 02:30 CEST", "2026-10-25 02:30 CET", "2026-10-25 03:30 CET"}},
		{"15,45 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", "2026-10-04T00:00:00Z", []string{"2026-10-04 02:30 +11", "2026-10-04 02:45 +11"}}, // half an hour
		{"30 23 * * *", "America/Sao_Paulo", "2018-11-03T00:00:00Z", "2018-11-05T12:00:00Z", []string{"2018-11-02 23:30 -03", "2018-11-03 23:30 -03", "2018-11-04 23:30 -02"}},
	} {
		if got := strings.Join(fired(t, c.text, c.zone, c.from, c.to), ", "); got != strings.Join(c.want, ", ") {
			t.Errorf("%s in %s:\n got  %s\n want %s", c.text, c.zone, got, strings.Join(c.want, ", "))
		}
	}
	if n := len(fired(t, "* * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-30T00:00:00Z")); n != 24*60 {
		t.Errorf("every minute fired %d times in 24 hours", n)
	}
	if (Expr{}).Due(time.Now()) {
		t.Error("the zero value is due")
	}
}

func TestBadExpressions(t *testing.T) {
	for _, c := range [][2]string{{"", ""}, {"* * * *", ""}, {"* * * * * *", ""}, {"@daily", ""}, {"60 * * * *", ""}, {"0-999999999 * * * *", ""}, {"* 24 * * *", ""}, {"a b c d e", ""},
		{"* * * * *", "Europe/Nowhere"}, {"* * * * *", "../etc/passwd"}, {"* * * * *", "Local"}, {strings.Repeat("1,", 50) + " * * * *", ""}} {
		if e, err := Parse(c[0], c[1]); err == nil {
			t.Errorf("%q in %q is taken: %+v", c[0], c[1], e)
		}
	}
}

// Whatever is taken can be judged at any minute.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"* * * * *", "*/5 1-3 1,15 JAN MON-FRI", "0 0 L * *", "0 0 15W * 5#2", "5/0 * * * *", "-1 * * * *", "*/ * * * *", "1-  * * * *"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := Parse(s, "Europe/Berlin")
		if err != nil {
			return
		}
		for i := range 48 {
			e.Due(time.Date(2026, 10, 24, 12, 0, 0, 0, time.UTC).Add(time.Duration(i) * time.Hour))
		}
	})
}
