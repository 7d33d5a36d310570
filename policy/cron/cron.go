// Package cron says at which minutes a cron expression is due, in a time zone.
//
// Expressions have the five usual fields; github.com/adhocore/gronx knows what they mean. Here is what
// it leaves open, the two days of the year on which a zone's clock is put forward or back. The rules
// are those of Vixie's cron: an expression that names hours is due once for each time it names. If the
// clock skips that time it is due right after the skip; if the clock shows it twice, the first time only. One
// that does not name hours (its hour field begins with *) follows the time that really passes.
//
// Data and decisions only: nothing here waits or runs.
package cron

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // zones are known where there are no files

	"github.com/adhocore/gronx"
)

// MaxBytes bounds the text of an expression.
const MaxBytes = 100

// Expr is an expression in a zone. The zero value is due never.
type Expr struct {
	Text  string // fields separated by one space
	Zone  string // IANA name; "UTC" by default
	loc   *time.Location
	hours bool // it names hours
}

// Parse reads an expression of five fields. zone is an IANA name; "" is UTC.
func Parse(text, zone string) (Expr, error) {
	fields := strings.Fields(text)
	if len(text) > MaxBytes || len(fields) != 5 {
		return Expr{}, fmt.Errorf("must have five fields: minute, hour, day of the month, month, day of the week, such as 30 4 * * MON")
	}
	if zone == "" {
		zone = "UTC"
	}
	loc, err := time.LoadLocation(zone)
	if err != nil || zone == "Local" {
		return Expr{}, fmt.Errorf("zone must be an IANA name, such as Europe/Berlin")
	}
	e := Expr{Text: strings.Join(fields, " "), Zone: zone, loc: loc, hours: !strings.HasPrefix(fields[1], "*")}
	if !small(e.Text) || !valid(e.Text) {
		return Expr{}, fmt.Errorf("is not a cron expression; five fields, such as 30 4 * * MON")
	}
	return e, nil
}

// small refuses numbers that no field has: what a library does with large ones need not be known.
func small(text string) bool {
	digits := 0
	for _, c := range []byte(text) {
		if digits++; c < '0' || c > '9' {
			digits = 0
		}
		if digits > 2 {
			return false
		}
	}
	return true
}

// valid asks the library for a verdict on some minute as well: what it finds well-formed it can still
// refuse to judge.
func valid(text string) bool {
	if !gronx.IsValid(text) {
		return false
	}
	_, err := gronx.New().IsDue(text, time.Date(2024, 2, 29, 12, 30, 0, 0, time.UTC))
	return err == nil
}

// Due says whether the expression is due at the minute that begins at t.
func (e Expr) Due(t time.Time) bool {
	if e.loc == nil {
		return false
	}
	wall := clock(t, e.loc)
	if !e.hours {
		return e.matches(wall)
	}
	_, now := t.In(e.loc).Zone()
	// Shown before? Then the clock was put back since.
	_, earlier := t.Add(-maxShift).In(e.loc).Zone()
	if back := time.Duration(earlier-now) * time.Second; back > 0 && clock(t.Add(-back), e.loc).Equal(wall) {
		return false
	}
	if e.matches(wall) {
		return true
	}
	_, before := t.Add(-time.Minute).In(e.loc).Zone()
	for skipped := time.Duration(now-before) * time.Second; skipped > 0; skipped -= time.Minute {
		if e.matches(wall.Add(-skipped)) {
			return true
		}
	}
	return false
}

// maxShift is more than any zone's clock is put forward or back for a season.
const maxShift = 3 * time.Hour

// clock is what the zone's clock shows, as a time that no zone shifts.
func clock(t time.Time, loc *time.Location) time.Time {
	l := t.In(loc)
	return time.Date(l.Year(), l.Month(), l.Day(), l.Hour(), l.Minute(), 0, 0, time.UTC)
}

func (e Expr) matches(wall time.Time) bool {
	due, err := gronx.New().IsDue(e.Text, wall)
	return err == nil && due
}
