package model

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/object"
)

// answering brings up a model that then answers.
func answering(t *testing.T, b *bench, m *object.Model) {
	t.Helper()
	if err := b.c.Up(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	w, err := b.served.Instances[0].Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.worker = w
	b.becomes(object.Running, "")
}

func (b *bench) told() string { b.mu.Lock(); defer b.mu.Unlock(); return strings.Join(b.events, "\n") }

func TestReplacementStartsBeside(t *testing.T) {
	b := newBench(t)
	first, second := b.upload(t, "one"), b.upload(t, "two")
	second.Spec.Version = "2"
	answering(t, b, first)
	if err := b.c.Up(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if want := []string{"beside guest-digits", "beside model-digits"}; !slices.Equal(b.calls, want) {
		t.Errorf("replaced %q, want %q", b.calls, want)
	}
	running := b.Running()
	if len(running) != 1 || running["model-digits"].Mounts[1].Source != b.files.Path(second.Spec.Source) {
		t.Errorf("what runs: %+v", running)
	}
	if st := b.status(); st.Source != second.Spec.Source || st.Version != "2" || st.Update != nil || st.Phase != object.Running {
		t.Errorf("status %+v", st)
	}
	if held := b.Placer.Shared(); len(held) != 1 || b.Freed() != 1 {
		t.Errorf("places are held by %v, others are woken %d times", held, b.Freed())
	}
	if err := b.c.Remove(t.Context(), nil); err != nil || len(b.Left()) != 0 {
		t.Errorf("removed: %v, left %v", err, b.Left())
	}
}

func TestReplacementThatDoesNotLoad(t *testing.T) {
	b := newBench(t)
	first, second := b.upload(t, "one"), b.upload(t, "two")
	answering(t, b, first)
	b.refuse = second.Spec.Source
	if err := b.c.Up(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	st := b.status()
	if st.Source != first.Spec.Source || st.Phase != object.Running || st.Update == nil || st.Update.Phase != object.Failed || !strings.Contains(st.Update.Message, "not a model") {
		t.Errorf("status %+v, update %+v", st, st.Update)
	}
	if got := b.told(); !strings.Contains(got, "the new manifest is not served: not a model; the previous one still is") {
		t.Errorf("events:\n%s", got)
	}
	if running := b.Running(); len(running) != 1 || running["model-digits"].Mounts[1].Source != b.files.Path(first.Spec.Source) {
		t.Errorf("what runs: %+v", running)
	}
	// A third that loads takes its place.
	third := b.upload(t, "three")
	if err := b.c.Up(t.Context(), third); err != nil || b.status().Source != third.Spec.Source || b.status().Update != nil {
		t.Errorf("the next: %v, %+v", err, b.status())
	}
}

// A guest that answers when a manifest comes that does not load gets the place.
func TestGuestSettles(t *testing.T) {
	b := newBench(t)
	first, second, third := b.upload(t, "one"), b.upload(t, "two"), b.upload(t, "three")
	answering(t, b, first)
	ctx, cancel := context.WithCancel(t.Context())
	b.replaced = func(id string) {
		if id == "guest-digits" {
			cancel() // another manifest comes
		}
	}
	if err := b.c.Up(ctx, second); !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted: %v", err)
	}
	b.refuse = third.Spec.Source
	if err := b.c.Up(t.Context(), third); err != nil {
		t.Fatal(err)
	}
	if running := b.Running(); len(running) != 1 || running["model-digits"].Mounts[1].Source != b.files.Path(second.Spec.Source) {
		t.Errorf("what runs: %+v", running)
	}
	if st := b.status(); st.Source != second.Spec.Source || st.Update == nil || st.Update.Phase != object.Failed {
		t.Errorf("status %+v, update %+v", st, st.Update)
	}
}

func TestReplacementWithoutRoom(t *testing.T) {
	b := newBench(t)
	first, second := b.upload(t, "one"), b.upload(t, "two")
	for _, m := range []*object.Model{first, second} {
		if err := m.Spec.Resources.CPU.UnmarshalText([]byte("3")); err != nil {
			t.Fatal(err)
		}
	}
	answering(t, b, first)
	if err := b.c.Up(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if want := []string{"in turn model-digits"}; !slices.Equal(b.calls, want) {
		t.Errorf("replaced %q, want %q", b.calls, want)
	}
	if got := b.told(); !strings.Contains(got, "no room for two workers at once") {
		t.Errorf("events:\n%s", got)
	}
	// One that does not load gives the place back to the one before.
	third := b.upload(t, "three")
	third.Spec.Resources.CPU = second.Spec.Resources.CPU
	b.refuse = third.Spec.Source
	b.becomes(object.Running, "")
	if err := b.c.Up(t.Context(), third); err != nil {
		t.Fatal(err)
	}
	if st := b.status(); st.Source != second.Spec.Source || st.Update == nil || st.Update.Phase != object.Failed {
		t.Errorf("status %+v, update %+v", st, st.Update)
	}
	if running := b.Running(); len(running) != 1 || running["model-digits"].Mounts[1].Source != b.files.Path(second.Spec.Source) {
		t.Errorf("what runs: %+v", running)
	}
}

func TestRoutingNeedsNoOtherWorker(t *testing.T) {
	b := newBench(t)
	m := b.upload(t, "one")
	answering(t, b, m)
	routed := *m
	ten := 10
	routed.Spec.Traffic = &ten
	if err := b.c.Up(t.Context(), &routed); err != nil {
		t.Fatal(err)
	}
	if want := []string{"route 10 false"}; !slices.Equal(b.calls, want) {
		t.Errorf("calls %q, want %q", b.calls, want)
	}
}
