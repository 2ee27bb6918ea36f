package object

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func classWith(class, resources string) string {
	return strings.Replace(workloadWith(resources), "spec:\n", "spec:\n  class: "+class+"\n", 1)
}

func TestReservations(t *testing.T) {
	for _, c := range []struct {
		name, manifest string
		want           []string // paths below spec.resources
	}{
		{"fits", classWith("realtime", `    {cpu: 1, deadline: {runtime: 2ms, period: 10ms}}`), nil},
		{"tight", classWith("realtime", `    {cpu: 1, deadline: {runtime: 2ms, deadline: 4ms, period: 10ms}}`), nil},
		{"of another class", classWith("interactive", `    {cpu: 1, deadline: {runtime: 2ms, period: 10ms}}`), []string{"deadline"}},
		{"empty", classWith("realtime", `    {cpu: 1, deadline: {}}`), []string{"deadline.period", "deadline.runtime"}},
		{"more than a CPU", classWith("realtime", `    {cpu: 1, deadline: {runtime: 11ms, period: 10ms}}`), []string{"deadline.runtime"}},
		{"more than until its deadline", classWith("realtime", `    {cpu: 1, deadline: {runtime: 5ms, deadline: 4ms, period: 10ms}}`), []string{"deadline.runtime"}},
		{"late", classWith("realtime", `    {cpu: 1, deadline: {runtime: 1ms, deadline: 20ms, period: 10ms}}`), []string{"deadline.deadline"}},
		{"everything at once", classWith("batch", `    {cpu: 1, deadline: {runtime: 1ns, deadline: 20s, period: 10s}}`), []string{"deadline", "deadline.period", "deadline.runtime", "deadline.deadline"}},
		{"a quota below the share", classWith("batch", `    {cpu: 2, cpuLimit: 500m}`), []string{"cpuLimit"}},
		{"a quota on exclusive cores", classWith("realtime", `    {cpu: 2, cpuLimit: 2}`), []string{"cpuLimit"}},
		{"a quota", classWith("batch", `    {cpu: 500m, cpuLimit: 2}`), nil},
		{"a quota alone", classWith("batch", `    {cpuLimit: 100m}`), nil},
	} {
		_, err := Kinds().Parse(strings.NewReader(c.manifest))
		var errs Errors
		if err != nil && !errors.As(err, &errs) {
			t.Fatalf("%s: got %v, want Errors", c.name, err)
		}
		var got []string
		for _, e := range errs {
			got = append(got, strings.TrimPrefix(e.Path, "spec.resources."))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: paths (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestDiskLimits(t *testing.T) {
	_, err := Kinds().Parse(strings.NewReader("apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: w}\nspec:\n  image: x\n  resources: {ephemeralStorage: 100}\n" +
		"  volumes: [{name: a, path: /a, size: 1Gi}, {name: b, path: /b, size: -1Gi}]\n"))
	var errs Errors
	if !errors.As(err, &errs) {
		t.Fatalf("got %v, want Errors", err)
	}
	var got []string
	for _, e := range errs {
		got = append(got, e.Path)
	}
	if diff := cmp.Diff([]string{"spec.resources.ephemeralStorage", "spec.volumes[1].size"}, got); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
}

func TestModelsReserveNothing(t *testing.T) {
	_, err := Kinds().Parse(strings.NewReader("apiVersion: oscine.dev/v1\nkind: Model\nmetadata: {name: m}\nspec:\n  class: realtime\n  source: sha256:" +
		strings.Repeat("0", 64) + "\n  resources: {cpu: 1, deadline: {runtime: 1ms, period: 10ms}}\n"))
	if err == nil || !strings.Contains(err.Error(), "many threads") {
		t.Errorf("got %v, want the reservation refused", err)
	}
}
