package core

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/ensemble"
)

// model is a served model: its instances, its memory and its queue.
type model struct {
	Model
	metrics *metrics // shared with the one that it replaces

	readWithin  time.Duration // readWithin, but for tests
	restartWait time.Duration // restartWait, but for tests

	instances []*instance // none: it is an ensemble
	queue     queue
	ids       atomic.Uint64 // of requests
	usual     atomic.Int64  // ns that recent runs took
	costs     costs
	curve     *curve
	cores     *cores  // of all models
	changes   *signal // of the registry
	cache     *cache  // nil: no response is kept

	plan    *ensemble.Plan // nil: it is no ensemble
	resolve func() (*channel.Metadata, error)

	demand *demand // nil: it is always loaded

	states    *states                   // of all models
	sequences atomic.Pointer[sequences] // nil: it has no state, or no worker has been ready

	parallel atomic.Int32           // runs that the engine of one instance computes at once
	batches  atomic.Bool            // the engine computes several requests in one run
	open     atomic.Bool            // a worker has been ready: requests are taken
	crowd    atomic.Int32           // requests that wait for a slot
	succeeds bool                   // it replaces a model: requests wait for it
	alone    atomic.Pointer[string] // why requests share no runs any more; nil: they may

	users    sync.WaitGroup      // requests that have found it
	shadowed *semaphore.Weighted // requests that it computes as a shadow

	ctx    context.Context // ends when the model is served no more
	cancel context.CancelFunc
	done   chan struct{}   // closed when the supervisors have ended
	before <-chan struct{} // closed when the supervisors of an earlier model of this name have; nil: none

	changed  signal     // of an instance's state
	adopting sync.Mutex // held while a worker's word of the model is taken

	mu       sync.Mutex
	state    State // of all instances, see summarize
	message  string
	memory   *memory           // from the first Ready on
	kill     bool              // on stop, kill the workers
	metadata *channel.Metadata // of the first worker
	engine   string            // of the last
}

// startModel starts a model, once before is closed, in the place of old; both may
// be nil.
func (r *Registry) startModel(m Model, before <-chan struct{}, old *model) *model {
	if m.Timeout == 0 {
		m.Timeout = time.Minute
	}
	s := &model{Model: m, state: Starting, changes: &r.changes, done: make(chan struct{}), before: before, readWithin: readWithin, restartWait: restartWait,
		metrics: new(metrics), cores: &r.cores, states: r.states, shadowed: semaphore.NewWeighted(maxShadowed)}
	if old != nil {
		s.metrics, s.succeeds = old.metrics, true
	}
	if m.Loading.OnDemand {
		s.Loading.Idle, s.demand = cmp.Or(m.Loading.Idle, DefaultLoadedIdle), newDemand()
	}
	s.curve = newCurve(m.Curve)
	s.cache = newCache(m.Cache, r.cached, s.metrics)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if e := m.Ensemble; e != nil {
		s.plan, _ = ensemble.Arrange(e.Steps, e.Outputs) // checked with the model
		s.resolve = func() (*channel.Metadata, error) { return r.resolve(e, s.plan) }
		go s.follow()
		return s
	}
	for i, in := range m.Instances {
		s.instances = append(s.instances, &instance{Instance: in, m: s, number: i, state: Starting, kills: make(chan struct{}, 1), unload: make(chan struct{}, 1)})
	}
	go s.superviseAll()
	return s
}

// stopPatience bounds how long a caller waits for a worker's end.
const stopPatience = 10 * time.Second

// stop ends the supervisors, and with kill the workers. Where that takes longer
// than patience, it goes on behind the caller's back and stop returns why.
func (m *model) stop(kill bool, patience time.Duration) error {
	m.mu.Lock()
	m.kill = kill
	m.mu.Unlock()
	m.cancel()
	return m.ended(patience)
}

// ended waits for the end of the supervisors that were told to stop.
func (m *model) ended(patience time.Duration) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-m.done:
		return nil
	case <-timer.C:
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, in := range m.instances {
		if in.unkilled != nil {
			return fmt.Errorf("the worker of model %s still runs: %w; killing it is tried again", m.Name, in.unkilled)
		}
	}
	return fmt.Errorf("the worker of model %s has not ended within %v; it is still waited for", m.Name, patience)
}

// set changes the state of an ensemble, or of a model whose workers have ended.
func (m *model) set(state State, message string) {
	m.mu.Lock()
	m.state, m.message = state, message
	m.mu.Unlock()
	m.changed.broadcast()
	m.notify()
}

// notify tells others of a change.
func (m *model) notify() {
	m.changes.broadcast()
	if m.OnChange != nil {
		m.OnChange()
	}
}

// superviseAll keeps the workers of all instances alive until the model is stopped.
func (m *model) superviseAll() {
	defer close(m.done)
	if m.before != nil {
		<-m.before // its workers end, or are being killed
	}
	var all sync.WaitGroup
	for _, in := range m.instances {
		all.Go(in.supervise)
	}
	all.Wait()
	m.cache.close()
	m.sequences.Load().close()
	if known := m.curve.known(); m.KeepCurve != nil && len(known) > 0 {
		m.KeepCurve(known)
	}
	m.set(Failed, "the model is served no more")
}

// forgetMemory gives back what a worker that has ended left in shared memory.
func (m *model) forgetMemory() {
	m.mu.Lock()
	mem := m.memory
	m.mu.Unlock()
	if mem != nil {
		mem.renew()
	}
}

func (m *model) killOnStop() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kill
}

// learn takes what a worker says of its model: the first decides what requests and
// slots are checked against, those after it must say the same.
func (m *model) learn(meta *channel.Metadata) (*memory, error) {
	m.adopting.Lock()
	defer m.adopting.Unlock()
	m.mu.Lock()
	mem, first := m.memory, m.metadata
	m.mu.Unlock()
	if m.cache != nil && meta.Streams {
		return nil, &channel.ModelError{Text: "responses that are streamed are not cached: leave out spec.responseCache"}
	}
	if err := m.Reshapes.fits(meta); err != nil {
		return nil, &channel.ModelError{Text: "spec.reshape: " + err.Error()}
	}
	if first != nil && !first.SameModel(meta) {
		return nil, &channel.ModelError{Text: "the worker, started again, says other things of the same model"}
	}
	if mem == nil {
		var err error
		if mem, err = newMemory(meta, m.MaxRequest); err != nil {
			return nil, err
		}
	}
	if first == nil && len(m.Sequencing.States) > 0 {
		all, err := newSequences(m.Sequencing, meta, m.states)
		if err != nil {
			return nil, &channel.ModelError{Text: "spec.sequenceBatching: " + err.Error()}
		}
		m.sequences.Store(all)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.memory, m.engine = mem, meta.Engine
	if m.metadata == nil {
		m.parallel.Store(int32(meta.Runs()))
		m.batches.Store(meta.Batch)
		m.metadata = meta
		m.open.Store(true)
	}
	return mem, nil
}

// waitReady waits until an instance is ready, as long as ctx allows.
func (m *model) waitReady(ctx context.Context) error {
	if m.demand != nil {
		m.demand.waiters.Add(1)
		defer m.demand.waiters.Add(-1)
	}
	for {
		changed := m.changed.wait()
		m.mu.Lock()
		state, message := m.state, m.message
		m.mu.Unlock()
		switch state {
		case Ready:
			return nil
		case Failed:
			return fmt.Errorf("%w: %s: %s", ErrNotReady, m.Name, message)
		case Idle:
			m.demand.want()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if message != "" {
				message = ": " + message
			}
			return fmt.Errorf("%w: %s is %s%s", ErrNotReady, m.Name, state, message)
		}
	}
}

// broken gives up a worker with which a run failed: it is killed, in case it still
// lives, and its supervisor brings the next one.
func (m *model) broken(worker *life) {
	in := worker.in
	m.mu.Lock()
	current := in.life.CompareAndSwap(worker, nil)
	if current {
		in.state, in.message = Waiting, "the worker failed"
		m.summarize()
	}
	m.mu.Unlock()
	if current {
		m.changed.broadcast()
		m.notify()
		_ = worker.conn.Close()
		select {
		case in.kills <- struct{}{}:
		default:
		}
	}
}

func (m *model) status() Status {
	pending := m.pending() // takes queue.mu, which comes before mu
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Status{Name: m.Name, ServedAs: m.ServedAs, Version: m.Version, Platform: m.Platform, Ensemble: m.Ensemble, Engine: m.engine, State: m.state, OnDemand: m.demand != nil, Message: m.message}
	for _, in := range m.instances {
		one := InstanceStatus{State: in.state, Message: in.message, Restarts: max(0, in.starts-1-in.unloads), Runs: in.runs.Load()}
		s.Instances = append(s.Instances, one)
		s.Restarts += one.Restarts
		if problem := in.urgencyProblem.Load(); problem != nil {
			s.PriorityUnavailable = *problem
		}
	}
	if m.metadata != nil {
		s.Inputs, s.Outputs, s.Streams = seen(m.Reshapes.Inputs, m.metadata.Inputs), seen(m.Reshapes.Outputs, m.metadata.Outputs), m.metadata.Streams
	}
	if all := m.sequences.Load(); all != nil {
		s.Inputs, s.Outputs, s.Sequencing, s.Sequences = all.inputs, all.outputs, all.Sequencing, all.count()
	}
	if why := m.alone.Load(); why != nil {
		s.BatchingStopped = *why
	}
	s.Curve = m.curve.known()
	m.metrics.fill(&s)
	s.Pending = pending
	s.Cache = m.cache.figures()
	return s
}
