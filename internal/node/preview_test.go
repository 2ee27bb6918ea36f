package node

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/node/kind/model"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/place"
)

// both applies a manifest as a dry run and then in earnest, and returns what
// both say, in words.
func (h *house) both(t *testing.T, manifest string, displace bool) []string {
	t.Helper()
	objects, err := h.Kinds().Parse(strings.NewReader(manifest))
	if err != nil {
		t.Fatal(err)
	}
	var said [2][]string
	for i, dryRun := range []bool{true, false} {
		results, err := h.Apply(t.Context(), objects, ApplyOptions{DryRun: dryRun, Displace: displace})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			line := r.String() + " " + string(r.Action)
			if r.Placement != nil {
				line += " on " + place.FormatCPUs(r.Placement.CPUs)
			}
			for _, d := range r.Displaced {
				line += ", displaces " + d.String()
			}
			if r.Unplaced != nil {
				line += ": " + r.Unplaced.Error()
			}
			said[i] = append(said[i], line)
		}
	}
	if diff := cmp.Diff(said[0], said[1]); diff != "" {
		t.Errorf("(-dry run +applied):\n%s", diff)
	}
	return said[1]
}

func exclusive(name, class, cpus string) string {
	return "apiVersion: oscine.dev/v1\nkind: Workload\nmetadata: {name: " + name + "}\nspec: {image: x, class: " + class + ", resources: {cpu: '" + cpus + "', cpuPolicy: exclusive}}\n"
}

// A dry run, an apply and what runs afterwards are the same, and work that is
// not batch is stopped only where the caller says so.
func TestDryRunTellsWhatApplyDoes(t *testing.T) {
	h := newHouse(t)
	if got := h.both(t, exclusive("web", "interactive", "5"), false); len(got) != 1 || !strings.Contains(got[0], "Workload/web created on ") {
		t.Fatalf("got %q", got)
	}
	h.await(t, web(), object.Running)
	quick := object.Key{Kind: object.KindWorkload, Name: "quick"}
	got := h.both(t, exclusive("quick", "realtime", "4"), false)
	if len(got) != 1 || !strings.Contains(got[0], "by stopping workload-web of class interactive (apply it again with --displace)") {
		t.Fatalf("got %q", got)
	}
	h.await(t, quick, object.Unplaced)
	h.await(t, web(), object.Running)
	got = h.both(t, exclusive("quick", "realtime", "4"), true)
	if len(got) != 1 || !strings.Contains(got[0], ", displaces Workload/web") {
		t.Fatalf("got %q", got)
	}
	h.await(t, quick, object.Running)
	h.await(t, web(), object.Unplaced)
	states, err := h.Get(object.KindWorkload, "quick")
	if err != nil || !strings.Contains(got[0], " on "+states[0].Status.Common().Placement.CPUs+",") {
		t.Errorf("it runs on %s, %v; apply said %q", states[0].Status.Common().Placement.CPUs, err, got)
	}
}

// An object of which several instances lose their place is told once.
func TestDisplacedModelIsToldOnce(t *testing.T) {
	h := newHouse(t)
	digest, _, err := h.UploadModel(t.Context(), strings.NewReader("a model"), model.Upload{})
	if err != nil {
		t.Fatal(err)
	}
	h.both(t, "apiVersion: oscine.dev/v1\nkind: Model\nmetadata: {name: m}\nspec: {source: '"+digest+"', class: batch, instances: 5, resources: {cpu: 1, cpuPolicy: exclusive}}\n", false)
	if got := h.both(t, exclusive("quick", "realtime", "5"), false); len(got) != 1 || strings.Count(got[0], "displaces Model/m") != 1 {
		t.Errorf("got %q", got)
	}
}
