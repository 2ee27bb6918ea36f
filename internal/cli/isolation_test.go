package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/object"
)

func TestIsolationIsPrinted(t *testing.T) {
	var out strings.Builder
	err := printIsolation(&out, "", &object.IsolationStatus{
		ID: "workload-rt", Class: object.Realtime, Incidents: object.Incidents{Missed: 3}, Reserved: 0.1, Reservable: 0.95,
		Promises: []object.Promise{{What: "CPUs of its own", Held: true, Detail: "3"}, {What: "wakes within 50µs", Detail: "on average after 80µs"}},
		Pressure: map[string]object.Pressure{"cpu": {Some10: 1.5, Some: object.Duration(2 * time.Second)}},
		Wakeups:  &object.Wakeups{Count: 1234567890, P99: object.Duration(1500 * time.Nanosecond)},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `isolation:
  promises:
    held      CPUs of its own: 3
    NOT HELD  wakes within 50µs: on average after 80µs
  reserved: 0.1000 of 0.9500 CPUs
  waited for cpu: 1.5 % of the last 10 s, 2s in all
  class: realtime
  cpuTime: 0s
  id: workload-rt
  meanDelay: 0s
  missed: 3
  runDelay: 0s
  throttled: 0s
  wakeups:
    count: 1234567890
    max: 0s
    p50: 0s
    p99: 1.5µs
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
