package core

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/ensemble"
)

// Pauses before a worker is started again, and how long one must live to be
// counted as sound.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second
	soundAfter = 10 * time.Second
)

// model is a served model: its supervisor, its memory and its queue.
type model struct {
	Model
	metrics *metrics // shared with the one that it replaces

	readWithin time.Duration // readWithin, but for tests

	queue   queue
	work    work
	ids     atomic.Uint64 // of requests
	usual   atomic.Int64  // ns that recent runs took
	costs   costs
	curve   *curve
	cores   *cores  // of all models
	changes *signal // of the registry
	cache   *cache  // nil: no response is kept

	plan    *ensemble.Plan // nil: it is no ensemble
	resolve func() (*channel.Metadata, error)

	demand *demand // nil: it is always loaded

	states    *states                   // of all models
	sequences atomic.Pointer[sequences] // nil: it has no state, or no worker has been ready

	parallel atomic.Int32           // runs that the engine computes at once
	open     atomic.Bool            // a worker has been ready: requests are taken
	crowd    atomic.Int32           // requests that wait for a slot
	last     *ending                // of the worker, guarded by mu; nil: none has started
	succeeds bool                   // it replaces a model: requests wait for it
	alone    atomic.Pointer[string] // why requests share no runs any more; nil: they may

	users    sync.WaitGroup      // requests that have found it
	shadowed *semaphore.Weighted // requests that it computes as a shadow

	urgent         atomic.Pointer[urgentThreads] // nil: deadlines are not reported
	urgencyProblem atomic.Pointer[string]        // why not, where somebody should be

	ctx    context.Context // ends when the model is served no more
	cancel context.CancelFunc
	done   chan struct{}   // closed when the supervisor has ended
	before <-chan struct{} // closed when the supervisor of an earlier model of this name has; nil: none

	mu       sync.Mutex
	state    State
	message  string
	starts   int
	unloads  int               // workers that were ended because nobody needed them
	conn     *channel.Conn     // nil unless Ready
	changed  signal            // of state
	memory   *memory           // from the first Ready on
	kill     bool              // on stop, kill the worker
	kills    chan struct{}     // holds one token when the living worker is to be killed
	unkilled error             // why the worker to be killed could not be
	metadata *channel.Metadata // of the first worker
	engine   string            // of the last
}

// startModel starts a model, once before is closed, in the place of old; both may
// be nil.
func (r *Registry) startModel(m Model, before <-chan struct{}, old *model) *model {
	if m.Timeout == 0 {
		m.Timeout = time.Minute
	}
	s := &model{Model: m, state: Starting, changes: &r.changes, done: make(chan struct{}), kills: make(chan struct{}, 1), before: before, readWithin: readWithin,
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
	go s.supervise()
	return s
}

// stopPatience bounds how long a caller waits for a worker's end.
const stopPatience = 10 * time.Second

// stop ends the supervisor, and with kill the worker. Where that takes longer
// than patience, it goes on behind the caller's back and stop returns why.
func (m *model) stop(kill bool, patience time.Duration) error {
	m.mu.Lock()
	m.kill = kill
	m.mu.Unlock()
	m.cancel()
	return m.ended(patience)
}

// ended waits for the end of a supervisor that was told to stop.
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
	if m.unkilled != nil {
		return fmt.Errorf("the worker of model %s still runs: %w; killing it is tried again", m.Name, m.unkilled)
	}
	return fmt.Errorf("the worker of model %s has not ended within %v; it is still waited for", m.Name, patience)
}

func (m *model) set(state State, message string, conn *channel.Conn) {
	m.mu.Lock()
	m.state, m.message, m.conn = state, message, conn
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

// supervise keeps a worker alive until the model is stopped or the worker
// refuses it.
func (m *model) supervise() {
	defer close(m.done)
	if m.before != nil {
		<-m.before // its worker ends, or is being killed
	}
	pause, why := firstPause, ""
	for first := true; m.ctx.Err() == nil; first = false {
		if m.demand != nil && !(first && m.Loading.Now) && !m.awaitDemand(why) {
			break
		}
		begin := time.Now()
		err := m.life()
		if why = ""; errors.Is(err, errUnloaded) {
			pause = firstPause
			continue
		}
		var refused *channel.ModelError
		if errors.As(err, &refused) {
			m.set(Failed, refused.Text, nil)
			<-m.ctx.Done()
			break
		}
		if time.Since(begin) > soundAfter {
			pause = firstPause
		}
		why = err.Error()
		m.set(Waiting, why, nil)
		select {
		case <-m.ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
	m.cache.close()
	m.sequences.Load().close()
	if known := m.curve.known(); m.KeepCurve != nil && len(known) > 0 {
		m.KeepCurve(known)
	}
	m.set(Failed, "the model is served no more", nil)
}

// life is one worker's life, from its start to its end. The error says why it
// ended.
func (m *model) life() error {
	m.set(Starting, "", nil)
	worker, err := m.Starter.Start(m.ctx)
	if err != nil {
		return fmt.Errorf("start the worker: %w", err)
	}
	m.mu.Lock()
	m.starts++
	m.mu.Unlock()
	select {
	case <-m.kills: // was meant for an earlier worker
	default:
	}
	ended := make(chan error, 1)
	last := &ending{over: make(chan struct{})}
	m.mu.Lock()
	m.last = last
	m.mu.Unlock()
	go func() {
		err := worker.Wait()
		last.err = err
		close(last.over)
		m.forgetMemory()
		ended <- err
	}()

	accepting, stopAccepting := context.WithCancel(m.ctx)
	defer stopAccepting()
	loading, stopLoading := context.WithCancel(m.ctx)
	defer stopLoading()
	type connected struct {
		conn *channel.Conn
		err  error
	}
	ready := make(chan connected, 1)
	go func() {
		conn, err := m.connect(accepting, loading, worker)
		ready <- connected{conn, err}
	}()
	select {
	case err := <-ended:
		stopAccepting()
		defer time.AfterFunc(lastWords, stopLoading).Stop()
		d := <-ready
		if d.err == nil {
			_ = d.conn.Close() // it ended just as it had become ready
		} else if errors.As(d.err, new(*channel.ModelError)) {
			return d.err // it ended because it refuses the model
		}
		return endedError(err)
	case d := <-ready:
		if d.err != nil {
			m.killUntilEnd(worker, ended)
			return d.err
		}
		defer d.conn.Close()
		m.metrics.loads.Add(1)
		m.set(Ready, "", d.conn)
	}
	var unneeded chan bool // nil: it is always needed
	if m.demand != nil {
		stop := make(chan struct{})
		defer close(stop)
		unneeded = make(chan bool, 1)
		go func() { unneeded <- m.unneeded(stop) }()
	}
	select {
	case <-unneeded:
		if m.killUntilEnd(worker, ended); m.ctx.Err() != nil {
			return m.ctx.Err()
		}
		return errUnloaded
	case err := <-ended:
		return endedError(err)
	case <-m.kills:
		return endedError(m.killUntilEnd(worker, ended))
	case <-m.ctx.Done():
		m.killUntilEnd(worker, ended)
		return m.ctx.Err()
	}
}

// ending is how a worker ended, once over is closed.
type ending struct {
	over chan struct{}
	err  error
}

// outOfMemory reports whether the worker that just failed ended because it needed
// more memory than it may have.
func (m *model) outOfMemory() bool {
	m.mu.Lock()
	last := m.last
	m.mu.Unlock()
	if last == nil {
		return false
	}
	select {
	case <-last.over:
		return errors.Is(last.err, ErrMemory)
	case <-time.After(lastWords):
		return false
	}
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

// killUntilEnd kills the worker, again and again should that fail, until it has
// ended, and returns how. A worker that is to outlive this daemon is left alone.
func (m *model) killUntilEnd(worker Worker, ended <-chan error) error {
	for pause := firstPause; m.ctx.Err() == nil || m.killOnStop(); pause = min(2*pause, lastPause) {
		err := worker.Kill()
		if err != nil {
			m.set(Waiting, fmt.Sprintf("the worker cannot be killed: %v", err), nil)
		}
		m.mu.Lock()
		m.unkilled = err
		m.mu.Unlock()
		var leave <-chan struct{}
		if m.ctx.Err() == nil {
			leave = m.ctx.Done()
		}
		select {
		case err := <-ended:
			return err
		case <-time.After(pause):
		case <-leave:
		}
	}
	return m.ctx.Err()
}

func endedError(err error) error {
	if err == nil {
		return errors.New("the worker ended")
	}
	return fmt.Errorf("the worker ended: %w", err)
}

func (m *model) killOnStop() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kill
}

// lastWords bounds how long what a worker said before it ended is waited for.
const lastWords = time.Second

// connect waits for the worker's connection and has it load the model, which
// may take as long as it takes: the worker's end cuts it short, once what it
// said before is read. While the worker is connected nobody listens.
func (m *model) connect(accepting, loading context.Context, worker Worker) (*channel.Conn, error) {
	l, err := channel.Listen(worker.Socket())
	if err != nil {
		return nil, fmt.Errorf("listen for the worker: %w", err)
	}
	defer l.Close()
	conn, err := l.Accept(accepting, worker.Owns)
	if err != nil {
		return nil, err
	}
	if err = conn.Load(loading, worker.Load()); err == nil {
		err = m.adopt(conn)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// adopt gives the connection the model's shared memory, making it at the first
// time.
func (m *model) adopt(conn *channel.Conn) error {
	meta := conn.Metadata()
	m.mu.Lock()
	mem, first := m.memory, m.metadata
	m.mu.Unlock()
	if m.cache != nil && meta.Streams {
		return &channel.ModelError{Text: "responses that are streamed are not cached: leave out spec.responseCache"}
	}
	if err := m.Reshapes.fits(meta); err != nil {
		return &channel.ModelError{Text: "spec.reshape: " + err.Error()}
	}
	if first != nil && !first.SameModel(meta) {
		return &channel.ModelError{Text: "the worker, started again, says other things of the same model"}
	}
	if mem == nil {
		var err error
		if mem, err = newMemory(meta, m.MaxRequest); err != nil {
			return err
		}
	}
	if first == nil && len(m.Sequencing.States) > 0 {
		all, err := newSequences(m.Sequencing, meta, m.states)
		if err != nil {
			return &channel.ModelError{Text: "spec.sequenceBatching: " + err.Error()}
		}
		m.sequences.Store(all)
	}
	mem.renew()
	if err := conn.Share(mem.region); err != nil {
		return err
	}
	m.mu.Lock()
	m.memory, m.engine = mem, meta.Engine
	if m.metadata == nil {
		m.parallel.Store(int32(meta.Runs()))
		m.metadata = meta // requests and slots are checked against the first
		m.open.Store(true)
	}
	m.mu.Unlock()
	m.makeUrgent(conn.Threads)
	return nil
}

// waitConn returns the connection of the living worker, waiting for it as long
// as ctx allows.
func (m *model) waitConn(ctx context.Context) (*channel.Conn, error) {
	if m.demand != nil {
		m.demand.waiters.Add(1)
		defer m.demand.waiters.Add(-1)
	}
	for {
		changed := m.changed.wait()
		m.mu.Lock()
		state, message, conn := m.state, m.message, m.conn
		m.mu.Unlock()
		switch state {
		case Ready:
			return conn, nil
		case Failed:
			return nil, fmt.Errorf("%w: %s: %s", ErrNotReady, m.Name, message)
		case Idle:
			m.demand.want()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if message != "" {
				message = ": " + message
			}
			return nil, fmt.Errorf("%w: %s is %s%s", ErrNotReady, m.Name, state, message)
		}
	}
}

// broken gives up a connection on which a run failed: the worker is killed,
// in case it still lives, and the supervisor brings the next one.
func (m *model) broken(conn *channel.Conn) {
	m.mu.Lock()
	current := m.conn == conn
	if current {
		m.conn, m.state, m.message = nil, Waiting, "the worker failed"
	}
	m.mu.Unlock()
	if current {
		m.changed.broadcast()
		m.notify()
		_ = conn.Close()
		select {
		case m.kills <- struct{}{}:
		default:
		}
	}
}

func (m *model) status() Status {
	pending := m.pending() // takes queue.mu, which comes before mu
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Status{Name: m.Name, ServedAs: m.ServedAs, Version: m.Version, Platform: m.Platform, Ensemble: m.Ensemble, Engine: m.engine, State: m.state, OnDemand: m.demand != nil, Message: m.message, Restarts: max(0, m.starts-1-m.unloads)}
	if m.metadata != nil {
		s.Inputs, s.Outputs, s.Streams = seen(m.Reshapes.Inputs, m.metadata.Inputs), seen(m.Reshapes.Outputs, m.metadata.Outputs), m.metadata.Streams
	}
	if all := m.sequences.Load(); all != nil {
		s.Inputs, s.Outputs, s.Sequencing, s.Sequences = all.inputs, all.outputs, all.Sequencing, all.count()
	}
	if why := m.alone.Load(); why != nil {
		s.BatchingStopped = *why
	}
	if problem := m.urgencyProblem.Load(); problem != nil {
		s.PriorityUnavailable = *problem
	}
	s.Curve = m.curve.known()
	m.metrics.fill(&s)
	s.Pending = pending
	s.Cache = m.cache.figures()
	return s
}
