package upgrade

import (
	"maps"
	"slices"
	"time"

	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/slot"
)

// Status is what a node tells about its upgrades.
type Status struct {
	Slots    slot.State
	Problem  string   // why the slots are not known; empty where they are
	Current  *Upgrade // nil where none is under way
	Progress *update.Progress
	Last     *Upgrade // that ended; nil before the first
	Locks    []Lock
	Hold     *Lock
	Pin      string
	Floor    string
	Refused  map[string]Refusal
	NoReturn *NoReturn // nil for none
}

// Status returns the state of upgrades.
func (m *Manager) Status() Status {
	var st Status
	if m.Slots == nil {
		st.Problem = m.notHere().Error()
	} else if slots, err := m.Slots.State(); err != nil {
		st.Problem = err.Error()
	} else {
		st.Slots = slots
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state.Current != nil {
		st.Current = m.state.Current.clone()
	}
	if m.progress != nil {
		p := *m.progress
		st.Progress = &p
	}
	if n := len(m.state.History); n > 0 {
		st.Last = m.state.History[n-1]
	}
	st.Locks, st.Hold, st.Pin, st.Floor = m.state.locks(m.Now()), m.state.Hold, m.state.Pin, m.state.Floor
	st.NoReturn = m.state.NoReturn
	st.Refused = map[string]Refusal{}
	for v, r := range m.state.Refused {
		st.Refused[v] = r
	}
	return st
}

// knownFor is how long Known returns what was read.
const knownFor = 30 * time.Second

// Known is Status.Slots without reading the disk each time; ok is false where it is
// not known.
func (m *Manager) Known() (known slot.State, ok bool) {
	if m.Slots == nil {
		return slot.State{}, false
	}
	m.reading.Lock()
	defer m.reading.Unlock()
	if m.known == nil || time.Since(m.read) > knownFor {
		m.known, m.read = nil, time.Now()
		if state, err := m.Slots.State(); err == nil {
			m.known = &state
		}
	}
	if m.known == nil {
		return slot.State{}, false
	}
	return *m.known, true
}

// Ended is how many upgrades ended in each way.
func (m *Manager) Ended() map[Stage]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.state.Ended)
}

// Held is how many locks are held.
func (m *Manager) Held() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.state.locks(m.Now()))
}

// Current is the upgrade under way, nil for none.
func (m *Manager) Current() *Upgrade { return m.current() }

// locks are those that have not expired.
func (s *state) locks(now time.Time) []Lock {
	var held []Lock
	for _, l := range s.Locks {
		if l.Until.IsZero() || now.Before(l.Until) {
			held = append(held, l)
		}
	}
	return held
}

// History returns the upgrades that ended, the newest first.
func (m *Manager) History() []*Upgrade {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.Clone(m.state.History)
	slices.Reverse(all)
	return all
}

// Find returns an upgrade by its number, nil where it is not known.
func (m *Manager) Find(number int) *Upgrade {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range append(slices.Clone(m.state.History), m.state.Current) {
		if u != nil && u.Number == number {
			return u.clone()
		}
	}
	return nil
}
