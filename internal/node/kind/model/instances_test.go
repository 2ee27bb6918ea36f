package model

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
)

// startAll starts the workers of what is served.
func (b *bench) startAll(t *testing.T) (workers []*Worker, errs []error) {
	t.Helper()
	for _, in := range b.served.Instances {
		w, err := in.Start(t.Context())
		workers, errs = append(workers, w), append(errs, err)
	}
	return workers, errs
}

// Each instance has its own container, socket, CPUs and memory, and all of it is
// given back with the model.
func TestInstances(t *testing.T) {
	b := newBench(t)
	m := b.upload(t, "a model")
	m.Spec.Instances, m.Spec.Resources.CPU, m.Spec.Resources.Memory = 3, memory(t, "500m"), memory(t, "100Mi")
	if err := b.c.Up(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	sockets := map[string]bool{}
	workers, errs := b.startAll(t)
	for i, w := range workers {
		if errs[i] != nil {
			t.Fatalf("instance %d: %v", i, errs[i])
		}
		sockets[w.Socket()] = true
	}
	running := b.Running()
	if got, want := slices.Sorted(maps.Keys(running)), []string{"model-digits", "model2-digits", "model3-digits"}; !slices.Equal(got, want) || len(sockets) != 3 {
		t.Errorf("running %q, %d sockets", got, len(sockets))
	}
	for id, spec := range running {
		if spec.Hostname != "digits" || spec.Limits.MemoryBytes != 100<<20 || !strings.HasSuffix(spec.CgroupPath, "/"+id) {
			t.Errorf("%s: %+v", id, spec)
		}
	}
	if !strings.Contains(b.served.Instances[2].ID, "model3") || len(b.served.Instances[2].CPUs) == 0 {
		t.Errorf("got %+v", b.served.Instances)
	}
	// The server's count of them is completed by what is known here.
	b.locked(func() {
		b.serving = Serving{Phase: object.Running, Fill: func(st *object.ModelStatus) { st.Instances = make([]object.ModelInstance, 3) }}
	})
	if st := b.status(); len(st.Instances) != 3 || st.Instances[1].PID == 0 || st.Instances[2].Placement == nil || st.Instances[0].PID != st.PID {
		t.Errorf("got %+v", st)
	}
	// With fewer, what the last one had is free.
	fewer := b.upload(t, "a model")
	fewer.Spec.Instances, fewer.Spec.Resources.CPU, fewer.Spec.Resources.Memory = 2, memory(t, "500m"), memory(t, "100Mi")
	var room map[string][]int // what was held when others were woken last
	b.Sandbox.Freed = func() { room = b.Placer.Shared() }
	if err := b.c.Up(t.Context(), fewer); err != nil {
		t.Fatal(err)
	}
	if len(room) != 2 {
		t.Errorf("others are woken while these hold their places: %v", room)
	}
	for _, left := range b.Left() {
		if strings.Contains(left, "model3-") || strings.Contains(left, "guest") {
			t.Errorf("%s is left", left)
		}
	}
	if b.Placer.Shared()["model2-digits"] == nil || b.Placer.Shared()["model3-digits"] != nil {
		t.Errorf("placed: %v", b.Placer.Shared())
	}
	if err := b.c.Remove(t.Context(), fewer); err != nil {
		t.Fatal(err)
	}
	if left := b.Left(); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
}

// A model is served with the instances that fit; the others start when there is room.
func TestInstancesThatFit(t *testing.T) {
	b := newBench(t)
	m := b.upload(t, "a model")
	m.Spec.Instances, m.Spec.Resources.CPU, m.Spec.Resources.Memory = 3, memory(t, "500m"), memory(t, "400Mi")
	if err := b.c.Up(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	_, errs := b.startAll(t)
	if errs[0] != nil || errs[1] != nil || !reconcile.IsRefused(errs[2]) || !strings.Contains(errs[2].Error(), "memory") {
		t.Errorf("got %v, want the third refused", errs)
	}
	if err := b.Sandbox.Remove(t.Context(), object.InstanceKey(digits, 1), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := b.served.Instances[2].Start(t.Context()); err != nil {
		t.Errorf("with room: %v", err)
	}
	// Where not even one fits it is refused.
	large := b.upload(t, "another model")
	large.Metadata.Name, large.Spec.Instances, large.Spec.Resources.Memory = "second", 2, memory(t, "2Gi")
	if err := b.next(object.Key{Kind: object.KindModel, Name: "second"}).Up(t.Context(), large); !reconcile.IsRefused(err) {
		t.Errorf("got %v", err)
	}
}

// All instances of a model on demand give back their places.
func TestInstancesOnDemand(t *testing.T) {
	b := newBench(t)
	m := b.upload(t, "a model")
	m.Spec.Instances, m.Spec.Load = 2, object.LoadOnDemand
	if err := b.c.Up(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if shared := b.Placer.Shared(); len(shared) > 0 {
		t.Errorf("placed before a request: %v", shared)
	}
	workers, errs := b.startAll(t)
	if errs[0] != nil || errs[1] != nil || len(b.Placer.Shared()) != 2 {
		t.Fatalf("%v, placed: %v", errs, b.Placer.Shared())
	}
	// The next daemon finds the second one.
	if err := workers[0].Kill(); err != nil {
		t.Fatal(err)
	}
	next := b.next(digits)
	if err := next.Up(t.Context(), m); err != nil || !b.served.LoadNow {
		t.Errorf("%v, %+v", err, b.served)
	}
	if err := workers[1].Kill(); err != nil {
		t.Fatal(err)
	}
	for _, in := range b.served.Instances {
		in.Unloaded()
	}
	if shared := b.Placer.Shared(); len(shared) > 0 {
		t.Errorf("placed after it was unloaded: %v", shared)
	}
	if err := next.Remove(context.WithoutCancel(t.Context()), nil); err != nil || len(b.Left()) > 0 {
		t.Errorf("%v, %q is left", err, b.Left())
	}
}

// A model whose first instance has lost its place is served by fewer: the last one
// gives its place to the first.
func TestFirstInstanceLosesItsPlace(t *testing.T) {
	b := newBench(t)
	m := b.upload(t, "a model")
	m.Spec.Instances, m.Spec.Resources.CPU, m.Spec.Resources.Memory = 3, memory(t, "500m"), memory(t, "300Mi")
	if err := b.c.Up(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	workers, errs := b.startAll(t)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if err := b.c.Stop(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	for _, w := range workers[:2] { // the third goes on, as after a restart of the daemon
		if err := w.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	b.Placer.Release(digits.ID())
	taken := b.upload(t, "another model")
	taken.Metadata.Name, taken.Spec.Resources.Memory = "second", memory(t, "300Mi")
	if _, err := b.Placer.LendTo(t.Context(), taken); err != nil {
		t.Fatal(err)
	}
	if err := b.c.Up(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	_, errs = b.startAll(t)
	if errs[0] != nil || errs[1] != nil || !reconcile.IsRefused(errs[2]) {
		t.Errorf("got %v, want the third refused", errs)
	}
	if got, want := slices.Sorted(maps.Keys(b.Running())), []string{"model-digits", "model2-digits"}; !slices.Equal(got, want) {
		t.Errorf("running %q, want %q", got, want)
	}
	// What has no room at all holds nothing.
	m.Spec.Resources.Memory = memory(t, "2Gi")
	if err := b.c.Stop(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := b.c.Up(t.Context(), m); !reconcile.IsRefused(err) {
		t.Errorf("got %v, want it refused", err)
	}
	for id := range b.Placer.Shared() {
		if id != taken.Key().ID() && id != digits.ID() {
			t.Errorf("%s holds a place", id)
		}
	}
}
