package channel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/tensor"
	"oscine.dev/oscine/internal/unixconn"
)

// Conn is the daemon's end of a connection to a worker. It is safe for
// concurrent use. No goroutine of its own reads: of those that wait for an
// answer one reads for all, so that a single one wakes nobody else.
type Conn struct {
	conn   *unixconn.Conn
	raw    syscall.RawConn // of conn
	pid    int
	meta   Metadata
	region *Region

	sending  sync.Mutex
	out      []byte
	sent     bool // of writeNow
	writeNow func(fd uintptr) bool

	mu       sync.Mutex
	slots    []underWay
	waiting  []*waiter
	free     []*waiter // of earlier runs
	reading  bool      // somebody reads, who alone uses in and results
	deadline time.Time // of reading, set on conn; zero: none
	err      error     // why the connection is of no further use

	control  sync.Mutex // of exchanges: one at a time
	in       []byte
	results  []Result
	receiver *linux.Receiver // of in
}

// underWay is a request that the worker has.
type underWay struct {
	id    uint64 // 0: none
	w     *waiter
	index int // among the requests of w
	from  int // where outputs of the next part may begin
}

// waiter is a run, or a control message, whose answer somebody awaits.
type waiter struct {
	wake     chan struct{} // look again
	done     bool
	err      error
	deadline time.Time

	open     int // requests without a final result
	timeout  time.Duration
	requests []Request
	results  []Result
	part     func(int, *Result)

	want   kind // of a control message's answer
	answer []byte
}

// newConn takes the connection of a process over, also where it fails.
func newConn(nc *net.UnixConn, pid int) (*Conn, error) {
	conn, err := unixconn.New(nc)
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c := &Conn{conn: conn, raw: raw, pid: pid, in: make([]byte, MaxMessage), receiver: linux.NewReceiver(raw)}
	c.writeNow = c.sendNow
	return c, nil
}

// PID returns the worker's process, as this one numbers it.
func (c *Conn) PID() int { return c.pid }

// Metadata returns what the worker said of its model.
func (c *Conn) Metadata() *Metadata { return &c.meta }

// Close ends the connection; runs under way fail. A worker that lives connects
// again.
func (c *Conn) Close() error {
	c.fail(net.ErrClosed)
	return nil
}

// Run sends the requests, at most MaxRequests, as one message, so that an
// engine may compute them as one batch, and waits until each has its final
// result, which it writes into results, reusing their memory. Parts of streams
// are given to part, in order and one at a time; it must not block. The worker
// has the timeout for the run and, after each part, for what is left. After an
// error, but for ErrTooLong, the connection is of no further use.
func (c *Conn) Run(requests []Request, results []Result, timeout time.Duration, part func(i int, r *Result)) error {
	if n := RunBytes(requests); n > MaxMessage {
		return fmt.Errorf("%w: its message has %d bytes of at most %d", ErrTooLong, n, MaxMessage)
	}
	w, err := c.begin(requests, results, timeout, part)
	if err != nil {
		return err
	}
	if err := c.write(func(b []byte) []byte { return appendRun(b, requests) }, nil, time.Now().Add(timeout)); err != nil {
		c.fail(err)
	}
	err = c.await(w)
	c.mu.Lock()
	*w = waiter{wake: w.wake}
	select {
	case <-w.wake:
	default:
	}
	c.free = append(c.free, w)
	c.mu.Unlock()
	return err
}

// begin enters the requests as under way.
func (c *Conn) begin(requests []Request, results []Result, timeout time.Duration, part func(int, *Result)) (*waiter, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	if len(requests) == 0 || len(requests) > MaxRequests || len(results) != len(requests) {
		return nil, fmt.Errorf("a run of %d requests with %d results, at most %d are possible", len(requests), len(results), MaxRequests)
	}
	w := c.takeWaiter()
	w.requests, w.results, w.timeout, w.part, w.open = requests, results, timeout, part, len(requests)
	for i := range requests {
		q := &requests[i]
		if q.ID == 0 || q.Slot >= len(c.slots) || c.slots[q.Slot].id != 0 {
			for j := range requests[:i] {
				c.slots[requests[j].Slot] = underWay{}
			}
			return nil, fmt.Errorf("request %d in slot %d of %d, which must be free", q.ID, q.Slot, len(c.slots))
		}
		c.slots[q.Slot] = underWay{id: q.ID, w: w, index: i}
	}
	c.enter(w, time.Now().Add(timeout))
	return w, nil
}

func (c *Conn) takeWaiter() *waiter {
	if n := len(c.free); n > 0 {
		w := c.free[n-1]
		c.free = c.free[:n-1]
		return w
	}
	return &waiter{wake: make(chan struct{}, 1)}
}

// enter makes w one of those that wait. The caller holds mu.
func (c *Conn) enter(w *waiter, deadline time.Time) {
	w.deadline = deadline
	// A read deadline that is earlier than all of theirs is moved when it passes.
	if earlier(deadline, c.deadline) {
		c.setDeadline(deadline)
	}
	c.waiting = append(c.waiting, w)
}

// earlier compares deadlines, of which zero is none.
func earlier(a, b time.Time) bool { return !a.IsZero() && (b.IsZero() || a.Before(b)) }

func (c *Conn) setDeadline(deadline time.Time) {
	if !deadline.Equal(c.deadline) {
		c.deadline = deadline
		_ = c.conn.SetReadDeadline(deadline)
	}
}

// write sends one message. The deadline counts where it has to wait.
func (c *Conn) write(message func([]byte) []byte, oob []byte, deadline time.Time) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	c.out = message(c.out[:0])
	if len(oob) == 0 {
		c.sent = false
		if err := c.raw.Write(c.writeNow); err != nil || c.sent {
			return err
		}
	}
	if err := c.conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	var err error
	bad := c.raw.Write(func(fd uintptr) bool {
		err = unix.Sendmsg(int(fd), c.out, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return !errors.Is(err, unix.EAGAIN)
	})
	return errors.Join(bad, err, c.conn.SetWriteDeadline(time.Time{}))
}

// sendNow sends the message where there is room for it. Errors are the next write's.
func (c *Conn) sendNow(fd uintptr) bool {
	_, err := linux.SendNow(int(fd), c.out)
	c.sent = err == nil
	return true
}

// exchange sends a control message, unless it is empty, and waits for the
// answer.
func (c *Conn) exchange(msg, oob []byte, want kind, deadline time.Time) ([]byte, error) {
	c.control.Lock()
	defer c.control.Unlock()
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return nil, c.err
	}
	w := &waiter{wake: make(chan struct{}, 1), want: want}
	c.enter(w, deadline)
	c.mu.Unlock()
	if len(msg) > 0 {
		if err := c.write(func(b []byte) []byte { return append(b, msg...) }, oob, deadline); err != nil {
			c.fail(err)
		}
	}
	err := c.await(w)
	return w.answer, err
}

func (c *Conn) send(k kind, v any, oob []byte) error {
	msg, err := encode(k, v)
	if err != nil {
		return err
	}
	return c.write(func(b []byte) []byte { return append(b, msg...) }, oob, time.Now().Add(controlWait))
}

// await returns when w is done, and reads for all while no other caller does.
func (c *Conn) await(w *waiter) error {
	c.mu.Lock()
	for !w.done && c.reading {
		c.mu.Unlock()
		<-w.wake
		c.mu.Lock()
	}
	if !w.done {
		c.reading = true
		for !w.done {
			c.mu.Unlock()
			err := c.readOne()
			c.mu.Lock()
			if err != nil {
				c.failLocked(err)
			}
		}
		c.reading = false
		if len(c.waiting) > 0 {
			notify(c.waiting[0])
		}
	}
	c.mu.Unlock()
	return w.err
}

func notify(w *waiter) {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// settle ends the wait of w. The caller holds mu.
func (c *Conn) settle(w *waiter, err error) {
	if w.done {
		return
	}
	w.done, w.err = true, err
	c.waiting = slices.DeleteFunc(c.waiting, func(other *waiter) bool { return other == w })
	notify(w)
}

// fail ends the connection and everything that waits for it.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(err)
}

func (c *Conn) failLocked(err error) {
	if c.err == nil {
		c.err = err
		_ = c.conn.Close() // a Read under way returns
	}
	for len(c.waiting) > 0 {
		c.settle(c.waiting[0], c.err)
	}
}

// readOne reads and handles one message.
func (c *Conn) readOne() error {
	n, came, err := c.receiver.Receive(c.in)
	for _, fd := range came { // a worker has none to send
		_ = unix.Close(fd)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return c.overdue(err)
	case errors.Is(err, io.EOF) || err == nil && n == 0:
		return fmt.Errorf("the worker closed the connection: %w", io.ErrUnexpectedEOF)
	case err != nil:
		return err
	}
	msg := c.in[:n]
	if kind(msg[0]) != resultKind {
		return c.answered(msg)
	}
	c.results, err = decodeResults(msg, c.results)
	for i := range c.results {
		if err == nil {
			err = c.deliver(&c.results[i])
		}
	}
	return err
}

// overdue waits on where the deadline was that of a run which ended since.
func (c *Conn) overdue(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var next time.Time
	for _, w := range c.waiting {
		if earlier(w.deadline, next) {
			next = w.deadline
		}
	}
	if !next.IsZero() && !time.Now().Before(next) {
		return fmt.Errorf("the worker did not answer in time: %w", err)
	}
	c.setDeadline(next)
	return nil
}

// answered takes the answer to a control message.
func (c *Conn) answered(msg []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.waiting {
		if w.want == kind(msg[0]) && w.want != 0 {
			w.answer = slices.Clone(msg)
			c.settle(w, nil)
			return nil
		}
	}
	return fmt.Errorf("%w: unexpected message", ErrProtocol)
}

// deliver gives one result to the run that waits for it.
func (c *Conn) deliver(r *Result) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Slot >= len(c.slots) || r.ID == 0 || c.slots[r.Slot].id != r.ID {
		return fmt.Errorf("%w: result for request %d in slot %d, which was not requested", ErrProtocol, r.ID, r.Slot)
	}
	u := &c.slots[r.Slot]
	q := &u.w.requests[u.index]
	if err := c.check(q, u, r); err != nil {
		return err
	}
	if r.Code == Partial {
		u.w.deadline = time.Now().Add(u.w.timeout)
		for _, w := range c.waiting {
			// A worker that still sends parts has not hung: it may answer behind them.
			if w.want == figuresKind && earlier(w.deadline, u.w.deadline) {
				w.deadline = u.w.deadline
			}
		}
		u.w.part(u.index, r)
		return nil
	}
	w, index := u.w, u.index
	*u = underWay{}
	// The memory of the run's result is used for the next message.
	w.results[index], *r = *r, w.results[index]
	if w.open--; w.open == 0 {
		c.settle(w, nil)
	}
	return nil
}

// check compares a result with what was asked for and with the slot.
func (c *Conn) check(q *Request, u *underWay, r *Result) error {
	want := len(q.Wanted)
	if want == 0 {
		want = len(c.meta.Outputs)
	}
	switch {
	case r.Code == Partial && (!q.Stream || u.w.part == nil):
		return fmt.Errorf("%w: a part of an answer that was asked for as a whole", ErrProtocol)
	case r.Code == OK && q.Stream && len(r.Shapes) == 0:
		return nil // the parts were all
	case r.Code != OK && r.Code != Partial:
		r.Shapes, r.Offsets, r.Sizes = r.Shapes[:0], r.Offsets[:0], r.Sizes[:0]
		return nil
	case len(r.Shapes) != want:
		return fmt.Errorf("%w: %d outputs, want %d", ErrProtocol, len(r.Shapes), want)
	}
	end, total := u.from, 0
	for i, shape := range r.Shapes {
		output := i
		if len(q.Wanted) > 0 {
			output = q.Wanted[i]
		}
		spec := &c.meta.Outputs[output]
		n, err := size(spec, shape, r.Sizes, i)
		if err != nil {
			return fmt.Errorf("%w: output %q: %w", ErrProtocol, spec.Name, err)
		}
		at := r.Offsets[i]
		if n != r.Sizes[i] || n > c.region.SlotBytes || at > c.region.SlotBytes-n || at%Align != 0 {
			return fmt.Errorf("%w: output %q of %s with %d bytes at %d lies outside its slot", ErrProtocol, spec.Name, tensor.Shape(shape), r.Sizes[i], at)
		}
		if r.Code == Partial && at < u.from {
			return fmt.Errorf("%w: output %q of a part lies over the parts before", ErrProtocol, spec.Name)
		}
		if total += n; total > c.region.SlotBytes {
			return fmt.Errorf("%w: outputs of more bytes than a slot has", ErrProtocol)
		}
		end = max(end, at+max(n, 1))
	}
	u.from = Aligned(end)
	return nil
}
