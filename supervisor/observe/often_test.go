package observe

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAFloodOfFailuresIsNotAFloodOfLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		o := New(NewLogger(&out, slog.LevelInfo), Options{})
		for i := range 10_000 {
			o.LogOften(slog.LevelError, "a", "request failed", "n", i)
		}
		o.LogOften(slog.LevelError, "b", "request failed")
		if n := strings.Count(out.String(), "\n"); n != oftenPerKey+1 {
			t.Errorf("%d lines", n)
		}
		if !strings.Contains(out.String(), `"suppressed":9995`) {
			t.Errorf("what was left out is not told: %s", out.String())
		}
		for i := range 10_000 { // ever new subjects
			o.LogOften(slog.LevelError, fmt.Sprint(i), "request failed")
		}
		if n := strings.Count(out.String(), "\n"); n > oftenInAll {
			t.Errorf("%d lines", n)
		}
		if n := len(o.often.keys); n > oftenKeys {
			t.Errorf("%d subjects are remembered", n)
		}
		time.Sleep(oftenWindow)
		out.Reset()
		o.LogOften(slog.LevelError, "a", "request failed")
		if !strings.Contains(out.String(), "suppressed") {
			t.Errorf("afterwards: %q", out.String())
		}
	})
}
