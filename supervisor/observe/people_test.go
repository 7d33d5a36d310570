package observe

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestPeopleLoggerShowsControlCharactersInsteadOfSendingThem(t *testing.T) {
	var b strings.Builder
	log := NewPeopleLogger(&b, slog.LevelInfo)
	log.Debug("not shown")
	log.With("shard", 3).Error("tenant broken", "tenant", "a", "empty", "", "error", errors.New("x"),
		"diagnostics", "src/index.ts:3:7: Unexpected <\n  | let x = \x1b[31m<\n")
	got := b.String()
	_, got, _ = strings.Cut(got, " ")
	want := "ERROR tenant broken  shard=3  tenant=a  error=x\n         src/index.ts:3:7: Unexpected <\n           | let x = \\x1b[31m<\n"
	if got != want {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}
