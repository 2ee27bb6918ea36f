package boot

import (
	"time"

	"golang.org/x/sys/unix"
)

// limits are the waiting times of the supervisor.
type limits struct {
	ready    time.Duration // from start to READY=1 or the first WATCHDOG=1
	watchdog time.Duration // between two WATCHDOG=1, once the first has come
	abort    time.Duration // from SIGABRT to SIGKILL
	stuck    time.Duration // from SIGKILL until PID 1 gives up on the machine
	stop     time.Duration // from SIGTERM to SIGKILL at shutdown
	steady   time.Duration // running this long forgets earlier failures
	backoff  time.Duration // first pause before a restart; doubles
	maxPause time.Duration
}

func productLimits() limits {
	return limits{
		ready:    5 * time.Minute,
		watchdog: time.Minute,
		abort:    10 * time.Second,
		stuck:    time.Minute,
		stop:     30 * time.Second,
		steady:   time.Minute,
		backoff:  100 * time.Millisecond,
		maxPause: 30 * time.Second,
	}
}

// process starts and signals the daemon; the tests replace it.
type process interface {
	start() (pid int, err error)
	signal(pid int, sig unix.Signal)
}

// daemon is the state of the supervised program. It is driven by one goroutine
// and reads no clock: every call carries the time.
type daemon struct {
	log     *Log
	proc    process
	limits  limits
	pid     int // 0 while not running
	started time.Time
	ready   bool
	// sign is the last WATCHDOG=1; zero before the first, for a daemon that
	// never sends one is not held to it.
	sign     time.Time
	aborted  time.Time // when SIGABRT was sent to this pid
	killed   time.Time // when SIGKILL was sent to this pid
	restart  time.Time // when to start again
	failures int
	stopping bool
}

// tick does what is due and returns when to call again at the latest.
func (d *daemon) tick(now time.Time) time.Time {
	switch {
	case d.pid == 0 && d.stopping:
		return now.Add(time.Hour)
	case d.pid == 0 && now.Before(d.restart):
		return d.restart
	case d.pid == 0:
		d.begin(now)
	}
	if d.pid == 0 {
		return d.restart
	}
	deadline, why := d.deadline()
	if now.Before(deadline) {
		return deadline
	}
	d.escalate(now, why)
	deadline, _ = d.deadline()
	return deadline
}

func (d *daemon) begin(now time.Time) {
	pid, err := d.proc.start()
	if err != nil {
		d.log.Error("cannot start oscined: %v", err)
		d.plan(now)
		return
	}
	d.adopt(pid, now)
	d.log.Notice("oscined started as process %d", pid)
}

// adopt takes charge of a running daemon.
func (d *daemon) adopt(pid int, now time.Time) {
	d.pid, d.started, d.ready = pid, now, false
	d.sign, d.aborted, d.killed = time.Time{}, time.Time{}, time.Time{}
}

// plan sets the time of the next start.
func (d *daemon) plan(now time.Time) {
	pause := d.limits.maxPause
	if d.failures < 16 {
		pause = min(pause, d.limits.backoff<<d.failures)
	}
	d.failures++
	d.restart = now.Add(pause)
}

// deadline is when patience with the running daemon ends, and the reason.
func (d *daemon) deadline() (time.Time, string) {
	switch {
	case !d.killed.IsZero():
		return d.killed.Add(d.limits.stuck), "does not die"
	case !d.aborted.IsZero() && d.stopping:
		return d.aborted.Add(d.limits.stop), "did not stop in time"
	case !d.aborted.IsZero():
		return d.aborted.Add(d.limits.abort), "ignored SIGABRT"
	case !d.sign.IsZero():
		// Also before READY: a node without configuration may wait forever.
		return d.sign.Add(d.limits.watchdog), "sent no WATCHDOG=1"
	case !d.ready:
		return d.started.Add(d.limits.ready), "did not become ready"
	}
	return d.started.Add(1 << 62), ""
}

// escalate goes from SIGABRT, which makes the Go runtime print every
// goroutine, to SIGKILL.
func (d *daemon) escalate(now time.Time, why string) {
	switch {
	case !d.killed.IsZero():
		return
	case !d.aborted.IsZero():
		d.log.Error("oscined %s: killing it", why)
		d.killed = now
		d.proc.signal(d.pid, unix.SIGKILL)
	default:
		d.log.Error("oscined %s: aborting it", why)
		d.aborted = now
		d.proc.signal(d.pid, unix.SIGABRT)
	}
}

// hopeless reports a daemon that survives SIGKILL: the kernel is hanging, and
// only the hardware watchdog helps.
func (d *daemon) hopeless(now time.Time) bool {
	return d.pid != 0 && !d.killed.IsZero() && now.After(d.killed.Add(d.limits.stuck))
}

// notified takes a message of the daemon; true when it became ready by it.
func (d *daemon) notified(n notified, now time.Time) (becameReady bool) {
	if n.pid != d.pid || d.pid == 0 {
		return false
	}
	if n.Watchdog {
		d.sign = now
	}
	becameReady = n.Ready && !d.ready
	d.ready = d.ready || n.Ready
	return becameReady
}

// exited takes the end of a process; false when it was not the daemon.
func (d *daemon) exited(pid int, status unix.WaitStatus, now time.Time) bool {
	if pid != d.pid || pid == 0 {
		return false
	}
	ran := now.Sub(d.started)
	if ran >= d.limits.steady {
		d.failures = 0
	}
	d.pid, d.ready = 0, false
	d.plan(now)
	if d.stopping {
		d.log.Notice("oscined stopped (%s)", describe(status))
		return true
	}
	d.log.Error("oscined ended after %s (%s); starting it again in %s", ran.Round(time.Millisecond), describe(status), d.restart.Sub(now))
	return true
}

// stop asks the daemon to end for good.
func (d *daemon) stop(now time.Time) {
	d.stopping = true
	if d.pid != 0 {
		d.aborted = now // from here tick goes straight to SIGKILL
		d.proc.signal(d.pid, unix.SIGTERM)
	}
}
