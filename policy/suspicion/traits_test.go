package suspicion

import (
	"strings"
	"testing"
)

func TestTraits(t *testing.T) {
	for _, c := range []struct {
		code string
		want float64
	}{
		{"", 0},
		{"export default { fetch: () => new Response() }", 0},
		{"const t = performance.now(); new WebAssembly.Module(b); WebAssembly.validate(b)", 2},
		{strings.Repeat(" ", maxTraitBytes) + "Atomics", 0}, // beyond what is looked at
	} {
		if got := TraitsOf([]byte(c.code)); got != c.want {
			t.Errorf("%.60q: %v, want %v", c.code, got, c.want)
		}
	}
}
