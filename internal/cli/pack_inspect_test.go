package cli

import (
	"strings"
	"testing"
	"time"
)

// A damaged pack that came with a release is fetched again by the node, as its events say.
func TestInspectDamagedPack(t *testing.T) {
	var out strings.Builder
	p := inspectedPack{Damaged: new(time.Now()), Release: "1.1", Unverified: "it was made without a hash tree", onNode: true}
	if err := p.table(&out, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"from spec.update.source of its Machine", "integrity     checked as a whole when it is mounted: it was made"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it lacks %q:\n%s", want, &out)
		}
	}
}
