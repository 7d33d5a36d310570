package observe

import (
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"testing"
)

func TestPeopleLoggerShowsControlCharactersInsteadOfSendingThem(t *testing.T) {
	var b strings.Builder
	log := NewPeopleLogger(&b, slog.LevelInfo)
	log.Debug("not shown")
	log.With("shard", 3).Error("tenant broken", "tenant", "a", "empty", "", "error", errors.New("x"),
		"diagnostics", "src/index.ts:3:7: Unexpected <\n  | let x = \x1b[31m<\n")
	log.Info("a: Uncaught Error\n    at worker.ts:4:39\n", "request", "r1")
	got := b.String()
	clock := regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d `)
	got = clock.ReplaceAllString(got, "")
	want := "ERROR tenant broken  shard=3  tenant=a  error=x\n         src/index.ts:3:7: Unexpected <\n           | let x = \\x1b[31m<\n" +
		"a: Uncaught Error  request=r1\n             at worker.ts:4:39\n"
	if got != want {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}
