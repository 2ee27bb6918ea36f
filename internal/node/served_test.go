package node

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/node/kind/model"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/core"
)

// What cannot be served beside the other Models is refused when it is applied.
func TestModelsThatCannotBeServedTogether(t *testing.T) {
	h := newHouse(t)
	pipeline := func(name, more string) string {
		return "apiVersion: oscine.dev/v1\nkind: Model\nmetadata: {name: " + name + "}\nspec:\n  ensemble: {steps: [{modelName: a, inputMap: {x: raw}, outputMap: {y: out}}]}\n" + more + "---\n"
	}
	apply := func(text string) error {
		objects, err := h.Kinds().Parse(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.Apply(t.Context(), objects, ApplyOptions{})
		return err
	}
	shared := func(version, traffic int) string {
		return fmt.Sprintf("  servedAs: shared\n  version: '%d'\n  traffic: %d\n", version, traffic)
	}
	for _, step := range []struct{ text, want string }{
		{pipeline("p1", shared(1, 30)), ""},
		{pipeline("p1", shared(1, 30)), ""},
		{pipeline("p2", shared(1, 10)), "Model/p2: spec.version: version 1 of shared is Model/p1: choose another spec.version or spec.servedAs"},
		{pipeline("p2", shared(2, 90)), "Model/p2: spec.traffic: the versions of shared would get 120 percent (Model/p1 30, Model/p2 90), at most 100 are there"},
		{pipeline("p2", shared(2, 70)), ""},
		{pipeline("p1", shared(1, 70)), "would get 140 percent"},
		{pipeline("p1", shared(1, 70)) + pipeline("p2", shared(2, 30)), ""},
		{pipeline("p1", shared(2, 70)) + pipeline("p2", shared(1, 30)), ""},
		{pipeline("p3", "  version: '1'\n") + pipeline("p4", "  servedAs: p3\n"), "Model/p4: spec.version: version 1 of p3 is Model/p3"},
	} {
		err := apply(step.text)
		if step.want == "" && err != nil || step.want != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), step.want)) {
			t.Errorf("%s: got %v, want %q", step.text, err, step.want)
		}
	}
}

// What a manifest says of batches, states and shapes comes to the registry.
func TestServedAsTheManifestSays(t *testing.T) {
	got := server{}.model(model.Served{
		Class:     object.Batch,
		Batching:  &object.DynamicBatching{PreferredBatchSizes: []int{2, 4}, MaxBatchSize: 8, MaxQueueDelay: object.Duration(time.Millisecond)},
		Sequences: &object.SequenceBatching{State: []object.SequenceState{{InputName: "a", OutputName: "b", Dims: []int64{2}}}, MaxSequences: 9, MaxSequenceIdle: object.Duration(time.Second)},
		Reshape:   &object.Reshape{Inputs: map[string]object.TensorReshape{"x": {Dims: []int64{4}, Shape: []int64{2, 2}}}},
	})
	for _, part := range []struct{ got, want any }{
		{got.Batching, core.Batching{PreferredRows: []int{2, 4}, MostRows: 8, Delay: time.Millisecond}},
		{got.Sequencing, core.Sequencing{States: []core.KeptState{{Input: "a", Output: "b", Shape: []int64{2}}}, Most: 9, Idle: time.Second}},
		{got.Reshapes, core.Reshapes{Inputs: []core.Reshape{{Name: "x", Client: []int64{4}, Model: []int64{2, 2}}}}},
	} {
		if diff := cmp.Diff(part.want, part.got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}
