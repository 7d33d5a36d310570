package observe

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"unicode"
)

// FuzzPeople: nothing that a tenant, a client or a shard has had written into the log moves a
// terminal's cursor, colours it, or begins a line of its own.
func FuzzPeople(f *testing.F) {
	f.Add("incident", "Fatal \x1b[31m\x9b2J\u2028next")
	f.Add("a\nb", "x\r\ny\x00")
	f.Add("\xff", "\u0085")
	f.Fuzz(func(t *testing.T, message, value string) {
		var out bytes.Buffer
		NewPeopleLogger(&out, slog.LevelInfo).Warn(message, "detail", value)
		for i, line := range strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n") {
			if strings.ContainsFunc(line, func(r rune) bool { return r != '\t' && unicode.IsControl(r) }) {
				t.Errorf("%q", line)
			}
			if i > 0 && !strings.HasPrefix(line, "         ") {
				t.Errorf("line %d is %q", i, line)
			}
		}
	})
}
