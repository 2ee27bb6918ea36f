package model

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
)

// newer has the bench hold a newer version of the engine that runs.
func (b *bench) newer(name string) {
	p := pack.Info{Manifest: pack.Manifest{Name: "engine", Version: name}, Digest: "sha256:" + name}
	b.packs, b.newest, b.stays = []pack.Info{p}, &p, ""
}

// move has the model look for a newer version of its pack.
func (b *bench) move(t *testing.T) (again bool) {
	t.Helper()
	wait, err := b.c.(*controller).move(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return wait > 0
}

func (b *bench) runsOn(t *testing.T, root string) {
	t.Helper()
	if running := b.Running(); len(running) != 1 || running["model-digits"].RootFS != root {
		t.Errorf("what runs: %+v, want from %s", running, root)
	}
}

func TestMoveToNewerPack(t *testing.T) {
	b := newBench(t)
	answering(t, b, b.upload(t, "one"))
	if b.move(t) || len(b.calls) > 0 {
		t.Errorf("without a newer version: %q", b.calls)
	}
	b.newer("two")
	if b.move(t) {
		t.Error("it is to be tried again")
	}
	if want := []string{"beside guest-digits", "beside model-digits"}; !slices.Equal(b.calls, want) || !slices.Equal(b.same, []bool{true, false}) {
		t.Errorf("replaced %q, held to the same answers %v", b.calls, b.same)
	}
	b.runsOn(t, "/packs/two")
	if st := b.status(); st.Pack != "sha256:two" || st.PackUpdate != nil || st.Phase != object.Running || !strings.Contains(st.Candidates[0].Reason, "took the place") {
		t.Errorf("status %+v, %+v", st, st.PackUpdate)
	}
	if !slices.Equal(b.left, []string{"Model/digits sha256:two"}) || !strings.Contains(b.told(), "PackUpgraded: runs on the pack two two") {
		t.Errorf("left %q, events:\n%s", b.left, b.told())
	}
	if b.move(t) || len(b.calls) != 2 {
		t.Errorf("once more: %q", b.calls)
	}
}

func TestNewerPackThatFails(t *testing.T) {
	b := newBench(t)
	answering(t, b, b.upload(t, "one"))
	b.newer("two")
	b.refuse = "/packs/two"
	for range 2 {
		if b.move(t) {
			t.Error("it is to be tried again")
		}
	}
	b.runsOn(t, "/packs/engine")
	st := b.status()
	if st.Pack != "sha256:engine" || st.Phase != object.Running || st.PackUpdate == nil || st.PackUpdate.Phase != object.Failed || !strings.Contains(st.PackUpdate.Message, "not a model") {
		t.Errorf("status %+v, %+v", st, st.PackUpdate)
	}
	if b.stays != "not a model" || len(b.calls) != 1 || strings.Count(b.told(), "PackNotUpgraded: it does not run on the pack engine two: not a model") != 1 {
		t.Errorf("it stays because of %q, replaced %q, events:\n%s", b.stays, b.calls, b.told())
	}

	// One that the daemon finds again says why still.
	b.packs = []pack.Info{{Manifest: pack.Manifest{Name: "engine"}, Digest: "sha256:engine"}}
	b.restarted(t)
	if st := b.status(); st.PackUpdate == nil || !strings.Contains(st.PackUpdate.Message, "not a model") || b.chosen.User != "Model/digits" {
		t.Errorf("after a restart: %+v, asked as %q", st.PackUpdate, b.chosen.User)
	}

	// The next version is another chance; one that does not read the model is none.
	b.newer("three")
	b.packs = nil
	if b.move(t); !strings.Contains(b.stays, "does not read the model") {
		t.Errorf("it stays because of %q", b.stays)
	}
	b.newer("four")
	b.move(t)
	b.runsOn(t, "/packs/four")
}

// restarted brings the model up in the next daemon, while its worker runs.
func (b *bench) restarted(t *testing.T) {
	t.Helper()
	m := b.c.(*controller).live.model
	b.locked(func() { b.served = nil })
	b.c = b.next(digits)
	answering(t, b, m)
}

// Without room the model stays until there is some, or until it starts again.
func TestMoveWithoutRoom(t *testing.T) {
	b := newBench(t)
	m := b.upload(t, "one")
	if err := m.Spec.Resources.CPU.UnmarshalText([]byte("3")); err != nil {
		t.Fatal(err)
	}
	answering(t, b, m)
	b.newer("two")
	for range 2 {
		if !b.move(t) {
			t.Error("it is not to be tried again")
		}
	}
	b.runsOn(t, "/packs/engine")
	if st := b.status(); st.PackUpdate == nil || st.PackUpdate.Phase != object.Waiting || strings.Count(b.told(), "PackNotUpgraded") != 1 || !strings.Contains(b.told(), "oscine restart model digits") || b.stays != "" {
		t.Errorf("%+v, events:\n%s", st.PackUpdate, b.told())
	}

	// It starts again: nobody waits for it yet.
	b.packs = []pack.Info{{Manifest: pack.Manifest{Name: "engine"}, Digest: "sha256:engine"}}
	if err := b.c.Halt(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	answering(t, b, m)
	b.newer("two")
	if b.move(t) {
		t.Error("it is to be tried again")
	}
	b.runsOn(t, "/packs/two")
	if want := []string{"in turn model-digits"}; !slices.Equal(b.calls, want) || !slices.Equal(b.same, []bool{true}) {
		t.Errorf("replaced %q, %v", b.calls, b.same)
	}

	// In turn, too, the older version has the place again where the newer fails.
	b.newer("three")
	b.c.(*controller).fresh = true
	b.refuse = "/packs/three"
	b.move(t)
	b.runsOn(t, "/packs/two")
	if st := b.status(); st.PackUpdate == nil || st.PackUpdate.Phase != object.Failed {
		t.Errorf("%+v", st.PackUpdate)
	}
}

// A model with states waits for the ends of its sequences, and one moves at a time.
func TestMoveWaits(t *testing.T) {
	b := newBench(t)
	answering(t, b, b.upload(t, "one"))
	b.newer("two")
	b.locked(func() { b.serving.Fill = func(st *object.ModelStatus) { st.Sequences = 2 } })
	if !b.move(t) || len(b.calls) > 0 || !strings.Contains(b.told(), "2 sequences are under way") {
		t.Errorf("replaced %q, events:\n%s", b.calls, b.told())
	}
	b.locked(func() { b.serving.Fill = func(*object.ModelStatus) {} })
	b.options.Moving <- struct{}{}
	if !b.move(t) || len(b.calls) > 0 {
		t.Errorf("while another one moves: %q", b.calls)
	}
	<-b.options.Moving
	b.noMount = pack.ErrDamaged
	if !b.move(t) || b.stays != "" {
		t.Errorf("a damaged newer version: it stays because of %q", b.stays)
	}
	b.noMount = nil
	b.move(t)
	b.runsOn(t, "/packs/two")
}

// Attend moves it; another manifest comes first.
func TestAttendMoves(t *testing.T) {
	b := newBench(t)
	first, second := b.upload(t, "one"), b.upload(t, "two")
	answering(t, b, first)
	b.newer("two")
	ctx, cancel := context.WithCancel(t.Context())
	b.replaced = func(id string) {
		if id == "guest-digits" {
			cancel()
		}
	}
	if err := b.c.Attend(ctx, first); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	b.replaced = nil
	if err := b.c.Up(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	b.runsOn(t, "/packs/two")
	if st := b.status(); st.Source != second.Spec.Source || st.Pack != "sha256:two" {
		t.Errorf("status %+v", st)
	}
}
