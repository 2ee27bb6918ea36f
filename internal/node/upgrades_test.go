package node

import (
	"testing"

	"oscine.dev/oscine/internal/object"
)

// TestWanted holds which objects a new version must bring back: also those that
// are on their way just after a boot, not those that ended or do not work anyway.
func TestWanted(t *testing.T) {
	want := map[object.Phase]bool{object.Running: true, object.Pending: true, object.Pulling: true, object.Starting: true}
	for _, phase := range object.Phases() {
		if got := wanted(phase); got != want[phase] {
			t.Errorf("%s: got %t", phase, got)
		}
	}
}
