package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// Grace periods of Stop.
const (
	// PowerOffTimeout is how long a machine gets to power itself off.
	PowerOffTimeout = 90 * time.Second
	quitTimeout     = 5 * time.Second
	pressPause      = 2 * time.Second
)

// Stop presses the power button, again and again since a machine that is still
// booting does not notice, and waits until the machine is off, at most
// PowerOffTimeout or until ctx ends; then it pulls the plug. clean tells whether
// the machine went off by itself. ErrNotRunning is returned for one that is off.
func (m *Machine) Stop(ctx context.Context) (clean bool, err error) {
	m.reload()
	if !m.Running() {
		return false, fmt.Errorf("machine %s: %w", m.Name(), ErrNotRunning)
	}
	waiting, cancel := context.WithTimeout(ctx, PowerOffTimeout)
	defer cancel()
	press := func() error { return m.execute(waiting, "system_powerdown", nil, nil) }
	if pressUntilOff(waiting, press, m.Wait) {
		return true, nil
	}
	return false, m.Kill()
}

// pressUntilOff presses the power button every pressPause until wait returns
// nil, or ctx ends, or it cannot be pressed on a machine that runs.
func pressUntilOff(ctx context.Context, press func() error, wait func(context.Context) error) (off bool) {
	for {
		pressed := press()
		pause, cancel := context.WithTimeout(ctx, pressPause)
		err := wait(pause)
		cancel()
		if err == nil {
			return true
		}
		if pressed != nil || ctx.Err() != nil {
			return false
		}
	}
}

// Kill pulls the plug: what the guest had not flushed is lost. A machine that
// is off is no error.
func (m *Machine) Kill() error {
	m.reload()
	if !m.Running() {
		return nil
	}
	if err := m.record.kill(); err != nil {
		return fmt.Errorf("machine %s: %w", m.Name(), err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), quitTimeout)
	defer cancel()
	return m.Wait(ctx)
}

// Delete removes the machine with its disk. A running one is ErrRunning, unless
// force pulls its plug first.
func (m *Machine) Delete(force bool) error {
	m.reload()
	if m.Running() && !force {
		return fmt.Errorf("machine %s: %w: oscine machine stop %s first, or delete it with --force", m.Name(), ErrRunning, m.Name())
	}
	if err := m.Kill(); err != nil {
		return err
	}
	if err := os.RemoveAll(m.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete machine %s: %w", m.Name(), err)
	}
	return nil
}

// reload takes notice of another program that restarted the machine: what
// is ended must be what runs now.
func (m *Machine) reload() {
	if r, err := readRecord(m.dir); err == nil && r.PID != m.record.PID {
		m.record, m.exited = r, nil
	}
}
