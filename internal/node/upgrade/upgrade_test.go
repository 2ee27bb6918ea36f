package upgrade

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/slot"
)

// manual is a node whose releases come from somewhere, when a person asks.
func manual() object.MachineUpdate {
	return object.MachineUpdate{Source: "https://releases.example.com", Gate: object.UpdateGate{Deadline: object.Duration(500 * time.Millisecond)}}
}

func start(t *testing.T, m *Manager, r Request) *Upgrade {
	t.Helper()
	u, err := m.Start(r)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// upgraded starts an upgrade and returns the daemon of the version that then runs.
func (w *world) upgraded(m *Manager, r Request, machine object.MachineUpdate) *Manager {
	w.t.Helper()
	start(w.t, m, r)
	w.awaitReboot()
	w.restart(true)
	return w.daemon(machine)
}

func TestUpgrade(t *testing.T) {
	w := newWorld(t)
	w.offered[0].Floor = "1.0"
	m := w.daemon(manual())
	if m.Pending() {
		t.Error("pending before anything was asked for")
	}
	start(t, m, Request{By: "anna"})
	w.awaitReboot()
	if _, idle := w.slots(); w.drained.Load() != 1 || idle.Health != slot.Trial {
		t.Errorf("drained %d times, the idle slot is %s", w.drained.Load(), idle.Health)
	}
	w.restart(true)
	m = w.daemon(manual())
	if !m.Pending() && m.Status().Current != nil && m.Status().Current.Stage != Good {
		t.Error("READY alone would mark the new version good")
	}
	u := w.awaitStage(m, Good)
	if u.From != "1.0" || u.To != "1.1" || u.By != "anna" || u.Slot != "root-b" {
		t.Errorf("got %+v", u)
	}
	if !w.good || m.Status().Floor != "1.0" {
		t.Errorf("good %t, floor %q", w.good, m.Status().Floor)
	}
	w.await("the events", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.Equal(w.notes, []string{"UpgradeStarted", "UpgradeReady", "UpgradeRebooting", "Upgraded"})
	})
	if _, err := m.Start(Request{To: "0.9"}); err != nil {
		t.Fatal(err)
	}
	if u := w.awaitStage(m, Failed); !strings.Contains(u.Message, "older than this node accepts") || u.FailedStage != Downloading {
		t.Errorf("below the floor: got %+v", u)
	}
}

// TestPending holds what init has to be told with READY.
func TestPending(t *testing.T) {
	w := newWorld(t)
	w.failing["network"] = errors.New("no address")
	machine := manual()
	machine.Gate.Deadline = object.Duration(time.Hour)
	m := w.daemon(machine)
	m = w.upgraded(m, Request{}, machine)
	if !m.Pending() {
		t.Error("a version on trial with checks to pass: not pending")
	}
	w.awaitStage(m, Trial)
	m = w.daemon(machine) // it crashed
	if !m.Pending() {
		t.Error("after a restart of the daemon: not pending")
	}
	w.mu.Lock()
	delete(w.failing, "network")
	w.mu.Unlock()
	w.awaitStage(m, Good)
	if m.Pending() {
		t.Error("good, and still pending")
	}
}

// TestGateFails goes back, remembers why, and refuses the version until forced.
func TestGateFails(t *testing.T) {
	for _, check := range []string{"network", "Workload/web"} {
		w := newWorld(t)
		w.failing[check] = errors.New("it is gone")
		m := w.daemon(manual())
		w.upgraded(m, Request{}, manual())
		if why := w.awaitBack(); !strings.Contains(why, check+": it is gone") {
			t.Errorf("PID 1 was told %q", why)
		}
		if w.good {
			t.Error("marked good")
		}
		w.back()
		m = w.daemon(manual())
		u := w.awaitStage(m, Failed)
		if u.FailedStage != Trial || !strings.Contains(u.Message, "its checks: not passed within 500ms: "+check) {
			t.Errorf("got %+v", u)
		}
		if _, err := m.Start(Request{To: "1.1"}); !errors.Is(err, ErrFailedBefore) || !strings.Contains(err.Error(), check) {
			t.Errorf("again: got %v", err)
		}
		if _, err := m.Start(Request{}); err != nil { // the newest is found only later
			t.Fatal(err)
		}
		if u := w.awaitStage(m, Failed); u.FailedStage != Downloading || !strings.Contains(u.Message, "failed here before") {
			t.Errorf("again, unnamed: got %+v", u)
		}
		w.mu.Lock()
		delete(w.failing, check)
		w.mu.Unlock()
		m = w.upgraded(m, Request{To: "1.1", Options: Options{Force: true}}, manual())
		w.awaitStage(m, Good)
		if len(m.Status().Refused) != 0 {
			t.Errorf("still refused: %v", m.Status().Refused)
		}
	}
}

// TestRot has a version fail after it was found good: that is told once, and the
// version is not gone to again.
func TestRot(t *testing.T) {
	w := newWorld(t)
	m := w.daemon(manual())
	w.awaitStage(w.upgraded(m, Request{}, manual()), Good)
	w.back()
	for range 2 {
		m = w.daemon(manual())
		w.await("the refusal", func() bool { return strings.Contains(m.Status().Refused["1.1"].Reason, "has failed since") })
	}
	w.stop()
	if n := strings.Count(strings.Join(w.notes, " "), "UpgradeReverted"); n != 1 {
		t.Errorf("told %d times: %q", n, w.notes)
	}
}

// TestDoesNotBoot has the new version fail before its daemon runs, with and
// without last words.
func TestDoesNotBoot(t *testing.T) {
	for want, log := range map[string]string{
		"did not get as far as its data partition": "",
		"it was started 2 times and ended without": "[    1.0] boot of x\n[    2.0] slot root-b\n[    1.0] boot of x\n",
		"oscined ended 2 times":                    "[    1.0] boot of x\n[    9.0] oscine_1.1+2-1.efi fails its trial: oscined ended 2 times\n[    9.1] it is given up\n",
		"no slot holds the root":                   "[    1.0] boot of x\n[    2.0] cannot start the system: no slot holds the root\n",
	} {
		w := newWorld(t)
		m := w.daemon(manual())
		start(t, m, Request{})
		w.awaitReboot()
		w.restart(false)
		if log != "" {
			if err := os.WriteFile(filepath.Join(w.dir, release.BootLogFile), []byte(log), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		m = w.daemon(manual())
		if m.Pending() {
			t.Error("the old version is judged")
		}
		u := w.awaitStage(m, Failed)
		if u.FailedStage != Trial || !strings.Contains(u.Message, want) || u.Boots != strings.Count(log, "boot of") {
			t.Errorf("want %q: got %+v", want, u)
		}
		if log != "" && len(u.Log) == 0 {
			t.Error("the log is lost")
		}
		if _, ok := m.Status().Refused["1.1"]; !ok {
			t.Error("it is not remembered")
		}
		w.await("the log to be removed", func() bool {
			_, err := os.Stat(filepath.Join(w.dir, release.BootLogFile))
			return errors.Is(err, os.ErrNotExist)
		})
	}
}

// TestPowerFailsAtEachStage starts machine or daemon again with the state of each
// stage on the disk: the upgrade goes on and ends well.
func TestPowerFailsAtEachStage(t *testing.T) {
	for _, stage := range []Stage{Downloading, Verified, Written, Armed, Rebooting} {
		for _, staged := range []bool{true, false} {
			for _, sameBoot := range []bool{true, false} {
				w := newWorld(t)
				u := &Upgrade{Number: 1, From: "1.0", To: "1.1", Source: "x", Stage: stage, BootID: "0", Manifest: w.offered[0], Before: &Before{}}
				if staged {
					w.idle = slot.Version{Slot: "root-b", Version: "1.1", Health: slot.Staged}
				}
				if err := (&state{Number: 1, Current: u}).write(filepath.Join(w.dir, "upgrade.json")); err != nil {
					t.Fatal(err)
				}
				if !sameBoot {
					w.boot++
				}
				w.daemon(manual())
				name := fmt.Sprintf("%s, staged %t, same boot %t", stage, staged, sameBoot)
				if stage == Rebooting && !staged && sameBoot {
					continue // the machine has yet to restart
				}
				w.awaitReboot()
				w.restart(true)
				m := w.daemon(manual())
				if got := w.awaitStage(m, Good); got.To != "1.1" {
					t.Errorf("%s: got %+v", name, got)
				}
				w.stop()
			}
		}
	}
}

// TestUnreadableState goes on without what was known.
func TestUnreadableState(t *testing.T) {
	w := newWorld(t)
	if err := os.WriteFile(filepath.Join(w.dir, "upgrade.json"), []byte(`{"current": {"stage`), 0o600); err != nil {
		t.Fatal(err)
	}
	m := w.daemon(manual())
	if m.Pending() || m.Status().Current != nil {
		t.Error("something is known")
	}
	start(t, m, Request{})
	w.awaitReboot()
}

// TestWaits holds an upgrade back by everything that can, and lets it go on.
func TestWaits(t *testing.T) {
	w := newWorld(t)
	machine := manual()
	machine.Windows = []object.UpdateWindow{{Start: "13:00", Duration: object.Duration(time.Hour)}}
	m := w.daemon(machine)
	if err := m.AddLock(Lock{Name: "training", Reason: "epoch 7", By: "ci", Until: w.now.Add(3 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	start(t, m, Request{Options: Options{NotBefore: w.now.Add(30 * time.Minute), DownloadOnly: true}})
	says := func(want string) {
		t.Helper()
		m.poke()
		w.await(want, func() bool { u := m.current(); return u != nil && strings.Contains(u.Message, want) })
	}
	says("only the download")
	if err := m.Pin("1.0"); err != nil { // after the download
		t.Fatal(err)
	}
	says("the version is pinned to 1.0")
	if err := m.Pin(""); err != nil {
		t.Fatal(err)
	}
	says("only the download")
	if _, err := m.Start(Request{To: "0.9"}); !errors.Is(err, ErrBusy) {
		t.Errorf("another: got %v", err)
	}
	if _, err := m.Start(Request{Options: Options{NotBefore: w.now.Add(30 * time.Minute)}}); err != nil {
		t.Fatal(err)
	}
	says("until 2026-11-28 12:30:00 UTC")
	w.advance(31 * time.Minute)
	says("for a window")
	w.advance(30 * time.Minute)
	says("lock training is held by ci: epoch 7")
	// A restart of the machine, with a clock that was never set, changes nothing.
	w.restart(true)
	w.advance(-56 * 365 * 24 * time.Hour)
	m = w.daemon(machine)
	says("waits")
	w.advance(56 * 365 * 24 * time.Hour)
	says("lock training")
	if err := m.RemoveLock("training"); err != nil {
		t.Fatal(err)
	}
	if err := m.RemoveLock("training"); !errors.Is(err, ErrNoLock) {
		t.Errorf("twice: got %v", err)
	}
	w.awaitReboot()
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func TestOverrides(t *testing.T) {
	w := newWorld(t)
	machine := manual()
	machine.Windows = []object.UpdateWindow{{Start: "23:00", Duration: object.Duration(time.Hour)}}
	m := w.daemon(machine)
	if err := m.AddLock(Lock{Name: "training"}); err != nil {
		t.Fatal(err)
	}
	start(t, m, Request{Options: Options{Anytime: true, OverrideLocks: true}})
	w.awaitReboot()
	if err := m.AddLock(Lock{Name: "late"}); !errors.Is(err, ErrTooLate) {
		t.Errorf("a lock while it restarts: got %v", err)
	}
	if _, err := m.Cancel("anna"); !errors.Is(err, ErrTooLate) {
		t.Errorf("cancel while it restarts: got %v", err)
	}
}

func TestHoldAndPin(t *testing.T) {
	w := newWorld(t)
	m := w.daemon(manual())
	if err := m.Hold("freeze", "anna"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Start(Request{}); !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "freeze") {
		t.Errorf("held: got %v", err)
	}
	if err := errors.Join(m.Unhold(), m.Pin("0.9")); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Start(Request{To: "1.1"}); !errors.Is(err, ErrHeld) {
		t.Errorf("pinned: got %v", err)
	}
	start(t, m, Request{})
	w.awaitReboot()
	if _, idle := w.slots(); idle.Version != "0.9" {
		t.Errorf("went to %s, not to the pinned version", idle.Version)
	}
}

func TestCancel(t *testing.T) {
	w := newWorld(t)
	m := w.daemon(manual())
	if _, err := m.Cancel("anna"); !errors.Is(err, ErrNothing) {
		t.Errorf("nothing: got %v", err)
	}
	start(t, m, Request{Options: Options{DownloadOnly: true}})
	w.awaitStage(m, Armed)
	u, err := m.Cancel("anna")
	if err != nil || u.Stage != Cancelled {
		t.Fatalf("got %+v, %v", u, err)
	}
	w.await("the kernel image to go", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.idle.Health == slot.Empty })
	if len(m.Status().Refused) != 0 {
		t.Error("a cancelled version is refused")
	}
}

// TestPolicy goes to a new release by itself, and not again to one that failed.
func TestPolicy(t *testing.T) {
	w := newWorld(t)
	machine := manual()
	machine.Policy = object.UpdateAuto
	w.daemon(machine)
	w.awaitReboot()
	w.restart(false)
	m := w.daemon(machine)
	u := w.awaitStage(m, Failed)
	if u.By != "policy" {
		t.Errorf("by %q", u.By)
	}
	w.mu.Lock()
	w.offered = append([]*update.Manifest{manifest("1.2")}, w.offered...)
	w.mu.Unlock()
	w.daemon(machine)
	w.awaitReboot()
	if _, idle := w.slots(); idle.Version != "1.2" {
		t.Errorf("went to %s", idle.Version)
	}
	w = newWorld(t)
	machine.Policy = object.UpdateDownload
	m = w.daemon(machine)
	if u := w.awaitStage(m, Armed); !u.Options.DownloadOnly {
		t.Errorf("got %+v", u)
	}
}

func TestRefusedAtOnce(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*world)
		want   error
	}{
		"on trial":      {func(w *world) { w.active.Health = slot.Trial }, slot.ErrOnTrial},
		"no source":     {func(*world) {}, ErrNoSource},
		"another Linux": {func(w *world) { w.foreign = true }, ErrNotHere},
		"no data":       {func(w *world) { w.noData = true }, ErrNoData},
	} {
		w := newWorld(t)
		test.change(w)
		m := w.daemon(object.MachineUpdate{})
		if _, err := m.Start(Request{}); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	m := newWorld(t).daemon(manual())
	if _, err := m.Start(Request{Source: "stick:"}); !errors.Is(err, errdefs.ErrInvalidArgument) || m.current() != nil {
		t.Errorf("a source that is none: got %v, %+v", err, m.current())
	}
	for to, want := range map[string]string{"7.7": "no such release is offered", "1.0": "runs already"} {
		w := newWorld(t)
		w.offered = append(w.offered, manifest("1.0"))
		m := w.daemon(manual())
		start(t, m, Request{To: to})
		u := w.awaitStage(m, Failed)
		if _, idle := w.slots(); !strings.Contains(u.Message, want) || idle.Health != slot.Empty {
			t.Errorf("%s: got %+v", to, u)
		}
	}
}

// TestStateIsBounded holds that history and refusals are bounded.
func TestStateIsBounded(t *testing.T) {
	s := &state{}
	for i := range 3 * maxHistory {
		s.Current = &Upgrade{Number: i}
		s.end(Failed, "x", time.Unix(int64(i), 0))
		s.refuse(fmt.Sprint(i), "x", time.Unix(int64(i), 0))
	}
	if len(s.History) != maxHistory || len(s.Refused) != maxRefused || s.Refused["149"].Reason != "x" {
		t.Errorf("%d upgrades, %d refusals", len(s.History), len(s.Refused))
	}
}

// What the ESP had lost is reported once it was written again, and only after the
// running version was found good.
func TestRepairIsReported(t *testing.T) {
	w := newWorld(t)
	w.damaged, w.loader, w.good = []string{"EFI/BOOT/BOOTX64.EFI"}, slot.LoaderStaged, false
	noted := func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.Contains(w.notes, "ESPRepaired") && slices.Contains(w.notes, "BootLoaderStaged")
	}
	m := w.daemon(object.MachineUpdate{})
	time.Sleep(50 * time.Millisecond)
	if noted() {
		t.Error("it was repaired before the version was found good")
	}
	w.mu.Lock()
	w.good = true
	w.mu.Unlock()
	m.poke()
	w.await("the repair to be reported", noted)
}
