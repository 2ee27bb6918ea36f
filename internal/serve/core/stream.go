package core

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

// maxUnread bounds the parts of a stream that its client has not taken: one that
// reads that slowly is given up.
const maxUnread = 4096

// readWithin is how long a part may wait for the client to take it: a slot, and
// most often a turn of the engine, wait with it.
const readWithin = time.Minute

// parts are those of one stream that nobody has taken yet. Their tensors lie in
// the slot, one behind the other, until the stream ends.
type parts struct {
	more chan struct{} // holds a token when there is something to take, or the end

	mu     sync.Mutex
	unread []unreadPart
	any    bool // the worker has sent a part
	over   bool // too many are unread
	ended  bool
	stop   func()
}

// begun reports whether an answer has begun, which is then not to be computed
// once more.
func (p *parts) begun() bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.any
}

// sink is where the channel puts parts; nil for an answer as a whole.
func (p *parts) sink() func(int, *channel.Result) {
	if p == nil {
		return nil
	}
	return p.put
}

func (p *parts) put(_ int, r *channel.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.any = true
	if len(p.unread) >= maxUnread {
		if !p.over {
			p.over = true
			p.stop()
		}
		return
	}
	part := unreadPart{channel.Result{Offsets: slices.Clone(r.Offsets), Sizes: slices.Clone(r.Sizes)}, time.Now()}
	for _, s := range r.Shapes {
		part.Shapes = append(part.Shapes, append(tensor.Shape{}, s...))
	}
	p.unread = append(p.unread, part)
	p.signal()
}

// unreadPart is a part and when it came.
type unreadPart struct {
	channel.Result
	came time.Time
}

func (p *parts) signal() {
	select {
	case p.more <- struct{}{}:
	default:
	}
}

// take returns the parts that have come, and whether they were the last.
func (p *parts) take() ([]unreadPart, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	unread := p.unread
	p.unread = nil
	return unread, p.ended
}

// stream runs a job whose answer comes in parts, each of which is given to the
// request's Part. The slot is held until the last. It returns up to where parts
// reach in the slot.
func (m *model) stream(j *job, a *answer, meta *channel.Metadata, slot []byte, part func(*Response) error) (reached int, err error) {
	whole := j.ctx
	ctx, cancel := context.WithCancel(whole)
	defer cancel()
	j.ctx = ctx
	defer func() { j.ctx = whole }()
	p := &parts{more: make(chan struct{}, 1), stop: cancel}
	j.parts = p
	defer func() { j.parts = nil }()
	go func() {
		m.run(j)
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
		p.signal()
	}()
	var refused error
	for ended := false; !ended; {
		<-p.more
		var unread []unreadPart
		unread, ended = p.take()
		for i := range unread {
			if refused != nil {
				break
			}
			var end int
			if time.Since(unread[i].came) > m.readWithin {
				refused = m.slow()
			} else if end, refused = j.collectFrom(&unread[i].Result, a, meta, slot); refused == nil {
				reached = max(reached, end)
				refused = part(&Response{Model: m.ServedAs, Version: m.Version, Outputs: a.outputs})
			}
			if refused != nil {
				cancel()
			}
		}
	}
	switch {
	case refused != nil:
		return reached, refused
	case p.over:
		return reached, m.slow()
	}
	return reached, j.err
}

func (m *model) slow() error {
	return fmt.Errorf("%w: the client reads the answer of %s too slowly", ErrCanceled, m.Name)
}
