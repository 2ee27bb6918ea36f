package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
)

// restartWait bounds how long requests wait for a worker that restarts.
const restartWait = 10 * time.Second

// queue lets requests of one model run as many batches at a time as its instances
// compute, most often one each, without a goroutine of its own: the one that finds an
// instance idle runs its request there at once and, when done, hands the lead to the
// most urgent of those that came meanwhile, who runs as many of them as fit as the
// next batch, by rank. Nothing waits for a batch to fill, unless the model's
// Batching has it wait and the curve of its costs says that it pays.
type queue struct {
	mu      sync.Mutex
	leaders int  // jobs that lead: their batches run, or are about to
	forming *job // that of them which waits for others to join its batch; nil: none
	seeking *job // that of them which waits for an instance to be ready; nil: none
	waiting []*job
	came    uint64        // jobs that have waited
	leading []*job        // that wait until their run is next on its processors
	more    chan struct{} // closed when another job waits; nil where nobody looks
}

// job is one request in its slot.
type job struct {
	ctx     context.Context // ends when the client goes away
	request channel.Request
	result  channel.Result // own memory, reused
	err     error
	rank    rank
	retried bool
	leads   bool      // it was told to lead, and waits no more
	on      *instance // on which it leads; nil: it leads on none
	turn    *turn     // among the runs of all models; nil: none
	wake    chan bool // true: lead; false: done
	parts   *parts    // of a stream; nil: the answer is wanted as a whole
	writer  *life     // of a worker that may still write into the slot; nil: none
	times   *Times    // of a request that somebody follows; nil: none
	arrived time.Time // the request
	came    uint64    // how many have waited up to it

	// Memory of the batches that it leads.
	batch   []*job
	runs    []channel.Request
	results []channel.Result
}

// run executes the job and returns when its result or error is set.
func (m *model) run(j *job) {
	q := &m.queue
	j.err, j.retried, j.leads, j.on, j.writer = nil, false, false, nil, nil
	q.mu.Lock()
	q.add(j)
	for _, leader := range q.leading {
		m.cores.hasten(leader, j)
	}
	if q.more != nil {
		close(q.more)
		q.more = nil
	}
	var in *instance
	if q.forming == nil {
		in = m.idle()
	}
	if in == nil && q.leaders > 0 {
		q.mu.Unlock()
		if lead := m.await(j); !lead {
			return
		}
	} else {
		m.appoint(j, in)
		q.mu.Unlock()
	}
	for m.lead(j) {
		if lead := m.await(j); !lead {
			return
		}
	}
}

// lead runs batches until the job is done, and passes the lead on, unless it
// yielded it before the job's batch began.
func (m *model) lead(j *job) (yielded bool) {
	defer func() {
		if !yielded {
			m.passOn(j)
		}
	}()
	q := &m.queue
	for done := false; !done; {
		j.times.forms()
		yielded, err := m.seat(j)
		if !yielded && err == nil {
			m.gather(j)
			yielded, err = m.takeTurn(j)
		}
		if yielded {
			return true // what becomes of the job is another leader's from here on
		}
		if j.err = err; err != nil {
			return false
		}
		q.mu.Lock()
		q.formed(j)
		m.takeBatch(j)
		m.handOut()
		q.mu.Unlock()
		j.formed()
		if done = m.runBatch(j); !done {
			m.cores.leave(j)
		}
	}
	return false
}

// takeTurn waits until the run that a job leads is next on its processors, or the
// job has yielded the lead. A job that is refused leaves the queue.
func (m *model) takeTurn(j *job) (yielded bool, err error) {
	if len(j.on.CPUs) == 0 {
		return false, nil
	}
	q := &m.queue
	q.mu.Lock()
	q.leading = append(q.leading, j)
	q.formed(j)
	m.handOut() // other instances need not wait for a turn on the processors of this one
	q.mu.Unlock()
	yielded, err = m.cores.enter(m, j)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.leading = slices.DeleteFunc(q.leading, func(other *job) bool { return other == j })
	if err != nil {
		q.drop(j)
	}
	return yielded, err
}

// formed notes that a leader waits for no others to join its batch any more. The
// caller holds mu.
func (q *queue) formed(leader *job) {
	if q.forming == leader {
		q.forming = nil
	}
}

// add has a job wait. The caller holds mu.
func (q *queue) add(j *job) {
	q.came++
	j.came = q.came
	q.waiting = append(q.waiting, j)
}

// refuse ends the jobs that wait and came before others. The caller holds mu.
func (q *queue) refuse(before uint64, err error) {
	q.waiting = slices.DeleteFunc(q.waiting, func(j *job) bool {
		if j.leads || j.came > before {
			return false
		}
		j.err = err
		j.wake <- false
		return true
	})
}

// drop takes a job out of those that wait. The caller holds mu.
func (q *queue) drop(j *job) {
	q.waiting = slices.DeleteFunc(q.waiting, func(other *job) bool { return other == j })
}

// yield hands the lead of a run that is held to a waiting job that nothing would
// hold. It reports whether there was one: then the leader waits again.
func (m *model) yield(leader *job) bool {
	q := &m.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	next := q.next(func(j *job) bool { return !j.ordered() })
	if next == nil {
		return false
	}
	m.cores.leave(leader)
	leader.leads, next.leads, leader.on, next.on = false, true, nil, leader.on
	next.wake <- true
	return true
}

// next is the most urgent of those that wait, and may, nil where there is none.
// The caller holds mu.
func (q *queue) next(may func(*job) bool) (next *job) {
	for _, j := range q.waiting {
		// One that leads already has not taken its batch yet.
		if !j.leads && may(j) && (next == nil || byRank(j, next) < 0) {
			next = j
		}
	}
	return next
}

// passOn hands the lead to the next, however it ended: all in the batch of a leader
// that failed half-way get an answer.
func (m *model) passOn(leader *job) {
	defer m.cores.leave(leader) // once the next one has its place
	for _, j := range leader.batch {
		if j != leader {
			j.err = fmt.Errorf("%s: the request was lost with another one; the node's log says why", m.Name)
			j.wake <- false
		}
	}
	clear(leader.batch)
	leader.batch = leader.batch[:0]
	q := &m.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	in := leader.on
	leader.on = nil // until it is known whether another one leads there
	q.leave(leader)
	if in != nil {
		in.leads--
	}
	m.handOut()
	if in != nil && in.leads == 0 {
		in.lower()
	}
	if q.leaders > 0 {
		return
	}
	if next := q.next(func(*job) bool { return true }); next != nil { // no instance is ready
		m.appoint(next, nil)
		next.wake <- true
	}
}

// takeBatch moves what may run together, the leader's own job always among it,
// from the waiting into the batch. A job that saw a worker die runs alone: it
// may be the reason. So does a stream.
func (m *model) takeBatch(leader *job) {
	q := &m.queue
	limit := 1
	if m.joins() && !leader.retried && leader.parts == nil {
		limit = channel.MaxRequests
	}
	batch := append(leader.batch[:0], leader)
	bytes, message := leader.inputBytes(), channel.RunBytes([]channel.Request{leader.request})
	slices.SortStableFunc(q.waiting, byRank)
	waiting := m.waitingRows()
	rows, most := leader.rows(), m.Batching.most(waiting)
	if limit > 1 && len(m.Batching.PreferredRows) == 0 {
		most = m.curve.most(waiting)
	}
	most = m.Batching.bound(most)
	q.waiting = slices.DeleteFunc(q.waiting, func(j *job) bool {
		if j == leader {
			return true
		}
		n := channel.RunBytes([]channel.Request{j.request})
		if len(batch) >= limit || message+n > channel.MaxMessage || j.retried || j.leads || j.parts != nil || bytes+j.inputBytes() > joinedBytes || most > 0 && rows+j.rows() > most {
			return false
		}
		bytes += j.inputBytes()
		message += n
		rows += j.rows()
		batch = append(batch, j)
		return true
	})
	leader.batch = batch
}

// joinedBytes bounds the inputs of requests that share a run, which the worker
// copies: what is larger gains nothing from company.
const joinedBytes = 16 << 20

func (j *job) inputBytes() (n int) {
	for _, size := range j.request.Sizes {
		n += size
	}
	return n
}

// finish tells a job of the leader's batch that it is done.
func (leader *job) finish(j *job) {
	if j != leader {
		j.wake <- false
	}
}

// runBatch runs the batch and wakes all but the leader. When the worker died,
// jobs that have not been retried go back to the queue, once it has ended: what it
// still wrote would be in their slots. It reports whether the leader's own job is done.
func (m *model) runBatch(leader *job) bool {
	if m.dropUnwanted(leader); len(leader.batch) == 0 {
		return true
	}
	worker, err := m.exchange(leader)
	batch := leader.batch
	leader.batch = leader.batch[:0]
	if err != nil {
		return m.lost(leader, batch, worker, err)
	}
	for i, j := range batch {
		j.writer = nil // where it was retried, the worker before has ended
		m.take(j, &leader.results[i])
		leader.finish(j)
	}
	return true
}

// lost ends a run that a worker did not answer, or that no worker has seen where
// that is nil. It reports whether the leader's own job is done.
func (m *model) lost(leader *job, batch []*job, worker *life, err error) (done bool) {
	guilty := false // the worker died of this request
	if worker != nil {
		m.broken(worker)
		if guilty = len(batch) == 1 && worker.outOfMemory(); guilty {
			err = fmt.Errorf("%w: %s: the request needed more memory than its worker may have (spec.resources.memory); the worker starts again, the request is not tried again", ErrMemory, m.Name)
		}
	}
	var again []*job
	for _, j := range batch {
		if worker != nil {
			j.writer = worker
		}
		if errors.Is(err, errUnseated) || worker != nil && !guilty && !j.retried && m.ctx.Err() == nil && !j.parts.begun() {
			again = append(again, j)
			continue
		}
		j.err = err
		leader.finish(j)
	}
	if len(again) == 0 {
		return true
	}
	if worker != nil {
		ctx, cancel := context.WithTimeout(m.ctx, m.restartWait)
		defer cancel()
		if !worker.ended(ctx) {
			for _, j := range again {
				j.err = err
				leader.finish(j)
			}
			return true
		}
	}
	m.queue.mu.Lock()
	defer m.queue.mu.Unlock()
	for _, j := range again {
		j.retried = j.retried || worker != nil
		m.queue.add(j)
	}
	m.handOut()
	return !slices.Contains(again, leader)
}

// errUnseated means that the worker which was to compute a batch has gone before it
// saw it.
var errUnseated = errors.New("no worker has seen the requests")

// dropUnwanted takes out of the batch what nobody waits for any more.
func (m *model) dropUnwanted(leader *job) {
	leader.batch = slices.DeleteFunc(leader.batch, func(j *job) bool {
		if j.err = m.unwanted(j); j.err == nil {
			j.err = m.hopeless(j)
		}
		if j.err == nil {
			return false
		}
		leader.finish(j)
		return true
	})
}

// exchange sends the batch to the leader's worker, and says which. Where that is nil
// no worker has seen it.
func (m *model) exchange(leader *job) (*life, error) {
	worker := leader.on.life.Load()
	if worker == nil {
		return nil, errUnseated
	}
	leader.runs = leader.runs[:0]
	for _, j := range leader.batch {
		q := j.request
		if q.Within = 0; !j.rank.expires.IsZero() {
			q.Within = -1
			if left := time.Until(j.rank.expires); left > 0 {
				q.Within = left
			}
		}
		leader.runs = append(leader.runs, q)
	}
	for len(leader.results) < len(leader.runs) {
		leader.results = append(leader.results, channel.Result{})
	}
	leader.on.raise(leader.batch)
	if m.worthStopping(leader) {
		id, slot := leader.request.ID, leader.request.Slot
		stop := context.AfterFunc(leader.ctx, func() { m.stopComputing(slot, id) })
		defer stop()
	}
	leader.note(sent)
	begin := time.Now()
	err := worker.conn.Run(leader.runs, leader.results[:len(leader.runs)], m.Timeout, leader.parts.sink())
	leader.note(ended)
	if errors.Is(err, channel.ErrTooLong) {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, m.Name, err) // the worker has not seen it
	}
	if err != nil {
		return worker, fmt.Errorf("%w: %s: the worker failed during the inference: %w", ErrNotReady, m.Name, err)
	}
	took := time.Since(begin)
	m.usual.Store(int64(took)/8 + m.usual.Load()*7/8)
	m.costs.observe(leader.runs, took)
	leader.on.runs.Add(1)
	rows := m.metrics.ran(leader.batch, begin)
	if leader.parts == nil && worker.conn.Metadata().Batch {
		m.curve.observe(rows, took)
	}
	return worker, nil
}

// stoppable is how long a model's runs take for it to be worth arranging that
// the one that leads can be stopped when its client leaves.
const stoppable = 2 * time.Millisecond

func (m *model) worthStopping(leader *job) bool {
	// To ask for Done may cost a watcher of the client's connection.
	return (leader.parts != nil || m.usual.Load() > int64(stoppable)) && leader.ctx.Done() != nil
}

// stopComputing tells the worker that nobody waits for a request any more. It
// answers all the same, as soon as its engine lets it.
func (m *model) stopComputing(slot int, id uint64) {
	m.mu.Lock()
	mem := m.memory
	m.mu.Unlock()
	mem.region.Cancel(slot, id)
}

// take gives a job its result, in exchange for the memory of its last one.
func (m *model) take(j *job, r *channel.Result) {
	j.result, *r = *r, j.result
	switch j.result.Code {
	case channel.OK:
		j.err = nil
		if j.result.Err != "" {
			m.stopJoining(j.result.Err)
		}
	case channel.Cancelled:
		j.err = fmt.Errorf("%w: the client went away while %s had its request", ErrCanceled, m.Name)
	case channel.Expired:
		j.err = fmt.Errorf("%w: the request's timeout passed before %s had computed it", ErrExpired, m.Name)
	case channel.Failed:
		j.err = fmt.Errorf("%s: the engine failed: %s", m.Name, j.result.Err)
	default:
		j.err = fmt.Errorf("%w: %s", ErrInvalid, j.result.Err)
	}
}
