package object

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A status is the same typed value on the node and where it is read.
func TestStatusTravelsTyped(t *testing.T) {
	started := time.Date(2026, 11, 29, 8, 0, 0, 123456789, time.UTC)
	code := 137
	common := Observed{
		Phase: Unhealthy, Message: "HTTP 500", Restarts: 3, StartedAt: &started,
		Placement: &PlacementStatus{CPUs: "0-3", Exclusive: true, Devices: []string{"gpu0"}, Reason: "one cache"},
		Isolation: &IsolationStatus{
			ID: "workload-web", Class: Interactive, CPUTime: Duration(1500 * time.Microsecond), Incidents: Incidents{Killed: 1 << 53, Observed: 7},
			Promises: []Promise{{What: "share", Held: true}}, Pressure: map[string]Pressure{"cpu": {Some10: .5, Some: 2}},
			Wakeups: &Wakeups{Count: 10, P99: 1000}, Reserved: .25,
		},
	}
	for kind, sent := range map[Kind]Status{
		KindWorkload: &WorkloadStatus{Observed: common, PID: 7, ExitCode: &code, OOMKilled: true, Storage: []StorageStatus{{Name: "volume data", Used: 1 << 50}}},
		KindModel:    &ModelStatus{Observed: common, Engine: "onnxruntime", Requests: 1 << 52, P50: Duration(250 * time.Microsecond), PriorityUnavailable: "no kernel"},
		"Later":      &common,
	} {
		raw, err := json.Marshal(sent)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Kinds().DecodeState(Key{kind, "web"}, nil, raw)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(sent, got.Status); diff != "" {
			t.Errorf("%s (-sent +got):\n%s", kind, diff)
		}
	}
}

// Every stored kind has a status, and its columns read it, filled and empty.
func TestKindsHaveAStatus(t *testing.T) {
	for _, row := range Kinds().Stored() {
		st := row.NewStatus()
		if reflect.ValueOf(st).Elem().FieldByName("Observed").Addr().Interface() != any(st.Common()) {
			t.Errorf("%s: the status does not embed Observed", row.Kind)
		}
		for _, column := range row.Columns {
			if column.Title != strings.ToUpper(column.Title) {
				t.Errorf("%s: column %q", row.Kind, column.Title)
			}
			column.Value(st)
			if got := column.Value(&Observed{}); got != "" {
				t.Errorf("%s: column %s of another kind's status: got %q", row.Kind, column.Title, got)
			}
		}
	}
}

// What a node shows of an object can be applied: its status is passed over.
func TestStatusIsPassedOver(t *testing.T) {
	objects, err := Kinds().Parse(strings.NewReader(webManifest + "status: {phase: Running, unknown: [1e400, {}]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(parseOne(t, webManifest), objects[0], cmp.Comparer(func(a, b Quantity) bool { return a == b })); diff != "" {
		t.Errorf("(-without +with status):\n%s", diff)
	}
	_, err = Kinds().Parse(strings.NewReader(webManifest + "Status: {}\n"))
	if err == nil || !strings.Contains(err.Error(), "Status: unknown field") {
		t.Errorf("another field: got %v", err)
	}
}

// FuzzDecodeState reads what a node of any release may send.
func FuzzDecodeState(f *testing.F) {
	f.Add("Workload", `{"kind":"Workload","metadata":{"name":"web"},"spec":{"resources":{"cpu":"1"}}}`, `{"phase":"Running","startedAt":"2026-11-29T08:00:00Z"}`)
	f.Add("Model", `null`, `{"p99":"1ms","requests":1e3}`)
	f.Add("Later", `{}`, `{"phase":7}`)
	f.Fuzz(func(t *testing.T, kind, object, status string) {
		state, err := Kinds().DecodeState(Key{Kind(kind), "x"}, []byte(object), []byte(status))
		if err != nil {
			return
		}
		if (state.Status == nil) != (status == "") {
			t.Errorf("a status of %q: got %v", status, state.Status)
		}
		if row, ok := Kinds().Find(Kind(kind)); ok && state.Status != nil {
			for _, column := range row.Columns {
				column.Value(state.Status)
			}
		}
	})
}
