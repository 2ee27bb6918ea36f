package upgrade

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update/slot"
)

// AddLock keeps the machine from restarting for upgrades. A lock of the same name
// is replaced. One with NoReturn is also a point of no return: its holder may change
// data for good once AddLock returned nil, and older versions are refused from then
// on. Errors: ErrTooLate; slot.ErrOnTrial for one with NoReturn while the running
// version may be rolled back.
func (m *Manager) AddLock(l Lock) error {
	if l.Name == "" || len(l.Name) > 63 || len(l.Reason) > 512 {
		return fmt.Errorf("%w: a lock has a name of 1 to 63 and a reason of at most 512 bytes", errdefs.ErrInvalidArgument)
	}
	l.Since = m.Now()
	running := ""
	if l.NoReturn {
		if m.Slots == nil {
			return m.notHere()
		}
		slots, err := m.Slots.State()
		if err != nil {
			return err
		}
		if running = slots.Active.Version; slots.Active.Health != slot.Good {
			return fmt.Errorf("%w: %s: leave the data as it is, and ask again once it has passed its checks", slot.ErrOnTrial, running)
		}
	}
	return m.certainly(func(s *state) error {
		if u := s.Current; u != nil && u.Stage == Rebooting {
			return ErrTooLate
		}
		held := slices.DeleteFunc(s.locks(l.Since), func(have Lock) bool { return have.Name == l.Name })
		if len(held) >= maxLocks {
			return fmt.Errorf("%w: at most %d locks can be held", errdefs.ErrResourceExhausted, maxLocks)
		}
		s.Locks = append(held, l)
		if l.NoReturn && (s.NoReturn == nil || release.CompareVersions(running, s.NoReturn.Version) >= 0) {
			s.NoReturn = &NoReturn{running, l}
		}
		return nil
	})
}

// RemoveLock gives a lock back. Errors: ErrNoLock.
func (m *Manager) RemoveLock(name string) error {
	err := m.certainly(func(s *state) error {
		had := len(s.Locks)
		s.Locks = slices.DeleteFunc(s.Locks, func(l Lock) bool { return l.Name == name })
		if len(s.Locks) == had {
			return fmt.Errorf("%q: %w", name, ErrNoLock)
		}
		return nil
	})
	m.poke()
	return err
}

// Hold refuses upgrades until Unhold.
func (m *Manager) Hold(reason, by string) error {
	return m.certainly(func(s *state) error {
		s.Hold = &Lock{Name: "hold", Reason: reason, By: by, Since: m.Now()}
		return nil
	})
}

// Unhold ends Hold.
func (m *Manager) Unhold() error {
	return m.certainly(func(s *state) error { s.Hold = nil; return nil })
}

// Pin makes a version the only one that is taken; empty ends that.
func (m *Manager) Pin(version string) error {
	if version != "" && !release.ValidVersion(version) {
		return fmt.Errorf("%w: %.80q is no version", errdefs.ErrInvalidArgument, version)
	}
	return m.certainly(func(s *state) error { s.Pin = version; return nil })
}
