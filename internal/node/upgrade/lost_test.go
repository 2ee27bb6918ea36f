package upgrade

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/slot"
)

// late is a node that restarts for upgrades at 13:00; it is 12:00.
func late() object.MachineUpdate {
	machine := manual()
	machine.Windows = []object.UpdateWindow{{Start: "13:00", Duration: object.Duration(time.Hour)}}
	return machine
}

// TestNoRestartUnrecorded has the disk refuse the record of the restart: there is
// none then, and one once it can be written.
func TestNoRestartUnrecorded(t *testing.T) {
	w := newWorld(t)
	m := w.daemon(late())
	start(t, m, Request{})
	w.await("the window", func() bool { u := m.current(); return u != nil && strings.Contains(u.Message, "for a window") })
	file := filepath.Join(w.dir, "upgrade.json")
	if err := errors.Join(os.Remove(file), os.MkdirAll(filepath.Join(file, "in the way"), 0o700)); err != nil {
		t.Fatal(err)
	}
	w.advance(61 * time.Minute)
	m.poke()
	w.await("the error", func() bool { u := m.current(); return u != nil && strings.Contains(u.Message, "write the state") })
	m.poke()
	if u := m.current(); u.Stage != Armed || u.Before != nil || len(w.reboots) != 0 || w.drained.Load() != 0 {
		t.Errorf("it is %+v, %d restarts", u, len(w.reboots))
	}
	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}
	m.poke()
	w.awaitReboot()
}

// TestUnrecordedVersionIsJudged starts the new version on trial where the disk
// knows of an earlier stage: it is checked all the same, and given up.
func TestUnrecordedVersionIsJudged(t *testing.T) {
	for _, stage := range []Stage{Downloading, Verified, Written, Armed, Rebooting, Trial} {
		w := newWorld(t)
		w.active, w.idle, w.good = slot.Version{Slot: "root-b", Version: "1.1", Health: slot.Trial, Running: true}, w.active, false
		w.failing["network"] = errors.New("no address")
		u := &Upgrade{Number: 1, From: "1.0", To: "1.1", Source: "x", Stage: stage, Manifest: w.offered[0]}
		if err := (&state{Number: 1, Current: u}).write(filepath.Join(w.dir, "upgrade.json")); err != nil {
			t.Fatal(err)
		}
		m := w.daemon(manual())
		if !m.Pending() {
			t.Errorf("%s: READY alone would mark it good", stage)
		}
		w.awaitBack()
		if _, idle := w.slots(); idle.Version != "1.0" || idle.Health != slot.Good {
			t.Errorf("%s: the version before is %s", stage, idle)
		}
		w.back()
		m = w.daemon(manual())
		if u := w.awaitStage(m, Failed); u.FailedStage != Trial || m.Status().Refused["1.1"].Reason == "" {
			t.Errorf("%s: got %+v", stage, u)
		}
		w.stop()
	}
}

// TestRefusalKeepsGood holds that what is refused, or fails before the slot is
// touched, costs nothing: the good version in the idle slot stays.
func TestRefusalKeepsGood(t *testing.T) {
	for name, test := range map[string]struct {
		change  func(*world, *Manager) error
		to      string
		atStart error
	}{
		"not offered": {nil, "7.7", nil},
		"signature": {func(w *world, _ *Manager) error {
			w.source = errors.New("the signature is wrong")
			return nil
		}, "1.1", nil},
		"no room": {func(w *world, _ *Manager) error { w.refused = slot.ErrNoRoom; return nil }, "1.1", nil},
		"held":    {func(_ *world, m *Manager) error { return m.Hold("freeze", "anna") }, "1.1", ErrHeld},
		"pinned":  {func(_ *world, m *Manager) error { return m.Pin("0.9") }, "1.1", ErrHeld},
		"unreachable": {func(w *world, _ *Manager) error {
			w.source = fmt.Errorf("%w: no route", update.ErrUnreachable)
			return nil
		}, "1.1", nil},
	} {
		w := newWorld(t)
		w.idle = slot.Version{Slot: "root-b", Version: "0.8", Health: slot.Good}
		m := w.daemon(manual())
		w.stop() // steps are made by hand
		if test.change != nil {
			if err := test.change(w, m); err != nil {
				t.Fatal(err)
			}
		}
		_, err := m.Start(Request{To: test.to})
		if !errors.Is(err, test.atStart) {
			t.Errorf("%s: got %v", name, err)
		}
		for i := 0; err == nil && i < 2*sourceTries && m.current() != nil; i++ {
			m.step(t.Context())
		}
		if _, idle := w.slots(); m.current() != nil || idle.Version != "0.8" || idle.Health != slot.Good {
			t.Errorf("%s: the idle slot holds %s, the upgrade is %+v", name, idle, m.current())
		}
	}
}

// TestNeverStarted has the boot loader start the version before again: the new one
// gets further restarts, not endless ones, and is not remembered as failed.
func TestNeverStarted(t *testing.T) {
	w := newWorld(t)
	m := w.daemon(manual())
	start(t, m, Request{})
	for range maxMissed + 1 {
		w.awaitReboot()
		w.stop()
		w.boot++
		m = w.daemon(manual())
	}
	u := w.awaitStage(m, Failed)
	if !strings.Contains(u.Message, "without starting it") || len(m.Status().Refused) != 0 {
		t.Errorf("got %+v, refused %v", u, m.Status().Refused)
	}
	start(t, m, Request{To: "1.1"})
	w.awaitReboot()
	// Its kernel image is lost with a power failure, before it was started.
	w.stop()
	w.boot++
	w.idle = slot.Version{Slot: "root-b", Health: slot.Empty}
	w.daemon(manual())
	w.awaitReboot()
	w.restart(true)
	m = w.daemon(manual())
	w.awaitStage(m, Good)
}

// TestBuiltOutlivesHistory holds that the time that is surely past is kept when the
// history has no good upgrade any more.
func TestBuiltOutlivesHistory(t *testing.T) {
	w := newWorld(t)
	m := w.daemon(manual())
	m = w.upgraded(m, Request{}, manual())
	w.awaitStage(m, Good)
	m.change(func(s *state) { s.History = nil })
	if m = w.daemon(manual()); !m.built().Equal(w.offered[0].Built) {
		t.Errorf("got %s", m.built())
	}
}

// TestKeepsBefore holds that how the node was is not overwritten by what a machine
// that has just restarted shows.
func TestKeepsBefore(t *testing.T) {
	w := newWorld(t)
	m := w.daemon(manual())
	start(t, m, Request{})
	w.awaitReboot()
	w.stop()
	w.boot++
	w.mu.Lock()
	w.running = nil
	w.mu.Unlock()
	m = w.daemon(manual())
	w.awaitReboot()
	if got := m.current().Before.Objects; len(got) != 1 || got[0] != "Workload/web" {
		t.Errorf("got %q", got)
	}
}

// TestLockAtTheLastMoment grants a lock while the node gets ready to restart: it
// does not.
func TestLockAtTheLastMoment(t *testing.T) {
	w := newWorld(t)
	m := w.daemon(manual())
	w.mu.Lock()
	w.looks = func() {
		if err := m.AddLock(Lock{Name: "training", By: "ci"}); err != nil {
			t.Errorf("the lock is refused: %v", err)
		}
	}
	w.mu.Unlock()
	start(t, m, Request{})
	w.await("the lock", func() bool { u := m.current(); return u != nil && strings.Contains(u.Message, "lock training") })
	if len(w.reboots) != 0 {
		t.Error("the machine restarts although a lock was granted")
	}
}

// TestExpiredLocksMakeRoom holds that only locks that are held count.
func TestExpiredLocksMakeRoom(t *testing.T) {
	w := newWorld(t)
	m := w.daemon(manual())
	for i := range maxLocks {
		if err := m.AddLock(Lock{Name: fmt.Sprint(i), Until: w.clock().Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.AddLock(Lock{Name: "more"}); err == nil {
		t.Error("one too many is granted")
	}
	if err := m.AddLock(Lock{Name: "0", Until: w.clock().Add(time.Hour)}); err != nil {
		t.Errorf("one of the same name is refused: %v", err)
	}
	w.advance(2 * time.Hour)
	if err := m.AddLock(Lock{Name: "more"}); err != nil || len(m.state.Locks) != 1 {
		t.Errorf("got %v, %d locks are kept", err, len(m.state.Locks))
	}
}
