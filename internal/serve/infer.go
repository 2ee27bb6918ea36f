package serve

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
)

const (
	headerLength = "Inference-Header-Content-Length"
	// Binary tensors up to this many bytes are read before a slot is taken, so
	// that a slow client holds none; larger ones go from the socket into the
	// slot, and the client has slowClient to send them.
	bufferedBytes = 256 << 10
	slowClient    = 30 * time.Second
	// slotWait bounds how long a request waits for a free slot.
	slotWait = 5 * time.Second
	// keepBuffer bounds the buffer that a pooled call keeps.
	keepBuffer = 1 << 20
)

var (
	errTooLarge = errors.New("request too large")
	errEncoding = errors.New("unsupported content encoding")
)

// call is the memory of one request, reused by later ones.
type call struct {
	request inferRequest
	job     job
	order   []int
	offsets []int
	body    []byte
	reply   []byte
}

type pool struct{ sync.Pool }

func (p *pool) get() *call {
	if c, ok := p.Get().(*call); ok {
		return c
	}
	c := new(call)
	c.job.wake = make(chan bool, 1)
	return c
}

func (p *pool) put(c *call) {
	if cap(c.body) > keepBuffer {
		c.body = nil
	}
	if cap(c.reply) > keepBuffer {
		c.reply = nil
	}
	p.Put(c)
}

func (h *handler) infer(w http.ResponseWriter, r *http.Request) {
	m, err := h.registry.model(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		writeError(w, err)
		return
	}
	begin := time.Now()
	c := h.calls.get()
	defer h.calls.put(c)
	if err = h.answer(m, c, w, r, begin); err != nil {
		writeError(w, err)
	}
	m.metrics.observe(time.Since(begin), m.Objective, err)
}

// answer runs one request. After the first byte of the answer it returns nil.
func (h *handler) answer(m *model, c *call, w http.ResponseWriter, r *http.Request, arrived time.Time) error {
	m.mu.Lock()
	mem, meta, state, message := m.memory, m.metadata, m.state, m.message
	m.mu.Unlock()
	if mem == nil {
		return fmt.Errorf("%w: %s", ErrNotReady, notReady(&Status{Name: m.Name, State: state, Message: message}))
	}
	if err := h.readHeader(c, r); err != nil {
		return err
	}
	q := &c.job.request
	c.job.rank = m.rank(&c.request, arrived)
	var err error
	if c.order, err = c.request.bind(meta, q, c.order); err != nil {
		return err
	}
	var end int
	if c.offsets, end, err = channel.Layout(meta.Inputs, q.Shapes, c.offsets); err != nil {
		return err
	}
	if end > mem.region.SlotBytes() {
		return fmt.Errorf("%w: inputs of %d bytes, at most %d are accepted: send a smaller batch", ErrInvalid, end, mem.region.SlotBytes())
	}
	if err := c.checkBinary(meta); err != nil {
		return err
	}
	if err := c.readBinary(r, bufferedBytes); err != nil {
		return err
	}
	if q.Slot, err = mem.takeSoon(r, c.job.rank.expires); err != nil {
		if late := m.expired(&c.job.rank); late != nil {
			return late
		}
		return fmt.Errorf("%w: %s has %d requests at work", err, m.Name, slotCount)
	}
	used := end
	defer func() { mem.release(q.Slot, used) }()
	slot := mem.region.Slot(q.Slot)
	if err := c.fill(meta, slot, w, r); err != nil {
		return err
	}
	if m.run(&c.job); c.job.err != nil {
		return c.job.err
	}
	if n := len(c.job.result.Offsets); n > 0 {
		last, kind := c.job.result.Shapes[n-1], meta.Outputs[c.outputIndex(n-1)].Type
		size, err := last.Bytes(kind)
		if err != nil {
			return err
		}
		used = max(used, c.job.result.Offsets[n-1]+size)
	}
	return c.write(m, meta, slot, w)
}
