package boot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/release"
)

// onTrial is a PID 1 whose version has a counter, on a machine without disks.
func onTrial() *system {
	return &system{
		lasting: &lasting{good: make(chan struct{})}, log: &Log{}, began: time.Now(), program: &program{},
		boot: release.Facts{Slot: "root-b", Disk: "none", Image: "EFI/Linux/oscine_2+2-1.efi"}, daemon: &daemon{},
	}
}

// TestTrialPending holds that READY is not enough once the daemon says that it is
// checking, and that the checks get more time.
func TestTrialPending(t *testing.T) {
	s := onTrial()
	short := s.trialEnds()
	if got := s.tried(notified{1, release.Notification{Ready: true, Trial: release.TrialPending}}, true); got != release.RequestNone || s.marked() {
		t.Errorf("got %q, marked %t", got, s.marked())
	}
	if !s.pending || !s.trialEnds().After(short) {
		t.Error("the checks get no time of their own")
	}
	// A daemon that was restarted says READY again.
	s.tried(notified{1, release.Notification{Ready: true}}, true)
	if s.marked() {
		t.Error("marked by READY alone")
	}
}

// TestGiveUp holds that a version is not given up where there is nothing to go
// back to, nor after it was found good.
func TestGiveUp(t *testing.T) {
	s := onTrial()
	if got := s.tried(notified{1, release.Notification{Trial: release.TrialFailed, Status: "no network"}}, false); got != release.RequestNone {
		t.Errorf("without another version: got %q", got)
	}
	close(s.good)
	if s.giveUp("late") {
		t.Error("given up after it was found good")
	}
	dir := t.TempDir()
	own := release.Entry{Title: "oscine_2", Counted: true, Left: 2, Done: 1}
	for _, test := range []struct {
		file string
		want bool
	}{{"oscine_2+2-1.efi", false}, {"oscine_1+0-3.efi", false}, {"oscine_1.efi.staged", false}, {"other.efi", false}, {"oscine_1.efi", true}} {
		if err := os.WriteFile(filepath.Join(dir, test.file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := hasOther(dir, own); got != test.want {
			t.Errorf("with %s: got %t", test.file, got)
		}
	}
	// After a downgrade the newer version is the one put behind: it goes back there.
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "oscine_2.1+0-1.efi"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !hasOther(dir, own) {
		t.Error("a downgrade cannot go back to the newer version")
	}
	if newer := (release.Entry{Title: "oscine_3", Counted: true, Left: 2, Done: 1}); hasOther(dir, newer) {
		t.Error("an older version that failed counts")
	}
}

// TestBlind holds that a version on trial without its data partition is given up,
// and that one which has nothing to go back to, or is not on trial, goes on.
func TestBlind(t *testing.T) {
	for _, test := range []struct {
		data, image string
		want        bool
	}{
		{"", "EFI/Linux/oscine_2+2-1.efi", true}, {"vda4", "EFI/Linux/oscine_2+2-1.efi", false}, {"", "EFI/Linux/oscine_2.efi", false},
	} {
		s, file := onTrial(), filepath.Join(t.TempDir(), "log")
		if err := s.log.Keep(file); err != nil {
			t.Fatal(err)
		}
		s.boot.Data, s.boot.Image = test.data, test.image
		if s.blind() {
			t.Errorf("%+v: given up without another version", test)
		}
		s.log.Release()
		raw, err := os.ReadFile(file)
		if err != nil || strings.Contains(string(raw), "data partition is not mounted") != test.want {
			t.Errorf("%+v: got %q, %v", test, raw, err)
		}
	}
}

// TestKeptLog holds that what PID 1 says during a trial is on the disk, bounded,
// and ends with the trial.
func TestKeptLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	log := &Log{}
	keepLog(log, dir, "EFI/Linux/oscine_2+2-1.efi")
	log.Error("no slot %s", "fits")
	log.Release()
	log.Error("later")
	if err := log.Keep(filepath.Join(dir, release.BootLogFile)); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		log.keep(strings.Repeat("x", release.MaxBootLog/50))
	}
	log.Release()
	raw, err := os.ReadFile(filepath.Join(dir, release.BootLogFile))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(raw), "\n")
	if !strings.HasSuffix(lines[0], release.BootLogAttempt+"EFI/Linux/oscine_2+2-1.efi") || !strings.HasSuffix(lines[1], "] no slot fits") || strings.Contains(string(raw), "later") {
		t.Errorf("got %.300s", raw)
	}
	if len(raw) > release.MaxBootLog+100 {
		t.Errorf("%d bytes are kept", len(raw))
	}
}

func TestLastLines(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(file, []byte(strings.Repeat("line\n", 5000)+"the last\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := lastLines(file)
	if len(got) != tailLines || got[len(got)-1] != "the last" || got[0] != "line" {
		t.Errorf("got %d lines, %q … %q", len(got), got[0], got[len(got)-1])
	}
	if lastLines(file+"x") != nil {
		t.Error("lines of no file")
	}
}

// A machine whose data partition is locked waits for its key, however long its version
// is on trial.
func TestLockedOnTrial(t *testing.T) {
	for locked, want := range map[string]release.Request{"": release.RequestReboot, "another TPM": release.RequestPowerOff} {
		s := onTrial()
		s.boot.Locked, s.began = locked, time.Now().Add(-2*trialTimeout)
		s.signals = make(chan os.Signal, 1)
		s.signals <- unix.SIGTERM
		s.daemon = &daemon{log: s.log, proc: &scripted{}, limits: productLimits()}
		if got := s.loop(); got != want {
			t.Errorf("locked %q: got %q, want %q", locked, got, want)
		}
	}
}
