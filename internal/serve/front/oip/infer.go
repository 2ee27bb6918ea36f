package oip

import (
	"net/http"
	"sync"
	"time"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
)

const (
	headerLength = "Inference-Header-Content-Length"
	// checkBytes is how many binary data are read before core has seen the
	// request; more are only read when it accepts all the rest.
	checkBytes = 256 << 10
	// joinBytes is up to where binary outputs are copied behind the JSON, so that
	// the answer is one write.
	joinBytes = 64 << 10
	// keepBuffer bounds the buffers that a pooled call keeps.
	keepBuffer = 1 << 20
)

// call is the memory of one request, reused by later ones.
type call struct {
	request inferRequest
	inputs  []core.Input
	outputs []string
	body    []byte
	known   []byte // the JSON that request was read from, where nothing of it changes by the body; empty: none
	reply   []byte
	parts   [][]byte
}

type pool struct{ sync.Pool }

func (p *pool) get() *call {
	if c, ok := p.Get().(*call); ok {
		return c
	}
	return new(call)
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
	h.inferModel(w, r, r.PathValue("model"), r.PathValue("version"))
}

func (h *handler) inferModel(w http.ResponseWriter, r *http.Request, model, version string) {
	q := core.Request{Model: model, Version: version, Arrived: time.Now()}
	if err := h.registry.Accepts(r.Context(), &q); err != nil {
		front.Error(w, err)
		return
	}
	c := h.calls.get()
	defer h.calls.put(c)
	body, err := h.options.Body(w, r)
	if err == nil {
		defer body.Close()
		err = h.read(c, &q, &body, r)
	}
	if err != nil {
		h.registry.Refused(q.Model, q.Version)
		front.Error(w, err)
		return
	}
	response, err := h.registry.Infer(r.Context(), q)
	if err != nil {
		front.Error(w, err)
		return
	}
	defer response.Free()
	if err := ClassifyAll(response.Outputs, c.request.outputs, h.registry.Outputs(q.Model, q.Version)); err != nil {
		front.Error(w, err)
		return
	}
	if err := c.write(&response, w); err != nil {
		front.Error(w, err)
	}
}

// read makes the HTTP request one to core.
func (h *handler) read(c *call, q *core.Request, body *front.Body, r *http.Request) error {
	defer body.Done()
	if err := c.readHeader(body, r); err != nil {
		return err
	}
	if err := c.request.checkBinary(); err != nil {
		return err
	}
	if err := c.request.findPlaces(r.Context()); err != nil {
		return err
	}
	if err := c.checkOutputs(h.registry.Outputs(q.Model, q.Version)); err != nil {
		return err
	}
	c.fill(q)
	within, err := front.Timeout(r.Header)
	if err != nil {
		return err
	}
	if within > 0 && (q.Timeout == 0 || within < q.Timeout) {
		q.Timeout = within
	}
	if c.request.binary > checkBytes {
		if err := h.registry.Accepts(r.Context(), q); err != nil {
			return err
		}
	}
	return c.readBinary(body)
}

// fill gives q what the JSON says.
func (c *call) fill(q *core.Request) {
	c.inputs, c.outputs = c.inputs[:0], c.outputs[:0]
	for i := range c.request.inputs {
		in := &c.request.inputs[i]
		c.inputs = append(c.inputs, core.Input{Name: in.name, Type: in.kind, Shape: in.shape, Data: in})
	}
	for i := range c.request.outputs {
		c.outputs = append(c.outputs, c.request.outputs[i].Name)
	}
	q.Priority, q.Timeout, q.Sequence = c.request.Priority, c.request.Timeout, c.request.Sequence
	q.Inputs, q.Outputs = c.inputs, c.outputs
}
