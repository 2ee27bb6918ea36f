package boot

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
)

const (
	watchdogDevice  = "/dev/watchdog"
	watchdogTimeout = time.Minute
	petInterval     = 10 * time.Second
	consoleNode     = "/dev/console"
	// daemonOutput is where the daemon's lines go beside the console.
	daemonOutput = "/run/oscine/oscined.log"
)

// lasting is what a PID 1 that starts over after a panic takes along: the
// watchdog can be opened only once.
type lasting struct {
	dog  *linux.Watchdog // nil without one
	good chan struct{}   // closed once the slot is marked good

	marking sync.Mutex // held while that goes on
}

// system is PID 1 at work; one goroutine owns it.
type system struct {
	*lasting
	log      *Log
	boot     release.Facts
	daemon   *daemon
	program  *program
	began    time.Time
	pending  bool // the daemon checks the version before it says that it is good
	failures int  // ends of the daemon during a trial
	lastPet  time.Time
	signals  chan os.Signal
	messages chan notified
	button   chan string
	late     func() // loads the modules that were put off, and watches the power button
}

// When the modules that were put off load, if the daemon is not ready before,
// and how long after it is: the first requests come then.
const (
	lateAfter      = 15 * time.Second
	lateAfterReady = time.Second
)

// pid1 brings the system up, supervises oscined and ends in a shutdown. It
// returns only with an error, and may then be called again.
func pid1(log *Log, kept *lasting) error {
	s := &system{
		lasting:  kept,
		log:      log,
		boot:     receive(),
		began:    time.Now(),
		signals:  make(chan os.Signal, 64),
		messages: make(chan notified),
		button:   make(chan string, 1),
	}
	// Signals first: from here no child is missed.
	signal.Notify(s.signals, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGUSR1, unix.SIGUSR2)
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF); err != nil {
		log.Error("Ctrl-Alt-Del restarts at once: %v", err)
	}
	modules := setup(log)
	s.late = sync.OnceFunc(func() {
		background(log, "late modules", func() error {
			modules.loadLate(log, "/sys")
			watchButtons(log, "/dev/input", s.button)
			return nil
		})
	})
	time.AfterFunc(lateAfter, s.late)
	if s.onTrial() && s.boot.Data != "" {
		if err := log.Keep(filepath.Join("/var", stateDir, release.BootLogFile)); err != nil {
			log.Error("the log of this boot is not kept: %v", err)
		}
	}
	s.openWatchdog()
	if err := os.WriteFile(FactsFile, factsNow(s.boot, false), 0o644); err != nil {
		log.Error("%v", err)
	}
	data, hasData := s.partition(release.PartitionData)
	if hasData && s.boot.Data != "" {
		background(log, "grow the data partition", func() error { return growData(log, data, "/var") })
		s.adoptMachineFile()
	}
	if _, err := listenNotify(log, NotifySocket, s.messages); err != nil {
		log.Error("%v", err)
	}
	s.startDaemon()
	if s.blind() {
		return s.shutdown(release.RequestReboot)
	}
	return s.shutdown(s.loop())
}

// blind gives up a version on trial that has no data partition: without one nobody
// can judge it. It returns false where there is no version to go back to, as on a
// machine that was just installed.
func (s *system) blind() bool {
	return s.onTrial() && s.boot.Data == "" && s.giveUp("its data partition is not mounted")
}

func (s *system) openWatchdog() {
	if s.dog != nil {
		return
	}
	dog, timeout, err := linux.OpenWatchdog(watchdogDevice, watchdogTimeout)
	switch {
	case errors.Is(err, os.ErrNotExist):
		s.log.Notice("no watchdog: a hanging kernel stays hanging")
	case err != nil:
		s.log.Error("watchdog: %v", err)
	default:
		s.log.Notice("watchdog (%s) armed with %s", watchdogName("/sys/class/watchdog/watchdog0/identity"), timeout)
		s.dog = dog
	}
}

// watchdogName tells a real watchdog from the kernel's own timer.
func watchdogName(file string) string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(raw))
}

// partition finds a partition by name on the disk of the root.
func (s *system) partition(name string) (linux.Partition, bool) {
	parts, err := linux.Partitions("/sys")
	if err != nil {
		s.log.Error("%v", err)
		return linux.Partition{}, false
	}
	return linux.FindPartition(parts, s.boot.Disk, name)
}

// adoptMachineFile takes the Machine file of the ESP on the first boot of a
// machine that has no other configuration.
func (s *system) adoptMachineFile() {
	if exists(machineFile) || exists(release.FirmwareMachine) {
		return
	}
	esp, ok := s.partition(release.PartitionESP)
	if !ok {
		return
	}
	var adopted bool
	err := linux.WithESP(esp, "/boot", 0, func(dir string) (err error) {
		adopted, err = adoptMachineFile(dir, machineFile)
		return err
	})
	if adopted {
		s.log.Notice("configuration taken from /%s of the ESP, and removed there", release.ESPMachine)
	}
	if err != nil {
		s.log.Error("configuration on the ESP: %v", err)
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

func (s *system) startDaemon() {
	l := productLimits()
	s.program = &program{
		log:  s.log,
		path: Daemon,
		env: []string{
			"PATH=/usr/bin:/usr/sbin:/bin:/sbin", "HOME=/", "TERM=linux",
			"NOTIFY_SOCKET=" + NotifySocket,
			fmt.Sprintf("WATCHDOG_USEC=%d", l.watchdog.Microseconds()),
		},
		cgroup:  "/sys/fs/cgroup/oscined",
		pidFile: "/run/oscine/oscined.pid",
		output:  newOutput(s.log, consoleNode, daemonOutput),
	}
	s.daemon = &daemon{log: s.log, proc: s.program, limits: l}
	if pid := s.program.running(); pid != 0 {
		s.daemon.adopt(pid, time.Now())
	}
}

// loop runs until something asks for a shutdown.
func (s *system) loop() release.Request {
	timer := time.NewTimer(0)
	for {
		now := time.Now()
		next := earliest(s.daemon.tick(now), s.pet(now))
		if s.onTrial() && s.boot.Locked == "" { // blind goes back from a locked one where it can
			if now.After(s.trialEnds()) {
				s.giveUp(fmt.Sprintf("not found good within %s", now.Sub(s.began).Round(time.Second)))
				return release.RequestReboot
			}
			next = earliest(next, s.trialEnds().Add(time.Second))
		}
		timer.Reset(time.Until(next))
		select {
		case <-timer.C:
		case sig := <-s.signals:
			if request := s.signalled(sig); request != release.RequestNone {
				return request
			}
		case n := <-s.messages:
			if request := s.notified(n); request != release.RequestNone {
				return request
			}
		case name := <-s.button:
			s.log.Notice("power button (%s) pressed", name)
			return release.RequestPowerOff
		}
	}
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (s *system) signalled(sig os.Signal) release.Request {
	switch sig {
	case unix.SIGCHLD:
		before := s.failures
		s.reap()
		if s.failures > before && s.failures >= trialFailures && s.giveUp(fmt.Sprintf("oscined ended %d times", s.failures)) {
			return release.RequestReboot
		}
	case unix.SIGINT: // Ctrl-Alt-Del
		s.log.Notice("restart asked for by SIGINT")
		return release.RequestReboot
	default:
		s.log.Notice("power-off asked for by %v", sig)
		return release.RequestPowerOff
	}
	return release.RequestNone
}

func (s *system) notified(n notified) release.Request {
	if n.pid != s.daemon.pid {
		return release.RequestNone
	}
	ready := s.daemon.notified(n, time.Now())
	if ready {
		s.log.Notice("oscined is ready, %.3f s after the kernel started", uptime().Seconds())
		time.AfterFunc(lateAfterReady, s.late)
	}
	if request := s.tried(n, ready); request != release.RequestNone {
		return request
	}
	if n.Request != release.RequestNone {
		s.log.Notice("%s asked for by oscined", n.Request)
	}
	return n.Request
}

// reap collects every child that has ended, the daemon and orphans alike, and
// reports whether any child is left.
func (s *system) reap() (left bool) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil: // ECHILD: nobody is left
			return false
		case pid <= 0:
			return true
		}
		if s.daemon.exited(pid, status, time.Now()) {
			s.daemonEnded()
		}
	}
}

// pet restarts the hardware countdown, unless the kernel no longer does what it
// is told, and returns when to call again.
func (s *system) pet(now time.Time) time.Time {
	if s.dog == nil {
		return now.Add(time.Hour)
	}
	if next := s.lastPet.Add(petInterval); now.Before(next) {
		return next
	}
	s.lastPet = now
	if s.daemon.hopeless(now) {
		s.log.Error("oscined cannot be killed: leaving the machine to its watchdog")
	} else if err := s.dog.Pet(); err != nil {
		s.log.Error("%v", err)
	}
	return now.Add(petInterval)
}

func (s *system) marked() bool {
	select {
	case <-s.good:
		return true
	default:
		return false
	}
}

// markGood takes the boot counter off the running image: this system works.
// It is called again when the daemon was restarted, and then does nothing.
func (s *system) markGood() error {
	s.marking.Lock()
	defer s.marking.Unlock()
	if s.marked() {
		return nil
	}
	err := s.counter().record(s.boot.Image, 0)
	if s.boot.Counted() {
		err = errors.Join(err, s.uncount())
	}
	if err != nil {
		return err
	}
	close(s.good)
	s.log.Release()
	return writeFacts(factsNow(s.boot, true))
}

// counter is where the attempts of the image are counted.
func (s *system) counter() counter {
	if _, encrypted := linux.MappingUnder("/var"); encrypted {
		if p, ok := s.partition(release.PartitionData); ok {
			return counter{device: p.Node()}
		}
	}
	return counter{data: "/var"}
}

func writeFacts(content []byte) error {
	next := FactsFile + ".new"
	if err := os.WriteFile(next, content, 0o644); err != nil {
		return err
	}
	return os.Rename(next, FactsFile)
}

func (s *system) uncount() error {
	esp, ok := s.partition(release.PartitionESP)
	if !ok {
		return fmt.Errorf("disk %s has no partition %s", s.boot.Disk, release.PartitionESP)
	}
	image := s.boot.Image
	entry, ok := release.ParseEntry(path.Base(image))
	if !ok {
		return fmt.Errorf("%s is not the name of a kernel image", image)
	}
	good := entry.Good().File()
	err := linux.WithESP(esp, "/boot", 0, func(dir string) error {
		if exists(filepath.Join(dir, path.Dir(image), good)) && !exists(filepath.Join(dir, image)) {
			return nil // an earlier life of PID 1 did it
		}
		return renameImage(dir, image, good)
	})
	if err == nil {
		s.log.Notice("slot %s is good: %s is now %s", s.boot.Slot, path.Base(image), good)
	}
	return err
}
