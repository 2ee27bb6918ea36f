package boot

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/release"
)

// How long processes other than oscined get at shutdown.
const (
	termTimeout = 10 * time.Second
	killTimeout = 5 * time.Second
)

// shutdown ends oscined, then every other process, unmounts and does what was
// asked. It returns only if the kernel refuses.
func (s *system) shutdown(request release.Request) error {
	began := time.Now()
	s.log.Notice("shutting down for %s", request)
	s.daemon.stop(began)
	s.until(func() bool { return s.daemon.pid == 0 || s.daemon.hopeless(time.Now()) }, time.Hour)
	s.killAll(unix.SIGTERM, termTimeout)
	s.killAll(unix.SIGKILL, killTimeout)
	s.log.Release()
	unix.Sync()
	unmountAll(s.log)
	unix.Sync()
	s.log.Notice("%s after %d ms", request, ms(began, time.Now()))
	command := unix.LINUX_REBOOT_CMD_RESTART
	if request == release.RequestPowerOff {
		command = unix.LINUX_REBOOT_CMD_POWER_OFF
	}
	err := unix.Reboot(command)
	return fmt.Errorf("%s: %w", request, err)
}

// killAll signals every process but PID 1 and waits until none is left, or for
// timeout.
func (s *system) killAll(sig unix.Signal, timeout time.Duration) {
	if !s.reap() {
		return
	}
	if err := unix.Kill(-1, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		s.log.Error("send %s to all: %v", unix.SignalName(sig), err)
	}
	if !s.until(func() bool { return !s.reap() }, timeout) {
		s.log.Error("processes are left %s after %s", timeout, unix.SignalName(sig))
	}
}

// until reaps and keeps the watchdog quiet till done, at most for timeout. Other
// requests are not heard any more.
func (s *system) until(done func() bool, timeout time.Duration) bool {
	deadline := time.Now().Add(timeout)
	const poll = 10 * time.Millisecond
	for !done() {
		now := time.Now()
		if now.After(deadline) {
			return false
		}
		s.daemon.tick(now)
		s.pet(now)
		select {
		case <-s.signals:
		case <-s.messages:
		case <-time.After(poll):
		}
		s.reap()
	}
	return true
}

// unmountAll unmounts what can lose data. A file system in use is made
// read-only instead, which flushes it as well.
func unmountAll(log *Log) {
	mounts, err := readMounts("/proc/self/mountinfo")
	if err != nil {
		log.Error("%v", err)
	}
	for _, target := range unmountOrder(mounts) {
		if err := unix.Unmount(target, 0); err == nil {
			continue
		}
		if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			log.Error("unmount %s: %v", target, err)
		}
	}
}

// unmountOrder drops the root and the kernel's own file systems and puts the
// latest mount first.
func unmountOrder(mounts []string) []string {
	var order []string
	for _, target := range slices.Backward(mounts) {
		if target == "/" || below(target, "/proc") || below(target, "/sys") || below(target, "/dev") ||
			target == "/run" || target == "/tmp" {
			continue
		}
		order = append(order, target)
	}
	return order
}

func below(target, dir string) bool {
	return target == dir || strings.HasPrefix(target, dir+"/")
}

// readMounts returns the mount points in the order they were made (proc(5)).
func readMounts(file string) ([]string, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var mounts []string
	for line := range strings.Lines(string(raw)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			mounts = append(mounts, unescape(fields[4]))
		}
	}
	return mounts, nil
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
