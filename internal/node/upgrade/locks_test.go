package upgrade

import (
	"errors"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/update/slot"
)

// TestNoReturn has an application change its data for good: it may not on trial, and
// older versions are refused afterwards.
func TestNoReturn(t *testing.T) {
	w := newWorld(t)
	w.failing["network"] = errors.New("no address")
	machine := manual()
	machine.Gate.Deadline = object.Duration(time.Hour)
	m := w.daemon(machine)
	m = w.upgraded(m, Request{}, machine)
	w.awaitStage(m, Trial)
	lock := Lock{Name: "db", By: "ci", Reason: "format 9", NoReturn: true}
	if err := m.AddLock(lock); !errors.Is(err, slot.ErrOnTrial) || len(m.Status().Locks) != 0 || m.Status().NoReturn != nil {
		t.Errorf("on trial: got %v, %+v", err, m.Status())
	}
	w.mu.Lock()
	delete(w.failing, "network")
	w.offered = append(w.offered, manifest("1.0"), manifest("1.2"))
	w.mu.Unlock()
	w.awaitStage(m, Good)

	// One that is armed already does not go on either.
	start(t, m, Request{To: "1.0", Options: Options{NotBefore: w.clock().Add(time.Hour)}})
	w.awaitStage(m, Armed)
	if err := m.AddLock(lock); err != nil {
		t.Fatal(err)
	}
	if err := m.RemoveLock("db"); err != nil {
		t.Fatal(err)
	}
	w.await("the point of no return", func() bool {
		u := m.Current()
		return u != nil && strings.Contains(u.Message, "db has changed its data for 1.1")
	})
	if _, err := m.Cancel("anna"); err != nil {
		t.Fatal(err)
	}
	m = w.daemon(machine) // it is kept
	for _, version := range []string{"1.0", "0.9"} {
		if _, err := m.Start(Request{To: version}); !errors.Is(err, ErrNoReturn) || !strings.Contains(err.Error(), "by ci: format 9") {
			t.Errorf("%s: got %v", version, err)
		}
		if _, err := m.Plan(t.Context(), Request{To: version}); !errors.Is(err, ErrNoReturn) {
			t.Errorf("plan %s: got %v", version, err)
		}
	}
	m = w.upgraded(m, Request{To: "1.2"}, machine)
	w.awaitStage(m, Good)
	if p := m.Status().NoReturn; p == nil || p.Version != "1.1" {
		t.Errorf("after a newer one: %+v", p)
	}
	m = w.upgraded(m, Request{To: "1.0", Options: Options{Force: true}}, machine)
	w.awaitStage(m, Good)
	if p := m.Status().NoReturn; p != nil {
		t.Errorf("it was forced, and still stands: %+v", p)
	}
	w.foreign = true
	if err := w.daemon(machine).AddLock(lock); !errors.Is(err, ErrNotHere) {
		t.Errorf("on another Linux: got %v", err)
	}
}
