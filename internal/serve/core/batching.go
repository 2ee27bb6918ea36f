package core

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
)

// Batching is how requests that may share a run do, where the operator knows
// better than the default, which is: at once, with all that wait.
type Batching struct {
	// PreferredRows are the sizes of batches that the model computes best,
	// ascending: the largest that can be filled is taken. None: any.
	PreferredRows []int
	// MostRows bounds the rows of requests that share a run; 0: as many as wait.
	MostRows int
	// Delay bounds how long a request waits for others, unless a batch of the largest
	// preferred size is there. It waits for each no longer than the computing that
	// it would save, where that is known.
	Delay time.Duration
}

// maxDelay bounds Batching.Delay, and maxPreferred the preferred sizes.
const (
	maxDelay     = 10 * time.Second
	maxPreferred = 1 << 16
)

func (b *Batching) check() error {
	if b.Delay < 0 || b.Delay > maxDelay {
		return fmt.Errorf("requests wait %v for others: choose at most %v", b.Delay, maxDelay)
	}
	if b.MostRows < 0 || b.MostRows > maxPreferred {
		return fmt.Errorf("batches of %d rows: choose at most %d", b.MostRows, maxPreferred)
	}
	for i, n := range b.PreferredRows {
		if n < 1 || n > maxPreferred || i > 0 && n <= b.PreferredRows[i-1] {
			return errors.New("preferred sizes of batches must ascend from 1")
		}
	}
	return nil
}

// most is how many of the rows that wait make the next batch; 0 means as many as
// possible.
func (b *Batching) most(rows int64) int64 {
	for _, n := range slices.Backward(b.PreferredRows) {
		if int64(n) <= rows {
			return int64(n)
		}
	}
	return 0
}

// bound is at most MostRows; 0 means as many as possible.
func (b *Batching) bound(rows int64) int64 {
	if most := int64(b.MostRows); most > 0 && (rows == 0 || rows > most) {
		return most
	}
	return rows
}

// enough is how many rows nobody waits beyond.
func (b *Batching) enough() int64 {
	if n := len(b.PreferredRows); n > 0 {
		return int64(b.PreferredRows[n-1])
	}
	return b.bound(channel.MaxRequests)
}

// joins reports whether requests may share runs now.
func (m *model) joins() bool {
	return m.batches.Load() && m.alone.Load() == nil
}

// stopJoining has requests share no runs any more: a worker has found an answer
// that differs from the one computed alone. What is cached may be such answers.
func (m *model) stopJoining(why string) {
	if m.alone.CompareAndSwap(nil, &why) {
		m.cache.clear()
		m.notify()
	}
}

// rows are those of a job's inputs.
func (j *job) rows() int64 {
	if shapes := j.request.Shapes; len(shapes) > 0 && len(shapes[0]) > 0 {
		return shapes[0][0]
	}
	return 1
}

// waitingRows are those of all jobs in the queue. The caller holds queue.mu.
func (m *model) waitingRows() (n int64) {
	for _, j := range m.queue.waiting {
		n += j.rows()
	}
	return n
}

// gathers reports whether a leader waits for others to join its batch.
func (m *model) gathers(leader *job) bool {
	return m.Batching.Delay > 0 && !leader.retried && leader.parts == nil && m.joins()
}

// gather waits for others as long as the model's delay allows and its costs
// justify.
func (m *model) gather(leader *job) {
	if !m.gathers(leader) {
		return
	}
	end := time.Now().Add(m.Batching.Delay)
	timer := time.NewTimer(m.Batching.Delay)
	defer timer.Stop()
	q := &m.queue
	for {
		q.mu.Lock()
		if q.forming == nil {
			q.forming = leader
		}
		rows := m.waitingRows()
		if rows >= m.Batching.enough() {
			q.mu.Unlock()
			return
		}
		if saved, ok := m.curve.saves(rows); ok {
			timer.Reset(min(saved, time.Until(end)))
		}
		if q.more == nil {
			q.more = make(chan struct{})
		}
		more := q.more
		q.mu.Unlock()
		select {
		case <-more:
		case <-timer.C:
			return
		case <-leader.ctx.Done():
			return
		}
	}
}
