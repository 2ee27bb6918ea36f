package core

import (
	"sync"

	"oscine.dev/oscine/internal/serve/channel"
)

// work is what a model's worker has counted, as it was last told.
type work struct {
	mu     sync.Mutex
	asking bool
	last   channel.Statistics
}

// Work returns what the worker of a model has counted since its start, and asks
// it again for the next caller: a worker that computes answers late. The numbers
// are the worker's own word.
func (r *Registry) Work(name string) (channel.Statistics, error) {
	m, err := r.model(name)
	if err != nil {
		return channel.Statistics{}, err
	}
	conn := m.current()
	m.work.mu.Lock()
	defer m.work.mu.Unlock()
	if conn != nil && !m.work.asking {
		m.work.asking = true
		go m.askWork(conn)
	}
	return m.work.last, nil
}

func (m *model) askWork(conn *channel.Conn) {
	s, err := conn.Statistics(m.Timeout)
	if err != nil {
		m.broken(conn) // the worker hangs, or has ended already
	}
	m.work.mu.Lock()
	defer m.work.mu.Unlock()
	m.work.asking = false
	if err == nil {
		m.work.last = s
	}
}
