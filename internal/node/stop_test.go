package node

import (
	"errors"
	"testing"

	"oscine.dev/oscine/internal/object"
)

// A stopped workload holds nothing but its object and its host ports.
func TestStopAndStart(t *testing.T) {
	h := newHouse(t)
	spec := ", ports: [{port: 80, hostPort: 8080}], resources: {cpu: '6'}, class: realtime"
	if err := h.apply(t, "web", spec); err != nil {
		t.Fatal(err)
	}
	h.await(t, web(), object.Running)
	if err := h.Stop(t.Context(), web()); err != nil {
		t.Fatal(err)
	}
	h.await(t, web(), object.Stopped)
	if left := h.box.Left(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if err := h.apply(t, "thief", ", ports: [{port: 80, hostPort: 8080}]"); !errors.Is(err, ErrInvalid) {
		t.Errorf("its port is given away: %v", err)
	}
	if err := h.apply(t, "other", ", resources: {cpu: '6'}, class: realtime"); err != nil {
		t.Fatal(err)
	}
	h.await(t, object.Key{Kind: object.KindWorkload, Name: "other"}, object.Running)
	if err := h.Start(t.Context(), web()); err != nil {
		t.Fatal(err)
	}
	h.await(t, web(), object.Unplaced) // its CPUs are another's now
	if err := h.Stop(t.Context(), object.Key{Kind: object.KindWorkload, Name: "other"}); err != nil {
		t.Fatal(err)
	}
	h.await(t, web(), object.Running) // and its own again, once they are free
	if err := h.Restart(t.Context(), web()); err != nil {
		t.Fatal(err)
	}
	h.await(t, web(), object.Running)
	if err := h.Stop(t.Context(), object.Key{Kind: object.KindSecret, Name: "s"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("stop a Secret: %v", err)
	}
	if err := errors.Join(h.Delete(t.Context(), web()), h.Delete(t.Context(), object.Key{Kind: object.KindWorkload, Name: "other"})); err != nil {
		t.Error(err)
	}
}
