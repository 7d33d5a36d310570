package observe

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// patientLines is how many lines wait for a log that does not take them.
const patientLines = 4096

// PatientWriter passes whole writes on from a goroutine of its own, so that a terminal that was
// paused or a journal that is stuck costs lines, never requests: what is logged under a lock would
// else hold everybody who wants that lock.
type PatientWriter struct {
	w       io.Writer
	lines   chan []byte
	flushed chan chan struct{}
	dropped atomic.Int64
}

// NewPatientWriter starts the goroutine, which lives as long as the process.
func NewPatientWriter(w io.Writer) *PatientWriter {
	p := &PatientWriter{w: w, lines: make(chan []byte, patientLines), flushed: make(chan chan struct{})}
	go p.run()
	return p
}

// Write implements io.Writer; it never blocks and never fails. What does not fit is dropped, and
// the number told when there is room again.
func (p *PatientWriter) Write(b []byte) (int, error) {
	select {
	case p.lines <- append([]byte(nil), b...):
	default:
		p.dropped.Add(1)
	}
	return len(b), nil
}

// Flush waits until what was written before is passed on, at most for d.
func (p *PatientWriter) Flush(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	done := make(chan struct{})
	select {
	case p.flushed <- done:
		select {
		case <-done:
		case <-timer.C:
		}
	case <-timer.C:
	}
}

func (p *PatientWriter) run() {
	for {
		select {
		case line := <-p.lines:
			p.pass(line)
		case done := <-p.flushed:
			for range len(p.lines) {
				p.pass(<-p.lines)
			}
			close(done)
		}
	}
}

// pass writes one line. Nobody can be told of an error: this is where errors are told.
func (p *PatientWriter) pass(line []byte) {
	_, _ = p.w.Write(line)
	if n := p.dropped.Swap(0); n > 0 {
		_, _ = fmt.Fprintf(p.w, "{\"level\":\"WARN\",\"msg\":\"log lines were dropped: nobody took them\",\"lines\":%d}\n", n)
	}
}
