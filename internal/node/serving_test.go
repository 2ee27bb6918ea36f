package node

import (
	"testing"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/servetest"
)

// TestMain makes the test's program the worker of models too.
func TestMain(m *testing.M) { servetest.Main(m) }

// An instance has no model unloaded for it, its own least of all, where its model is
// loaded on demand; any other object has.
func TestRoomForInstances(t *testing.T) {
	h := newHouse(t)
	r := &servetest.Rig{TB: t, Registry: h.registry}
	model := func(name string) *object.Model {
		m := &object.Model{Header: object.Header{Kind: object.KindModel, Metadata: object.Metadata{Name: name}}}
		m.Spec.Instances, m.Spec.Load = 2, object.LoadOnDemand
		m.SetDefaults()
		var err error
		if m.Spec.Resources.Memory, err = object.MakeQuantity("9Gi"); err != nil {
			t.Fatal(err)
		}
		return m
	}
	a, other := model("a"), model("other")
	if _, err := h.placer.LendTo(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	r.Serve(core.Model{Name: "a", Loading: core.Loading{OnDemand: true}})
	if _, err := r.Ask(t.Context(), core.Request{Model: "a"}, 1); err != nil {
		t.Fatal(err)
	}
	state := func() core.State {
		s, err := h.registry.Status("a")
		if err != nil {
			t.Fatal(err)
		}
		return s.State
	}
	for _, obj := range []*object.Model{a, a.Instance(1), other.Instance(1)} {
		if h.makeRoom(t.Context(), obj) || state() != core.Ready {
			t.Errorf("room is made for %s: model a is %s", obj.Key(), state())
		}
	}
	if !h.makeRoom(t.Context(), other) || state() != core.Idle {
		t.Errorf("no room is made for %s: model a is %s", other.Key(), state())
	}
}
