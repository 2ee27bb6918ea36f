package model

import (
	"context"
	"slices"
	"testing"
	"time"

	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
)

// A model on demand has no part of the machine before it is loaded, and none after
// it was unloaded.
func TestOnDemand(t *testing.T) {
	b := newBench(t)
	m := b.upload(t, "a model")
	m.Spec.Load, m.Spec.IdleTimeout = object.LoadOnDemand, object.Duration(time.Minute)
	held := func() bool {
		return slices.Contains(b.Placer.Holders(digits.ID()), digits.ID()) || b.Placer.Shared()[digits.ID()] != nil
	}
	if err := b.c.Up(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	s := b.served
	if !s.OnDemand || s.LoadNow || s.IdleTimeout != time.Minute || len(b.Running()) != 0 || held() {
		t.Errorf("before a request: %+v, %d containers, placed %v", s, len(b.Running()), held())
	}
	for range 2 {
		w, err := s.Instances[0].Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st := b.c.Status(object.Observed{}).(*object.ModelStatus); st.Placement == nil || st.PID == 0 || !held() {
			t.Errorf("loaded: %+v, placed %v", st, held())
		}
		if err := w.Kill(); err != nil {
			t.Fatal(err)
		}
		s.Instances[0].Unloaded()
		if st := b.c.Status(object.Observed{}).(*object.ModelStatus); st.Placement != nil || st.PID != 0 || held() || st.Source == "" {
			t.Errorf("unloaded: %+v, placed %v", st, held())
		}
	}
	// The next daemon takes over the worker that runs, and the next manifest is
	// loaded before it answers.
	if _, err := s.Instances[0].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	next := b.next(digits)
	if err := next.Up(t.Context(), m); err != nil || !b.served.LoadNow || len(b.served.Instances[0].CPUs) > 0 || !held() {
		t.Errorf("a worker that runs: %v, %+v", err, b.served)
	}
	b.locked(func() { b.serving.Phase = object.Idle })
	changed := b.upload(t, "another model")
	changed.Spec.Load = object.LoadOnDemand
	if err := next.Up(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	if want := []string{"beside guest-digits", "beside model-digits"}; !slices.Equal(b.calls, want) || !b.served.OnDemand || !b.served.LoadNow {
		t.Errorf("replaced by %q, %+v", b.calls, b.served)
	}
	if err := next.Remove(t.Context(), changed); err != nil || held() {
		t.Errorf("after it was removed: %v, placed %v", err, held())
	}
}

// A model that is loaded always from now on keeps its place, although the worker on
// demand that it replaces is unloaded meanwhile.
func TestUnloadedWhileReplaced(t *testing.T) {
	b := newBench(t)
	m := b.upload(t, "a model")
	m.Spec.Load = object.LoadOnDemand
	if err := b.c.Up(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	old := b.served
	if _, err := old.Instances[0].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.locked(func() { b.serving.Phase = object.Running })
	b.replaced = func(id string) {
		if id != digits.ID() { // the one beside it
			old.Instances[0].Unloaded()
		}
	}
	always := b.upload(t, "a model")
	if err := b.c.Up(t.Context(), always); err != nil {
		t.Fatal(err)
	}
	if b.served.OnDemand || len(b.Running()) != 1 || b.Placer.Shared()[digits.ID()] == nil {
		t.Errorf("got %+v, %d containers, placed: %v", b.served, len(b.Running()), b.Placer.Shared())
	}
}

// A manifest that is not served leaves an idle model without a part of the machine.
func TestIdleAfterARefusedManifest(t *testing.T) {
	b := newBench(t)
	m := b.upload(t, "a model")
	m.Spec.Load = object.LoadOnDemand
	if err := b.c.Up(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	b.locked(func() { b.serving.Phase = object.Idle })
	bad := b.upload(t, "no model")
	bad.Spec.Load, b.refuse = object.LoadOnDemand, bad.Spec.Source
	if err := b.c.Up(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	if st := b.status(); st.Update == nil || st.Source != m.Spec.Source || len(b.Running()) != 0 || b.Placer.Shared()[digits.ID()] != nil {
		t.Errorf("got %+v, %d containers, placed: %v", st, len(b.Running()), b.Placer.Shared())
	}
}

// Who finds no room has others unloaded, as long as that may help.
func TestRoomIsMade(t *testing.T) {
	b := newBench(t)
	first := b.upload(t, "a model")
	first.Spec.Load, first.Spec.Resources.Memory = object.LoadOnDemand, memory(t, "700Mi")
	if err := b.c.Up(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	s := b.served
	w, err := s.Instances[0].Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	b.Sandbox.MakeRoom = func(ctx context.Context, obj object.Placeable) bool {
		if asked++; asked > 1 || !b.Placer.FitsWithout(ctx, obj, []string{digits.ID()}) {
			return false
		}
		if err := w.Kill(); err != nil {
			t.Error(err)
		}
		s.Instances[0].Unloaded()
		return true
	}
	second := b.upload(t, "another model")
	second.Metadata.Name, second.Spec.Resources.Memory = "second", memory(t, "2Gi")
	key := object.Key{Kind: object.KindModel, Name: "second"}
	if err := b.next(key).Up(t.Context(), second); err == nil || len(b.Running()) != 1 {
		t.Errorf("a model that never fits: %v, %d containers", err, len(b.Running()))
	}
	second.Spec.Load = object.LoadOnDemand
	if err := b.next(key).Up(t.Context(), second); !reconcile.IsRefused(err) {
		t.Errorf("a model on demand that never fits: got %v, want it refused", err)
	}
	second.Spec.Load = object.LoadAlways
	asked, second.Spec.Resources.Memory = 0, memory(t, "800Mi")
	if err := b.next(key).Up(t.Context(), second); err != nil || asked != 1 {
		t.Errorf("got %v after %d calls", err, asked)
	}
}

func memory(t *testing.T, text string) object.Quantity {
	t.Helper()
	q, err := object.MakeQuantity(text)
	if err != nil {
		t.Fatal(err)
	}
	return q
}
