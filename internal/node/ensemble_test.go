package node

import (
	"errors"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/object"
)

// An ensemble is applied, waits for the models of its steps, and goes like any
// Model, without a file, a part of the machine or a worker.
func TestLifeOfAnEnsemble(t *testing.T) {
	h := newHouse(t)
	apply := func(more string) error {
		t.Helper()
		objects, err := h.Kinds().Parse(strings.NewReader("apiVersion: oscine.dev/v1\nkind: Model\nmetadata: {name: pipeline}\nspec:\n  ensemble:\n    steps:\n    - {modelName: a, inputMap: {x: raw}, outputMap: {y: mid}}\n" + more))
		if err != nil {
			t.Fatal(err)
		}
		results, err := h.Apply(t.Context(), objects, ApplyOptions{})
		if err == nil && results[0].Placement != nil {
			t.Errorf("it is placed on %v", results[0].Placement)
		}
		return err
	}
	key := object.Key{Kind: object.KindModel, Name: "pipeline"}
	for _, more := range []string{"    - {modelName: b, inputMap: {x: mid}, outputMap: {y: end}}\n", "  version: '2'\n"} {
		if err := apply(more); err != nil {
			t.Fatal(err)
		}
		h.await(t, key, object.Waiting)
	}
	states, err := h.Get(object.KindModel, "pipeline")
	if err != nil || len(states) != 1 {
		t.Fatalf("%v, %v", states, err)
	}
	if st := states[0].Status.(*object.ModelStatus); !strings.Contains(st.Message, "step 1 (a): model not found") || st.PID != 0 || st.Placement != nil {
		t.Errorf("got %+v", st)
	}
	if _, err := h.logPath(object.KindModel, "pipeline", 0); err == nil || !strings.Contains(err.Error(), "is an ensemble, which has no worker and no log") {
		t.Errorf("its log: got %v", err)
	}
	if len(h.box.Running()) != 0 {
		t.Errorf("containers run: %v", h.box.Running())
	}
	if err := apply("    - {modelName: pipeline, inputMap: {x: mid}, outputMap: {y: end}}\n"); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "spec.ensemble: step 2 (pipeline) is an ensemble itself") {
		t.Errorf("an ensemble of itself: got %v", err)
	}
	for version, itself := range map[string]bool{"7": false, "3": true} {
		err := apply("    - {modelName: pipeline, modelVersion: '" + version + "', inputMap: {x: mid}, outputMap: {y: end}}\n  version: '3'\n")
		if itself != (err != nil) {
			t.Errorf("version 3 with a step of version %s: got %v", version, err)
		}
	}
}
