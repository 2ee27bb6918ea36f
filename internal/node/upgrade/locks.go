package upgrade

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/release"
)

// AddLock keeps the machine from restarting for upgrades. A lock of the same name
// is replaced.
func (m *Manager) AddLock(l Lock) error {
	if l.Name == "" || len(l.Name) > 63 || len(l.Reason) > 512 {
		return fmt.Errorf("%w: a lock has a name of 1 to 63 and a reason of at most 512 bytes", errdefs.ErrInvalidArgument)
	}
	m.mu.Lock()
	if u := m.state.Current; u != nil && u.Stage == Rebooting {
		m.mu.Unlock()
		return ErrTooLate
	}
	if len(m.state.Locks) >= maxLocks {
		m.mu.Unlock()
		return fmt.Errorf("%w: at most %d locks can be held", errdefs.ErrResourceExhausted, maxLocks)
	}
	m.mu.Unlock()
	l.Since = m.Now()
	return m.certainly(func(s *state) {
		s.Locks = append(slices.DeleteFunc(s.Locks, func(have Lock) bool { return have.Name == l.Name }), l)
	})
}

// RemoveLock gives a lock back. Errors: ErrNoLock.
func (m *Manager) RemoveLock(name string) error {
	found := false
	err := m.certainly(func(s *state) {
		s.Locks = slices.DeleteFunc(s.Locks, func(l Lock) bool { found = found || l.Name == name; return l.Name == name })
	})
	m.poke()
	if !found {
		return fmt.Errorf("%q: %w", name, ErrNoLock)
	}
	return err
}

// Hold refuses upgrades until Unhold.
func (m *Manager) Hold(reason, by string) error {
	return m.certainly(func(s *state) { s.Hold = &Lock{Name: "hold", Reason: reason, By: by, Since: m.Now()} })
}

// Unhold ends Hold.
func (m *Manager) Unhold() error { return m.certainly(func(s *state) { s.Hold = nil }) }

// Pin makes a version the only one that is taken; empty ends that.
func (m *Manager) Pin(version string) error {
	if version != "" && !release.ValidVersion(version) {
		return fmt.Errorf("%w: %.80q is no version", errdefs.ErrInvalidArgument, version)
	}
	return m.certainly(func(s *state) { s.Pin = version })
}
