package launcher

import (
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/launcher.md instead of comparing it")

func TestDocumentIsUpToDate(t *testing.T) {
	if !inspectable {
		t.Skip("the page has the inspection's list, and there is no inspection on this architecture")
	}
	const path = "../../docs/launcher.md"
	if *update {
		if err := os.WriteFile(path, []byte(Document()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(have), Document()); diff != "" {
		t.Errorf("docs/launcher.md (-) is not what the tables say (+); renew it with -update:\n%s", diff)
	}
}
