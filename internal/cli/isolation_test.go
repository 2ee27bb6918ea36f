package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestIsolationIsPrinted(t *testing.T) {
	var out strings.Builder
	printTree(&out, "", "status", map[string]any{"isolation": map[string]any{
		"class": "realtime", "missed": 3.0, "reserved": 0.1, "reservable": 0.95,
		"promises": []any{
			map[string]any{"what": "CPUs of its own", "held": true, "detail": "3"},
			map[string]any{"what": "wakes within 50µs", "held": false, "detail": "on average after 80µs"},
		},
		"pressure": map[string]any{"cpu": map[string]any{"some10": 1.5, "some": "2s", "full": "0s"}},
	}, "phase": "Running"})
	want := `status:
  isolation:
    promises:
      held      CPUs of its own: 3
      NOT HELD  wakes within 50µs: on average after 80µs
    reserved: 0.1000 of 0.9500 CPUs
    waited for cpu: 1.5 % of the last 10 s, 2s in all
    class: realtime
    missed: 3
  phase: Running
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
