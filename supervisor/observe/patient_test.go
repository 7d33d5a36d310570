package observe

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
)

// A log that nobody reads does not hold up who writes to it.
func TestAStuckLogHoldsNobody(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := NewPatientWriter(w)
	log := NewLogger(p, slog.LevelInfo)
	begin := time.Now()
	for range 3 * patientLines { // far more than the pipe takes
		log.Info("line", "text", strings.Repeat("x", 100))
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
	p.Flush(10 * time.Millisecond) // does not wait for ever either
	var got bytes.Buffer
	read := make(chan struct{})
	go func() { got.ReadFrom(r); close(read) }()
	p.Flush(5 * time.Second)
	log.Info("last")
	p.Flush(5 * time.Second)
	w.Close()
	<-read
	text := got.String()
	if !strings.Contains(text, "log lines were dropped") || !strings.Contains(text, `"msg":"last"`) {
		t.Errorf("%d bytes, the end: %q", len(text), text[max(0, len(text)-300):])
	}
}
