package object

import (
	"strings"
	"testing"
)

// A deletion waits for stopGrace, so it has a bound.
func TestStopGraceIsBounded(t *testing.T) {
	for grace, ok := range map[string]bool{"0s": true, "1h": true, "1h1s": false, "100000h": false, "-1s": false} {
		text := "apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: web}\nspec: {image: x, stopGrace: " + grace + "}\n"
		_, err := Kinds().Parse(strings.NewReader(text))
		if (err == nil) != ok || (!ok && !strings.Contains(err.Error(), "spec.stopGrace")) {
			t.Errorf("stopGrace %s: got %v", grace, err)
		}
	}
}
