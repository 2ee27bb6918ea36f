package core

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
)

// restartWait bounds how long requests wait for a worker that restarts.
const restartWait = 10 * time.Second

// queue lets requests of one model run one batch at a time without a
// goroutine of its own: whoever finds the worker idle runs its request at once
// and, when done, hands the lead to the most urgent of those that came
// meanwhile, who runs as many of them as fit as the next batch, by rank. Nothing
// waits for a batch to fill.
type queue struct {
	mu      sync.Mutex
	busy    bool
	waiting []*job
	batch   []*job            // of the leader
	runs    []channel.Request // of the leader
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
	wake    chan bool // true: lead; false: done
}

// run executes the job and returns when its result or error is set.
func (m *model) run(j *job) {
	q := &m.queue
	j.err, j.retried, j.leads = nil, false, false
	q.mu.Lock()
	q.waiting = append(q.waiting, j)
	if q.busy {
		q.mu.Unlock()
		if lead := m.await(j); !lead {
			return
		}
		q.mu.Lock()
	}
	q.busy, j.leads = true, true
	for {
		m.takeBatch(j)
		q.mu.Unlock()
		mine := m.runBatch(j)
		q.mu.Lock()
		if mine {
			break
		}
	}
	if len(q.waiting) > 0 {
		next := slices.MinFunc(q.waiting, byRank)
		next.leads = true
		next.wake <- true
	} else {
		m.lower()
		q.busy = false
	}
	q.mu.Unlock()
}

// takeBatch moves what may run together, the leader's own job always among it,
// from the waiting into the batch. A job that saw a worker die runs alone: it
// may be the reason.
func (m *model) takeBatch(leader *job) {
	q := &m.queue
	limit := 1
	if conn := m.current(); conn != nil && conn.Metadata().Batch && !leader.retried {
		limit = channel.MaxRequests
	}
	q.batch = append(q.batch[:0], leader)
	slices.SortStableFunc(q.waiting, byRank)
	q.waiting = slices.DeleteFunc(q.waiting, func(j *job) bool {
		if j == leader {
			return true
		}
		if len(q.batch) >= limit || j.retried {
			return false
		}
		q.batch = append(q.batch, j)
		return true
	})
}

func (m *model) current() *channel.Conn {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conn
}

// runBatch runs the batch and wakes all but the leader. When the worker died,
// jobs that have not been retried go back to the queue; it reports whether the
// leader's own job is done.
func (m *model) runBatch(leader *job) bool {
	q := &m.queue
	if m.dropUnwanted(leader); len(q.batch) == 0 {
		return true
	}
	results, conn, err := m.exchange()
	if err == nil {
		for i, j := range q.batch {
			j.take(&results[i])
			if j != leader {
				j.wake <- false
			}
		}
		return true
	}
	if conn != nil {
		m.broken(conn)
	}
	var again []*job
	for _, j := range q.batch {
		if conn != nil && !j.retried && m.ctx.Err() == nil {
			j.retried = true
			again = append(again, j)
			continue
		}
		j.err = err
		if j != leader {
			j.wake <- false
		}
	}
	q.mu.Lock()
	q.waiting = append(again, q.waiting...)
	q.mu.Unlock()
	return !slices.Contains(again, leader)
}

// dropUnwanted takes out of the batch what nobody waits for any more.
func (m *model) dropUnwanted(leader *job) {
	q := &m.queue
	q.batch = slices.DeleteFunc(q.batch, func(j *job) bool {
		if j.err = m.unwanted(j); j.err == nil {
			return false
		}
		if j != leader {
			j.wake <- false
		}
		return true
	})
}

// exchange sends the batch to the worker. A nil connection in its answer means
// that there was none.
func (m *model) exchange() ([]channel.Result, *channel.Conn, error) {
	conn := m.current()
	if conn == nil {
		ctx, cancel := context.WithTimeout(m.ctx, restartWait)
		defer cancel()
		var err error
		if conn, err = m.waitConn(ctx); err != nil {
			return nil, nil, err
		}
	}
	q := &m.queue
	q.runs = q.runs[:0]
	for _, j := range q.batch {
		q.runs = append(q.runs, j.request)
	}
	m.raise(q.batch)
	results, err := conn.Run(q.runs, m.Timeout)
	if err != nil {
		err = fmt.Errorf("%w: %s: the worker failed during the inference: %w", ErrNotReady, m.Name, err)
	}
	return results, conn, err
}

// take copies a result out of the connection's memory.
func (j *job) take(r *channel.Result) {
	j.err = nil
	if r.Err != "" {
		j.err = fmt.Errorf("%w: %s", ErrInvalid, r.Err)
		return
	}
	j.result.Offsets = append(j.result.Offsets[:0], r.Offsets...)
	for len(j.result.Shapes) < len(r.Shapes) {
		j.result.Shapes = append(j.result.Shapes, nil)
	}
	j.result.Shapes = j.result.Shapes[:len(r.Shapes)]
	for i, s := range r.Shapes {
		j.result.Shapes[i] = append(j.result.Shapes[i][:0], s...)
	}
}
