package cli

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/machine"
)

// TestAPIPortStays where a context expects it.
func TestAPIPortStays(t *testing.T) {
	before := []machine.Port{{Host: 41234, Guest: apiPort, Chosen: true}, {Host: 8080, Guest: 80}}
	for name, c := range map[string]struct {
		options machine.Options
		want    []machine.Port
	}{
		"again, as it was":       {machine.Options{}, nil},
		"again, with a port":     {machine.Options{Ports: []machine.Port{{Host: 9000, Guest: 90}}}, []machine.Port{before[0], {Host: 9000, Guest: 90}}},
		"again, elsewhere":       {machine.Options{Ports: []machine.Port{{Host: 9443, Guest: apiPort}}}, []machine.Port{{Host: 9443, Guest: apiPort}}},
		"a new one, given ports": {machine.Options{Image: "i", Ports: []machine.Port{{Host: 9443, Guest: apiPort}}}, []machine.Port{{Host: 9443, Guest: apiPort}}},
	} {
		if diff := cmp.Diff(c.want, withAPIPort(c.options, before).Ports); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
