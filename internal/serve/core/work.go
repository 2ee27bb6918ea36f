package core

import (
	"sync"

	"oscine.dev/oscine/internal/serve/channel"
)

// work is what a worker has counted, as it was last told.
type work struct {
	mu     sync.Mutex
	asking bool
	last   channel.Statistics
}

// Work returns what the workers of a model have counted since their start, together,
// and asks them again for the next caller: a worker that computes answers late. The
// numbers are the workers' own word.
func (r *Registry) Work(name string) (channel.Statistics, error) {
	m, err := r.model(name)
	if err != nil {
		return channel.Statistics{}, err
	}
	var all channel.Statistics
	for _, in := range m.instances {
		all.Add(in.counted())
	}
	return all, nil
}

// counted is what the worker of an instance has counted, as it was last told.
func (in *instance) counted() channel.Statistics {
	worker := in.life.Load()
	in.work.mu.Lock()
	defer in.work.mu.Unlock()
	if worker != nil && !in.work.asking {
		in.work.asking = true
		go in.askWork(worker)
	}
	return in.work.last
}

func (in *instance) askWork(worker *life) {
	s, err := worker.conn.Statistics(in.m.Timeout)
	if err != nil {
		in.m.broken(worker) // the worker hangs, or has ended already
	}
	in.work.mu.Lock()
	defer in.work.mu.Unlock()
	in.work.asking = false
	if err == nil {
		in.work.last = s
	}
}
