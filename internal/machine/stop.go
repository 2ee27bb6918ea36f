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
)

// Stop presses the power button and waits until the machine is off, at most
// PowerOffTimeout or until ctx ends; then it pulls the plug. clean tells
// whether the machine went off by itself. ErrNotRunning is returned for one
// that is off.
func (m *Machine) Stop(ctx context.Context) (clean bool, err error) {
	m.reload()
	if !m.Running() {
		return false, fmt.Errorf("machine %s: %w", m.Name(), ErrNotRunning)
	}
	err = m.execute(ctx, "system_powerdown", nil, nil)
	if err == nil {
		waiting, cancel := context.WithTimeout(ctx, PowerOffTimeout)
		defer cancel()
		if m.Wait(waiting) == nil {
			return true, nil
		}
	}
	return false, m.Kill()
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

// reload takes notice of another program that started the machine anew: what
// is ended must be what runs now.
func (m *Machine) reload() {
	if r, err := readRecord(m.dir); err == nil && r.PID != m.record.PID {
		m.record, m.exited = r, nil
	}
}
