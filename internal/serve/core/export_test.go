package core

import (
	"context"
	"time"
)

// SlotCount is how many slots a model has.
const SlotCount = slotCount

// Waiting says whether a model computes, and how many requests wait for it.
func (r *Registry) Waiting(name string) (busy bool, n int) {
	m, err := r.model(name)
	if err != nil {
		return false, 0
	}
	m.queue.mu.Lock()
	defer m.queue.mu.Unlock()
	return m.queue.leaders > 0, len(m.queue.waiting)
}

// Break gives up the connection to a model's worker, as after a failed run.
func (r *Registry) Break(ctx context.Context, name string) error {
	m, err := r.model(name)
	if err != nil {
		return err
	}
	err = m.waitReady(ctx)
	if in := m.living(); in != nil {
		m.broken(in.life.Load())
	}
	return err
}

// SetPatience bounds how long Remove and Close wait for a worker's end.
func (r *Registry) SetPatience(d time.Duration) { r.patience = d }

// Grows is how many bytes of outputs a model's next request is expected to need.
func (r *Registry) Grows(name string) int64 {
	m, err := r.model(name)
	if err != nil {
		return -1
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.memory.grows.Load()
}

// Overloaded is the refusal of a request to a model while others wait for slots.
func (r *Registry) Overloaded(name string, others int32) error {
	m, err := r.model(name)
	if err != nil {
		return err
	}
	m.crowd.Add(others)
	defer m.crowd.Add(-others)
	return m.overloaded("it is a test")
}

// SetAnswers bounds the bytes of all answers that are not freed.
func (r *Registry) SetAnswers(n int64) { r.answers = newAnswers(n) }

// SetReadWithin bounds how long a part of a model's stream may wait for its client.
func (r *Registry) SetReadWithin(name string, d time.Duration) error {
	m, err := r.model(name)
	if err == nil {
		m.readWithin = d
	}
	return err
}

// SetRestartWait bounds how long a model's requests wait for a worker.
func (r *Registry) SetRestartWait(name string, d time.Duration) {
	if m, err := r.model(name); err == nil {
		m.restartWait = d
	}
}

// FreeSlots is how many slots of a model no request has.
func (r *Registry) FreeSlots(name string) int {
	m, err := r.model(name)
	if err != nil {
		return -1
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.memory.tokens)
}

// Held is how many runs wait for those of other models on their processors.
func (r *Registry) Held() (n int) {
	r.cores.mu.Lock()
	defer r.cores.mu.Unlock()
	for _, t := range r.cores.turns {
		if t.waits {
			n++
		}
	}
	return n
}

// Turns is how many runs have a place in the order of all models.
func (r *Registry) Turns() int {
	r.cores.mu.Lock()
	defer r.cores.mu.Unlock()
	return len(r.cores.turns)
}

// SetStates bounds the bytes of the states of models that are added from now on.
func (r *Registry) SetStates(n int64) { r.states = newStates(n) }

// States are the bytes of all states that are free, and those that a model's
// sequences have in memory.
func (r *Registry) States(name string) (free, memory int64) {
	for r.states.room.TryAcquire(1) {
		free++
	}
	r.states.room.Release(free)
	m, err := r.model(name)
	if err != nil {
		return free, 0
	}
	all := m.sequences.Load()
	all.mu.Lock()
	defer all.mu.Unlock()
	for _, s := range all.all {
		for i := range s.states {
			memory += int64(cap(s.states[i].Data.(Bytes)))
		}
	}
	return free, memory
}
