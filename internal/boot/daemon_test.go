package boot

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/release"
)

// scripted stands for processes: it hands out numbers and notes signals.
type scripted struct {
	next int
	fail error
	sent []string
}

func (s *scripted) start() (int, error) {
	if s.fail != nil {
		return 0, s.fail
	}
	s.next++
	return s.next, nil
}

func (s *scripted) signal(_ int, sig unix.Signal) { s.sent = append(s.sent, unix.SignalName(sig)) }

// ticking runs the daemon's clock forward second by second.
type ticking struct {
	*daemon
	proc *scripted
	now  time.Time
}

func newTicking() *ticking {
	p := &scripted{next: 100}
	return &ticking{&daemon{log: &Log{}, proc: p, limits: productLimits()}, p, time.Unix(1e9, 0)}
}

func (c *ticking) run(d time.Duration) {
	for end := c.now.Add(d); c.now.Before(end); c.now = c.now.Add(time.Second) {
		c.tick(c.now)
	}
}

func (c *ticking) say(n release.Notification) bool { return c.notified(notified{c.pid, n}, c.now) }

func TestDaemonRestartsWithGrowingPauses(t *testing.T) {
	c := newTicking()
	var pauses []time.Duration
	for range 12 {
		c.tick(c.now)
		if c.pid == 0 {
			t.Fatal("not started")
		}
		if !c.exited(c.pid, 9, c.now) {
			t.Fatal("its end was not noticed")
		}
		pauses = append(pauses, c.restart.Sub(c.now))
		if c.tick(c.now); c.pid != 0 {
			t.Fatal("started without a pause")
		}
		c.now = c.restart
	}
	want := []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000}
	for i := range want {
		want[i] *= time.Millisecond
	}
	if diff := cmp.Diff(want, pauses); diff != "" {
		t.Errorf("pauses (-want +got):\n%s", diff)
	}
	c.tick(c.now)
	c.say(release.Notification{Ready: true})
	c.now = c.now.Add(2 * time.Minute)
	c.exited(c.pid, 0, c.now)
	if got := c.restart.Sub(c.now); got != 100*time.Millisecond {
		t.Errorf("pause after a long run: got %s, want the first one", got)
	}
}

func TestDaemonWatchdog(t *testing.T) {
	c := newTicking()
	c.tick(c.now)
	if !c.say(release.Notification{Ready: true, Watchdog: true}) {
		t.Error("READY=1 was not noticed")
	}
	if c.say(release.Notification{Ready: true}) {
		t.Error("a second READY=1 counts")
	}
	for range 10 {
		c.run(50 * time.Second)
		c.say(release.Notification{Watchdog: true})
	}
	if len(c.proc.sent) != 0 {
		t.Fatalf("a healthy daemon got %v", c.proc.sent)
	}
	c.run(90 * time.Second)
	if diff := cmp.Diff([]string{"SIGABRT", "SIGKILL"}, c.proc.sent); diff != "" {
		t.Errorf("signals to a hung daemon (-want +got):\n%s", diff)
	}
	if c.hopeless(c.now) {
		t.Error("given up too early")
	}
	c.run(2 * time.Minute)
	if !c.hopeless(c.now) {
		t.Error("a daemon that survives SIGKILL is not given up")
	}
}

func TestDaemonWithoutWatchdogMessages(t *testing.T) {
	c := newTicking()
	c.tick(c.now)
	c.say(release.Notification{Ready: true})
	c.run(time.Hour)
	if len(c.proc.sent) != 0 {
		t.Errorf("a daemon that never sends WATCHDOG=1 got %v", c.proc.sent)
	}
}

func TestDaemonWaitsForConfiguration(t *testing.T) {
	c := newTicking()
	for range 100 {
		c.run(30 * time.Second)
		c.say(release.Notification{Watchdog: true})
	}
	if len(c.proc.sent) != 0 {
		t.Errorf("a daemon that lives without being ready got %v", c.proc.sent)
	}
}

func TestDaemonNeverReady(t *testing.T) {
	c := newTicking()
	c.run(6 * time.Minute)
	if diff := cmp.Diff([]string{"SIGABRT", "SIGKILL"}, c.proc.sent); diff != "" {
		t.Errorf("signals (-want +got):\n%s", diff)
	}
}

func TestDaemonIgnoresOthers(t *testing.T) {
	c := newTicking()
	c.tick(c.now)
	if c.notified(notified{c.pid + 1, release.Notification{Ready: true}}, c.now) || c.ready {
		t.Error("another process made it ready")
	}
	if c.exited(c.pid+1, 0, c.now) {
		t.Error("another process's end was taken for the daemon's")
	}
}

func TestDaemonStop(t *testing.T) {
	c := newTicking()
	c.tick(c.now)
	c.stop(c.now)
	c.run(40 * time.Second)
	if diff := cmp.Diff([]string{"SIGTERM", "SIGKILL"}, c.proc.sent); diff != "" {
		t.Errorf("signals (-want +got):\n%s", diff)
	}
	c.exited(c.pid, 9, c.now)
	c.run(time.Minute)
	if c.pid != 0 {
		t.Error("started again while stopping")
	}
}

func TestDaemonCannotStart(t *testing.T) {
	c := newTicking()
	c.proc.fail = errors.New("no such file")
	next := c.tick(c.now)
	if c.pid != 0 || !next.After(c.now) {
		t.Errorf("got process %d, next try %s from now", c.pid, next.Sub(c.now))
	}
	c.proc.fail = nil
	c.run(2 * time.Second)
	if c.pid == 0 {
		t.Error("not tried again")
	}
}
