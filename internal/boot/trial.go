package boot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
)

// stateDir is the daemon's state folder, below /var.
const stateDir = "lib/oscine"

const (
	// trialTimeout is how long a system on trial has to become READY.
	trialTimeout = 10 * time.Minute
	// gateTimeout is how long it has once the daemon said that it is checking: the
	// daemon has a deadline of its own, which is shorter.
	gateTimeout = 2 * time.Hour
	// trialFailures is how often the daemon may end during a trial. It sends signs
	// of life, and is aborted when they stay out: one that hangs ends too.
	trialFailures = 2
	// tailLines is how many of the daemon's last lines are kept when it ends.
	tailLines = 40
	tailBytes = 16 << 10
)

// keepLog has log kept in the state folder dir, with a line that names the boot.
func keepLog(log *Log, dir, image string) {
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = log.Keep(filepath.Join(dir, release.BootLogFile))
	}
	if err != nil {
		log.Error("the log of this boot is not kept: %v", err)
		return
	}
	log.keep(release.BootLogAttempt + image)
}

// onTrial reports that the running version has yet to prove itself.
func (s *system) onTrial() bool { return s.boot.Counted() && !s.marked() }

// trialEnds is when the patience with a version on trial ends.
func (s *system) trialEnds() time.Time {
	if s.pending {
		return s.began.Add(gateTimeout)
	}
	return s.began.Add(trialTimeout)
}

// tried takes what the daemon says of the trial, and returns what is to be done
// with the machine.
func (s *system) tried(n notified, ready bool) release.Request {
	s.pending = s.pending || n.Trial == release.TrialPending
	switch {
	case n.Trial == release.TrialGood, ready && !s.pending:
		background(s.log, "mark the slot good", s.markGood)
	case n.Trial == release.TrialFailed && s.onTrial() && s.giveUp("its checks failed: "+n.Status):
		return release.RequestReboot
	}
	return release.RequestNone
}

// daemonEnded counts the ends of the daemon during a trial and keeps its last
// words.
func (s *system) daemonEnded() {
	if !s.onTrial() || s.daemon.stopping {
		return
	}
	s.failures++
	s.program.waitOutput(time.Second)
	for _, line := range lastLines(daemonOutput) {
		s.log.keep("oscined: " + line)
	}
}

// giveUp puts the running version behind the others, so that the next restart goes
// back. It returns false where there is no other version, or none can be taken.
func (s *system) giveUp(why string) bool {
	s.log.Error("%s fails its trial: %s", path.Base(s.boot.Image), why)
	s.marking.Lock()
	defer s.marking.Unlock()
	if s.marked() {
		s.log.Error("it was found good a moment ago, and stays")
		return false
	}
	if err := s.demoteSelf(); err != nil {
		s.log.Error("it is not given up: %v", err)
		return false
	}
	s.log.Error("it is given up: going back to the version before")
	return true
}

func (s *system) demoteSelf() error {
	esp, ok := s.partition(release.PartitionESP)
	if !ok {
		return fmt.Errorf("disk %s has no partition %s", s.boot.Disk, release.PartitionESP)
	}
	own, ok := release.ParseEntry(path.Base(s.boot.Image))
	if !ok {
		return fmt.Errorf("%s is not the name of a kernel image", s.boot.Image)
	}
	return linux.WithESP(esp, "/boot", 0, func(dir string) error {
		if !hasOther(filepath.Join(dir, path.Dir(s.boot.Image)), own) {
			return errors.New("there is no other version to go back to")
		}
		return renameImage(dir, s.boot.Image, own.Demoted(own.Done).File())
	})
}

// hasOther reports whether a folder holds an image of ours that the boot loader
// would take before this one, once that is demoted: one with tries left, or a newer
// one, which a way back to an older version puts behind.
func hasOther(dir string, own release.Entry) bool {
	name, _, _ := strings.Cut(own.Title, "_")
	files, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, f := range files {
		if e, ok := release.ParseEntry(f.Name()); ok && e.Title != own.Title && (!e.Bad() || release.CompareVersions(e.Version(), own.Version()) > 0) && strings.HasPrefix(e.Title, name+"_") {
			return true
		}
	}
	return false
}

// lastLines returns the end of a file.
func lastLines(name string) []string {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil
	}
	text := make([]byte, min(size, tailBytes))
	if _, err := f.ReadAt(text, size-int64(len(text))); err != nil {
		return nil
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return lines[max(0, len(lines)-tailLines):]
}
