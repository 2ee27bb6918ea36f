package model

import (
	"strings"
	"testing"

	"oscine.dev/oscine/internal/object"
)

func ensembleOf(t *testing.T, version string, steps ...string) *object.Model {
	t.Helper()
	text := "apiVersion: oscine.dev/v1\nkind: Model\nmetadata: {name: digits}\nspec:\n  version: '" + version + "'\n  ensemble:\n    steps:\n"
	for _, s := range steps {
		text += "    - {modelName: " + s + ", inputMap: {x: raw}, outputMap: {y: of-" + s + "}}\n"
	}
	objects, err := object.Kinds().Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return objects[0].(*object.Model)
}

// An ensemble has no worker, and takes the place of a model that has one and back.
func TestEnsemble(t *testing.T) {
	b := newBench(t)
	answering(t, b, b.upload(t, "weights"))
	if err := b.c.Up(t.Context(), ensembleOf(t, "2", "a")); err != nil {
		t.Fatal(err)
	}
	if b.served == nil || b.served.Ensemble == nil || len(b.served.Instances) > 0 || len(b.Running()) != 0 || len(b.Left()) != 0 || b.Freed() != 1 {
		t.Errorf("served %+v, what runs: %+v, left %v, others are woken %d times", b.served, b.Running(), b.Left(), b.Freed())
	}
	b.becomes(object.Running, "")
	if st := b.status(); st.Phase != object.Running || st.Version != "2" || st.Source != "" || st.Pack != "" || st.PID != 0 || st.Placement != nil {
		t.Errorf("status %+v", st)
	}
	for _, next := range []struct {
		m    *object.Model
		want string
	}{{ensembleOf(t, "3", "b"), "3"}, {ensembleOf(t, "4", "b", "c"), "3"}} {
		if err := b.c.Up(t.Context(), next.m); err != nil {
			t.Fatal(err)
		}
		if st := b.status(); st.Version != next.want || (st.Update != nil) != (next.m.Spec.Version != next.want) {
			t.Errorf("version %s, update %+v, want version %s", st.Version, st.Update, next.want)
		}
	}
	if got := b.told(); !strings.Contains(got, "the new manifest is not served: step 2 is not served; the previous one still is") {
		t.Errorf("events:\n%s", got)
	}
	model := b.upload(t, "others")
	if err := b.c.Up(t.Context(), model); err != nil {
		t.Fatal(err)
	}
	if b.served.Ensemble != nil || len(b.served.Instances) == 0 || b.status().Source != model.Spec.Source {
		t.Errorf("served %+v, status %+v", b.served, b.status())
	}
	if err := b.c.Up(t.Context(), ensembleOf(t, "5", "a")); err != nil {
		t.Fatal(err)
	}
	if err := b.c.Remove(t.Context(), nil); err != nil || b.served != nil || len(b.Left()) != 0 {
		t.Errorf("removed: %v, served %+v, left %v", err, b.served, b.Left())
	}
}
