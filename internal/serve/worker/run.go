package worker

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

// conn is one connection to a daemon, with the memory that its runs reuse.
type conn struct {
	server *server
	peer   *channel.Peer
	own    *executor // where the engine computes one run at a time, as a whole

	idle     chan *executor // where it computes several, or streams
	watching bool
	gone     atomic.Bool // the daemon: nobody waits for what still runs

	mu      sync.Mutex
	watched []*runContext // those whose Done somebody awaits
	failed  error         // an answer could not be sent
}

// call is one request of a run.
type call struct {
	request  *channel.Request
	result   *channel.Result
	deadline time.Time
	memory   []byte // the slot
	offsets  []int  // of the inputs in memory
	end      int    // first byte behind the inputs; outputs go there
	at       int    // first byte behind the outputs, of a joined run
}

// run computes a run: at once where the engine computes one at a time and
// answers it as a whole, which needs no second thread; else on a thread of its
// own, since a stream may take as long as it likes and the daemon asks for
// figures meanwhile.
func (c *conn) run(requests []channel.Request) error {
	if c.server.session == nil || c.peer.Region() == nil {
		return errors.Join(channel.ErrProtocol, errors.New("a run before a model and its memory"))
	}
	c.watchCancelled()
	if c.own != nil {
		return c.own.run(requests)
	}
	e := <-c.idle
	e.copyRequests(requests)
	e.begin <- struct{}{}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// start makes the executors for the model that was loaded. Their threads have
// their names when it returns: the daemon looks for them once.
func (c *conn) start() {
	n := c.server.meta.Runs()
	_, elsewhere := c.server.session.(Elsewhere)
	if n == 1 && !elsewhere && !c.server.meta.Streams {
		c.own = &executor{conn: c}
		return
	}
	if elsewhere {
		runtime.GOMAXPROCS(1) // more would only look for work: that costs more than the work
	}
	c.idle = make(chan *executor, n)
	for range n {
		e := &executor{conn: c, begin: make(chan struct{})}
		named := make(chan struct{})
		go e.loop(c.idle, named, elsewhere)
		<-named
	}
}

// loop computes what it is given, on a thread of its own unless another process
// computes.
func (e *executor) loop(idle chan<- *executor, named chan<- struct{}, elsewhere bool) {
	if !elsewhere {
		channel.NameThread()
	}
	close(named)
	idle <- e
	for range e.begin {
		if err := e.run(e.requests); err != nil {
			e.conn.mu.Lock()
			e.conn.failed = err
			e.conn.mu.Unlock()
		}
		idle <- e
	}
}

func (c *conn) watchCancelled() {
	if c.watching {
		return
	}
	c.watching = true
	c.peer.Watch(c.look)
}

// look ends the contexts of runs that nobody waits for.
func (c *conn) look() {
	c.mu.Lock()
	watched := slices.Clone(c.watched)
	c.mu.Unlock()
	for _, r := range watched {
		r.look()
	}
}

// abandon ends the runs under way when the daemon is gone.
func (c *conn) abandon() {
	c.gone.Store(true)
	c.look()
	c.finish()
}

// finish waits for the runs under way. What comes next may be for another
// model.
func (c *conn) finish() {
	for range cap(c.idle) {
		close((<-c.idle).begin)
	}
	c.own, c.idle = nil, nil
}

func (c *conn) watch(r *runContext) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watched = append(c.watched, r)
}

func (c *conn) unwatch(r *runContext) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watched = slices.DeleteFunc(c.watched, func(other *runContext) bool { return other == r })
}

// executor computes one run after the other.
type executor struct {
	conn     *conn
	begin    chan struct{}     // where c.idle is in use: the requests are there
	requests []channel.Request // its own copy, where c.idle is in use
	results  []channel.Result
	calls    []call
	valid    []call
	inputs   []Tensor
	answers  []channel.Result
	gathered []Block
	single   [1]call
	out      Output
	ctx      runContext
}

func (e *executor) copyRequests(requests []channel.Request) {
	e.requests = e.requests[:0]
	for _, q := range requests {
		q.Sizes, q.Wanted = slices.Clone(q.Sizes), slices.Clone(q.Wanted)
		shapes := make([]tensor.Shape, len(q.Shapes))
		for i, s := range q.Shapes {
			shapes[i] = slices.Clone(s)
		}
		q.Shapes = shapes
		e.requests = append(e.requests, q)
	}
}

// resize returns s with length n, keeping the elements' own memory for reuse.
func resize[T any](s []T, n int) []T {
	if n <= cap(s) {
		return s[:n]
	}
	return slices.Grow(s[:cap(s)], n-cap(s))[:n]
}

// run answers each request of a run. Its error is that of the connection.
func (e *executor) run(requests []channel.Request) error {
	s, p := e.conn.server, e.conn.peer
	s.figures.requests.Add(int64(len(requests)))
	e.results, e.calls, e.valid = resize(e.results, len(requests)), resize(e.calls, len(requests)), e.valid[:0]
	bad := e.results[:0:0]
	for i := range requests {
		c := &e.calls[i]
		c.request, c.result, c.deadline = &requests[i], &e.results[i], time.Time{}
		r := c.result
		r.ID, r.Slot, r.Code, r.Err = requests[i].ID, requests[i].Slot, channel.OK, ""
		r.Shapes, r.Offsets, r.Sizes = r.Shapes[:0], r.Offsets[:0], r.Sizes[:0]
		var err error
		if c.offsets, c.end, err = p.Check(&s.meta, c.request, c.offsets); err != nil {
			if errors.Is(err, channel.ErrProtocol) {
				return err
			}
			s.answer(r, err)
			bad = append(bad, *r)
			continue
		}
		c.memory = p.Region().Slot(c.request.Slot)
		if c.request.Within != 0 {
			c.deadline = time.Now().Add(c.request.Within)
		}
		e.valid = append(e.valid, *c)
	}
	if len(bad) > 0 {
		if err := p.Answer(bad); err != nil {
			return err
		}
	}
	for calls := e.valid; len(calls) > 0; {
		n := e.next(calls)
		if err := e.runGroup(calls[:n]); err != nil {
			return err
		}
		calls = calls[n:]
	}
	return nil
}

// next is how many of the first calls make one batch.
func (e *executor) next(calls []call) int {
	n := 1
	for e.conn.server.meta.Batch && !e.conn.server.alone.Load() && n < len(calls) && joinable(&calls[0], &calls[n]) {
		n++
	}
	return n
}

// runGroup computes calls as one batch, or each by itself, and answers them.
func (e *executor) runGroup(calls []call) error {
	differs := ""
	joined := len(calls) > 1 && e.runJoined(calls)
	if joined {
		if n := e.conn.server.joined.Add(1); checked(n) {
			if differs = e.checkJoined(calls, n); differs != "" {
				joined = false
				e.conn.server.alone.Store(true)
				e.conn.server.say("%s", differs)
			}
		}
	}
	if !joined {
		for i := range calls {
			e.runOne(&calls[i])
			if calls[i].result.Code == channel.OK {
				calls[i].result.Err = differs // once is enough
				differs = ""
			}
			if err := e.conn.peer.Answer([]channel.Result{*calls[i].result}); err != nil {
				return err
			}
		}
		return nil
	}
	results := e.answers[:0]
	for i := range calls {
		results = append(results, *calls[i].result)
	}
	e.answers = results
	err := e.conn.peer.Answer(results)
	if errors.Is(err, channel.ErrProtocol) { // too long for one message
		for i := range results {
			if err = e.conn.peer.Answer(results[i : i+1]); err != nil {
				return err
			}
		}
	}
	return err
}

// compute calls the engine on the inputs gathered in e.inputs.
func (e *executor) compute(calls []call) error {
	s := e.conn.server
	e.ctx.conn, e.ctx.calls = e.conn, calls
	defer e.ctx.end()
	if err := e.ctx.Err(); err != nil {
		return err
	}
	s.figures.runs.Add(1)
	begin := time.Now()
	err := s.session.Run(&e.ctx, e.inputs, &e.out)
	s.figures.compute.Add(int64(time.Since(begin)))
	if over := e.ctx.Err(); over != nil && err != nil {
		return over
	}
	return err
}

// runOne computes one call on the slot's memory itself.
func (e *executor) runOne(c *call) {
	e.inputs = e.inputs[:0]
	for i, shape := range c.request.Shapes {
		e.inputs = append(e.inputs, Tensor{shape, c.memory[c.offsets[i]:][:c.request.Sizes[i]]})
	}
	s := e.conn.server
	c.result.Shapes, c.result.Offsets, c.result.Sizes = c.result.Shapes[:0], c.result.Offsets[:0], c.result.Sizes[:0]
	e.out = Output{meta: &s.meta, memory: c.memory, at: c.end, result: c.result, wanted: c.request.Wanted, all: e.out.all}
	if len(e.out.wanted) == 0 {
		e.out.wanted = e.out.every()
	}
	if c.request.Stream && s.meta.Streams {
		e.out.send = e.conn.peer
	}
	e.single[0] = *c
	err := e.compute(e.single[:])
	if err == nil {
		err = e.out.complete()
	}
	s.figures.partial.Add(int64(e.out.parts))
	s.answer(c.result, err)
}

// answer says how a request ended.
func (s *server) answer(r *channel.Result, err error) {
	switch {
	case err == nil:
		r.Code, r.Err = channel.OK, ""
		return
	case errors.Is(err, context.Canceled):
		r.Code = channel.Cancelled
		s.figures.cancelled.Add(1)
	case errors.Is(err, context.DeadlineExceeded):
		r.Code = channel.Expired
		s.figures.cancelled.Add(1)
	case errors.Is(err, ErrEngine):
		r.Code = channel.Failed
		s.figures.failed.Add(1)
	default:
		r.Code = channel.Invalid
		s.figures.failed.Add(1)
	}
	r.Err = err.Error()
	r.Shapes, r.Offsets, r.Sizes = r.Shapes[:0], r.Offsets[:0], r.Sizes[:0]
}
