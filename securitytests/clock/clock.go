// Package clock holds the attacker that looks for a clock in JavaScript, and compares what it saw.
//
// Duty: a tenant's code whose transcript is a function of nothing but itself as long as time stands
// still between I/O (DESIGN, invariant 7), and the judgement over many of them.
//
// Trust: a transcript is the attacker's own evidence; that it comes out the same each time is the claim,
// so nothing in it is believed beyond that.
package clock

import (
	_ "embed"
	"fmt"
	"strings"
)

// Worker is the attacker's source. Each request is one attempt; its body is the transcript.
//
//go:embed worker.js
var Worker string

// Verdict is what many transcripts say.
type Verdict struct {
	Transcripts int
	Different   int    // of the kinds of them; 1 when time stood still
	Ticks       int    // the most that one attempt could tell apart between I/O
	Difference  string // the first line in which two differ, both ways
	first       string
	seen        map[string]bool
}

// Add takes a transcript into account.
func (v *Verdict) Add(transcript string) error {
	var ticks int
	if n, _ := fmt.Sscanf(transcript, "ticks %d\n", &ticks); n != 1 {
		return fmt.Errorf("clock: no transcript: %.200q", transcript)
	}
	if v.seen == nil {
		v.first, v.seen = transcript, map[string]bool{}
	}
	v.Transcripts++
	v.Ticks = max(v.Ticks, ticks)
	if !v.seen[transcript] && len(v.seen) < 1000 {
		v.seen[transcript] = true
		v.Different = len(v.seen)
	}
	if transcript != v.first && v.Difference == "" {
		a, b := strings.Split(v.first, "\n"), strings.Split(transcript, "\n")
		for i := 1; i < len(a) && i < len(b); i++ {
			if a[i] != b[i] {
				v.Difference = a[i] + "\n" + b[i]
				break
			}
		}
	}
	return nil
}

// Stood reports whether nothing could be told.
func (v *Verdict) Stood() bool { return v.Different == 1 && v.Ticks == 0 }

func (v *Verdict) String() string {
	s := fmt.Sprintf("%d transcripts, %d kinds of them, %d ticks told apart between I/O", v.Transcripts, v.Different, v.Ticks)
	if v.Difference != "" {
		s += "; the first difference:\n" + v.Difference
	}
	return s
}
