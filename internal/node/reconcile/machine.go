package reconcile

import (
	"errors"
	"fmt"
	"time"

	"oscine.dev/oscine/internal/object"
)

// limits are the pauses between the tries of an object that fails: doubled from
// the first to the last, and forgotten after a run of steady.
type limits struct {
	first, last time.Duration
	steady      time.Duration
}

func productLimits() limits {
	return limits{first: time.Second, last: time.Minute, steady: time.Minute}
}

// step is one of a controller's calls.
type step int

const (
	none step = iota
	bringUp
	attend
	stop
	remove
	halt    // the object stays, stopped
	recycle // as halt; the object is brought up after it
)

// work carries out what a machine decides; the tests replace it.
type work interface {
	// start begins a step, which ends in a call of ended. None is under way.
	start(s step, obj object.Object)
	// cancel ends the current step soon.
	cancel()
	// observed takes what is to be shown; failed says why, nil where nothing
	// has.
	observed(o object.Observed, failed error)
}

// machine is the state of one object. Its methods are called one at a time and
// read no clock: each carries the time.
type machine struct {
	work   work
	limits limits

	replaces bool // Up takes what runs to a new manifest

	desired  object.Object // nil where it cannot be read
	aside    error         // why it is not to be started; nil where it is
	deleting bool
	closing  bool
	held     bool // about to be set: nothing is taken away from it meanwhile
	stopped  bool // somebody stopped it, and it stays so
	restart  bool // what there is of it has to go before it is brought up

	under     step          // that is under way
	doing     object.Object // what it was given
	cancelled bool          // the step under way was told to end
	runs      object.Object // what Up succeeded with, until that ends; nil
	finished  bool          // ended by itself, and stays so
	halted    bool          // nothing is left of it, as stopped asks for
	lost      error         // why the placement is gone, until there is another
	displaced bool          // what runs has to stop for lost
	renewed   bool          // Up has to be called again for what runs or is brought up
	deleted   bool          // Remove has succeeded

	shown   object.Observed
	owed    bool      // the last run ended badly; the next that succeeds is a restart
	upSince time.Time // of what runs
	pause   time.Duration
	again   time.Time // when to try the next time
}

func newMachine(w work, l limits, obj object.Object) *machine {
	return &machine{work: w, limits: l, desired: obj, pause: l.first, shown: object.Observed{Phase: object.Pending}}
}

// tick begins what is due and returns when to call again at the latest, the
// zero time for never.
func (m *machine) tick(now time.Time) time.Time {
	if m.under != none {
		if m.disturbed() && !m.cancelled {
			m.cancelled = true
			m.work.cancel()
		}
		return time.Time{}
	}
	switch {
	case m.closing || m.deleted:
	case m.deleting && m.held:
	case m.deleting && now.Before(m.again):
		return m.again
	case m.deleting:
		m.begin(remove, m.known())
	case m.aside != nil:
	case m.stopped && (m.halted || m.held):
	case (m.stopped || m.restart) && now.Before(m.again):
		return m.again
	case m.stopped:
		m.begin(halt, m.known())
	case m.restart && m.held:
	case m.restart:
		m.begin(recycle, m.known())
	case m.runs != nil && m.runs != m.desired && m.replaces && !m.displaced:
		m.begin(bringUp, m.desired)
	case m.runs != nil && (m.runs != m.desired || m.displaced):
		why := "to start with its new manifest"
		if m.displaced {
			why = m.lost.Error()
		}
		m.show(object.Pending, "stopping: "+why, nil)
		m.begin(stop, m.runs)
	case m.runs != nil && m.renewed:
		m.begin(bringUp, m.desired)
	case m.runs != nil:
		m.begin(attend, m.runs)
	case m.finished:
	case now.Before(m.again):
		return m.again
	default:
		m.displaced = false
		m.begin(bringUp, m.desired)
	}
	return time.Time{}
}

func (m *machine) begin(s step, obj object.Object) {
	m.under, m.doing, m.cancelled = s, obj, false
	if s == bringUp {
		m.renewed = false
	}
	m.work.start(s, obj)
}

// known is the manifest by which there may be something to remove.
func (m *machine) known() object.Object {
	if m.runs != nil {
		return m.runs
	}
	return m.desired
}

// disturbed reports whether the current step is obsolete.
func (m *machine) disturbed() bool {
	switch m.under {
	case bringUp, attend:
		return m.closing || m.deleting || m.stopped || m.restart || m.displaced || m.renewed || m.doing != m.desired
	case stop:
		return m.closing || m.deleting || m.stopped || m.restart
	case halt:
		return m.closing || m.deleting || !m.stopped
	case recycle:
		return m.closing || m.deleting || !m.restart
	}
	return m.closing
}

// set replaces what is desired.
func (m *machine) set(obj object.Object) {
	m.desired, m.aside, m.deleting = obj, nil, false
	m.run()
}

// run has the object run, whatever kept it from that before.
func (m *machine) run() {
	m.stopped, m.halted, m.restart, m.finished = false, false, false, false
	m.renewed = m.runs != nil || m.under == bringUp // it shows again how it runs
	m.soon()
	m.show(object.Pending, "", nil)
}

// halt has the object stopped until it is set or run again.
func (m *machine) halt() {
	if m.stopped {
		m.retry()
		return
	}
	m.stopped, m.halted, m.restart = true, false, false
	m.lost, m.displaced = nil, false // it gives back its placement
	m.soon()
	m.show(object.Pending, "stopping, as requested", nil)
}

// recycle has the object brought up from nothing.
func (m *machine) recycle() {
	m.run()
	m.restart = true
	m.show(object.Pending, "stopping for a restart", nil)
}

// setAside has the object not started until it is set again.
func (m *machine) setAside(why error) {
	m.aside = why
	m.show(object.Failed, why.Error(), why)
}

// markLost says that the object's placement is gone or given to another.
func (m *machine) markLost(reason error) {
	if m.finished || m.deleting || m.stopped || m.aside != nil {
		return // it holds no placement, or is about to give it back
	}
	m.lost, m.displaced = reason, true
	m.soon()
}

// retry ends an object's backoff now.
func (m *machine) retry() { m.again = time.Time{} }

// renew has Up called again, now.
func (m *machine) renew() {
	m.renewed = m.runs != nil || m.under == bringUp
	m.retry()
}

// delete has the object removed.
func (m *machine) delete() {
	m.deleting = true
	m.soon()
	m.show(object.Pending, "stopping: it is deleted", nil)
}

// close ends the current step and begins no other; what runs keeps running.
func (m *machine) close() { m.closing = true }

func (m *machine) soon() { m.again, m.pause = time.Time{}, m.limits.first }

// ended takes the result of the step under way.
func (m *machine) ended(err error, now time.Time) {
	done, cancelled := m.under, m.cancelled
	m.under = none
	switch {
	case done == stop:
		m.runs = nil
		if err != nil && !cancelled {
			m.fail(fmt.Errorf("stop it: %w", err), now)
		}
	case done == remove:
		m.removed(err, cancelled, now)
	case done == halt, done == recycle:
		m.gone(err, cancelled, now)
	case done == bringUp && err == nil:
		m.up(now)
	case errors.Is(err, ErrFinished):
		m.runs, m.finished, m.owed, m.lost, m.displaced = nil, true, false, nil, false
		m.show(object.Exited, "", nil)
	case cancelled: // what there is of it is taken care of by what comes next
	case done == attend:
		m.runs, m.owed = nil, true
		if now.Sub(m.upSince) >= m.limits.steady {
			m.pause = m.limits.first
		}
		m.fail(err, now)
	default:
		m.runs = nil // where it ran and was renewed
		m.fail(err, now)
	}
}

func (m *machine) up(now time.Time) {
	m.runs, m.upSince = m.doing, now
	if !m.displaced {
		m.lost = nil
	}
	if !m.owed {
		m.pause = m.limits.first // what kept it from running says nothing about how it runs
		return
	}
	m.owed = false
	m.shown.Restarts++
	m.work.observed(m.shown, nil)
}

func (m *machine) removed(err error, cancelled bool, now time.Time) {
	switch {
	case err == nil:
		m.deleted, m.runs = true, nil
	case !cancelled:
		m.runs = nil
		m.backOff(now)
		m.show(object.Failed, "it is not deleted yet: "+err.Error(), err)
	}
}

// gone takes the result of a halt or recycle.
func (m *machine) gone(err error, cancelled bool, now time.Time) {
	m.runs = nil
	switch {
	case err == nil:
		m.owed, m.lost, m.displaced, m.renewed = false, nil, false, false
		m.halted = m.stopped
		m.restart = false
		if m.stopped {
			m.show(object.Stopped, "start it again with oscine start", nil)
		}
	case !cancelled:
		m.backOff(now)
		m.show(object.Waiting, "it is not stopped yet: "+err.Error(), err)
	}
}

func (m *machine) fail(err error, now time.Time) {
	if err == nil {
		err = errors.New("it does not run any more")
	}
	if m.lost != nil {
		err = fmt.Errorf("its place is gone (%w); placed again: %w", m.lost, err)
	}
	phase := object.Waiting
	if IsRefused(err) {
		phase = object.Unplaced
	}
	m.backOff(now)
	m.show(phase, err.Error(), err)
}

func (m *machine) backOff(now time.Time) {
	m.again = now.Add(m.pause)
	m.pause = min(2*m.pause, m.limits.last)
}

// report takes what the controller shows of the step under way.
func (m *machine) report(phase object.Phase, message string) {
	if m.under == bringUp || m.under == attend {
		m.show(phase, message, nil)
	}
}

func (m *machine) show(phase object.Phase, message string, failed error) {
	m.shown.Phase, m.shown.Message = phase, message
	m.work.observed(m.shown, failed)
}
