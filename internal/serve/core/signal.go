package core

import "sync"

// signal wakes all that wait for the next change of something. Who waits takes
// the channel before it looks at what may change.
type signal struct {
	mu   sync.Mutex
	next chan struct{} // closed at the next change; nil: nobody waits
}

func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = make(chan struct{})
	}
	return s.next
}

func (s *signal) broadcast() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil {
		close(s.next)
		s.next = nil
	}
}
