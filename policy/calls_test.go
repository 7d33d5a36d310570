package policy

import (
	"fmt"
	"testing"
)

func TestMayCall(t *testing.T) {
	p, err := Parse("p.yaml", []byte("calls: [{from: [a, b], to: [c]}, {from: ['*'], to: [d]}]\ncallDepth: 3\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, to string
		may      bool
	}{{"a", "c", true}, {"b", "c", true}, {"c", "a", false}, {"x", "c", false}, {"x", "d", true}, {"a", "b", false}} {
		if p.MayCall(c.from, c.to) != c.may {
			t.Errorf("%s to %s: %v", c.from, c.to, !c.may)
		}
	}
	again, err := Parse("p.yaml", p.YAML())
	if err != nil || again.Hash() != p.Hash() || !again.MayCall("a", "c") || again.CallDepth != 3 {
		t.Errorf("written and read again: %+v, %v", again, err)
	}
	tails, err := Parse("p.yaml", []byte("tails: [{from: ['*'], to: [c]}, {from: [a], to: [d, c]}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	for tenant, want := range map[string]string{"a": "[c d]", "b": "[c]", "c": "[]", "d": "[]"} {
		if got := fmt.Sprint(tails.TailsOf(tenant)); got != want {
			t.Errorf("tails of %s: %s, want %s", tenant, got, want)
		}
	}
	if again, err := Parse("p.yaml", tails.YAML()); err != nil || again.Hash() != tails.Hash() {
		t.Errorf("written and read again: %v", err)
	}
	standard, _ := Preset("standard")
	dev, _ := Preset("dev")
	if standard.MayCall("a", "b") || !dev.MayCall("a", "b") || p.CallDepth != 3 || standard.CallDepth != 8 {
		t.Error("the presets' rules are not what they were")
	}
	if p.Hash() == standard.Hash() {
		t.Error("the hash does not cover calls")
	}
}
