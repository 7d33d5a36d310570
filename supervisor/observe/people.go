package observe

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// NewPeopleLogger writes lines for a terminal: time, message, what it is about, and texts of more
// than one line indented below. Control characters in values are shown, not sent: some of the text
// is tenants'.
func NewPeopleLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(&peopleHandler{out: &lockedWriter{w: w}, level: level})
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

type peopleHandler struct {
	out   *lockedWriter
	level slog.Leveler
	with  []slog.Attr
}

// Enabled implements slog.Handler.
func (h *peopleHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// WithAttrs implements slog.Handler.
func (h *peopleHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &peopleHandler{h.out, h.level, append(append([]slog.Attr{}, h.with...), attrs...)}
}

// WithGroup implements slog.Handler; groups are not shown.
func (h *peopleHandler) WithGroup(string) slog.Handler { return h }

// Handle implements slog.Handler.
func (h *peopleHandler) Handle(_ context.Context, r slog.Record) error {
	var line, below strings.Builder
	line.WriteString(r.Time.Format(time.TimeOnly))
	if r.Level >= slog.LevelWarn {
		line.WriteString(" " + r.Level.String())
	}
	for i, part := range strings.Split(strings.TrimRight(r.Message, "\n"), "\n") {
		if i == 0 {
			line.WriteString(" " + printable(part))
		} else {
			below.WriteString("\n         " + printable(part))
		}
	}
	add := func(a slog.Attr) bool {
		v := strings.TrimRight(a.Value.Resolve().String(), "\n")
		switch {
		case v == "" || v == "<nil>" || v == "[]":
		case strings.Contains(v, "\n"):
			for part := range strings.SplitSeq(v, "\n") {
				below.WriteString("\n         " + printable(part))
			}
		default:
			fmt.Fprintf(&line, "  %s=%s", a.Key, printable(v))
		}
		return true
	}
	for _, a := range h.with {
		add(a)
	}
	r.Attrs(add)
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := io.WriteString(h.out.w, line.String()+below.String()+"\n")
	return err
}

// printable replaces control characters by their escapes; a tab stays.
func printable(s string) string {
	if !strings.ContainsFunc(s, isControl) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if isControl(r) {
			fmt.Fprintf(&b, "\\x%02x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func isControl(r rune) bool {
	return r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029'
}
