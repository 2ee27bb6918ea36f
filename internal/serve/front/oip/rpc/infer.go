package rpc

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front/oip"
)

// infer answers ModelInfer.
func (h *handler) infer(ctx context.Context, c *call) error {
	if err := c.receive(); err != nil {
		return err
	}
	return h.answer(ctx, c, false, nil)
}

// stream answers ModelStreamInfer: the requests one after the other, each with
// its answer, its parts where the model streams, or what went wrong.
func (h *handler) stream(ctx context.Context, c *call) error {
	leave, err := h.streams.enter(clientOf(c.r))
	if err != nil {
		return err
	}
	defer leave()
	left := c.request.left
	c.streamed = true
	for {
		if err := c.next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if deadline, ok := ctx.Deadline(); ok && left > 0 {
			c.request.left = max(time.Until(deadline), 1)
		}
		c.arrived = time.Now()
		err := h.answer(ctx, c, true, func(r *core.Response) error { return c.write(r, true, false) })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if err := c.writeError(err); err != nil {
				return err
			}
		}
	}
}

// answer computes the request that was received.
func (h *handler) answer(ctx context.Context, c *call, streamed bool, part func(*core.Response) error) error {
	q := &c.request
	if err := q.parse(c.message); err != nil {
		h.registry.Refused(q.model, q.version)
		return err
	}
	ask := core.Request{Model: q.model, Version: q.version, Arrived: c.arrived, Priority: q.parameters.Priority, Timeout: q.parameters.Timeout, Sequence: q.parameters.Sequence}
	if q.left > 0 && (ask.Timeout == 0 || q.left < ask.Timeout) {
		ask.Timeout = q.left
	}
	parts := 0
	if part != nil {
		ask.Part = func(r *core.Response) error {
			parts++
			return part(r)
		}
	}
	if err := h.registry.Accepts(ctx, &ask); err != nil {
		return err
	}
	if err := c.fill(&ask); err != nil {
		h.registry.Refused(q.model, q.version)
		return err
	}
	specs := h.registry.Outputs(q.model, q.version)
	for i := range q.outputs {
		if err := oip.CheckClasses(specs, q.outputs[i].Name, q.outputs[i].OutputParameters); err != nil {
			h.registry.Refused(q.model, q.version)
			return err
		}
	}
	response, err := h.registry.Infer(ctx, ask)
	if err != nil {
		return err
	}
	defer response.Free()
	final := streamed && q.parameters.FinalResponse
	if parts == 0 {
		return c.write(&response, streamed, final)
	}
	if !final {
		return nil
	}
	response.Model, response.Version, response.Outputs = q.model, q.version, nil
	return c.write(&response, streamed, true)
}

// fill gives core's request the tensors of the message.
func (c *call) fill(ask *core.Request) error {
	c.inputs, c.outputs = c.inputs[:0], c.outputs[:0]
	for i := range c.request.inputs {
		in := &c.request.inputs[i]
		source, err := in.source()
		if err != nil {
			return err
		}
		c.inputs = append(c.inputs, core.Input{Name: in.name, Type: in.kind, Shape: in.shape, Data: source})
	}
	for i := range c.request.outputs {
		c.outputs = append(c.outputs, c.request.outputs[i].Name)
	}
	ask.Inputs, ask.Outputs = c.inputs, c.outputs
	return nil
}

// joinBytes is up to where outputs are copied behind the head of the answer, so
// that it is one write: a frame of HTTP/2.
const joinBytes = 16 << 10

// Numbers of the fields of an answer.
const (
	answerModel, answerVersion, answerID, answerParameters, answerOutputs, answerRaw = 1, 2, 3, 4, 5, 6

	streamError, streamResponse = 1, 2
)

// write sends a ModelInferResponse, within a ModelStreamInferResponse where the
// call is a stream.
func (c *call) write(r *core.Response, streamed, final bool) error {
	if err := oip.ClassifyAll(r.Outputs, c.request.outputs, c.handler.registry.Outputs(c.request.model, c.request.version)); err != nil {
		return err
	}
	head := c.head(r, final)
	size := len(head) - prefixBytes
	for i := range r.Outputs {
		size += protowire.SizeTag(answerRaw) + protowire.SizeBytes(len(r.Outputs[i].Data))
	}
	var parts [][]byte
	if streamed {
		outer := make([]byte, prefixBytes, prefixBytes+protowire.SizeTag(streamResponse)+protowire.SizeVarint(uint64(size)))
		outer = protowire.AppendVarint(protowire.AppendTag(outer, streamResponse, protowire.BytesType), uint64(size))
		parts = append(parts, outer)
	}
	joined := size <= joinBytes
	for i := range r.Outputs {
		data := r.Outputs[i].Data
		head = protowire.AppendVarint(protowire.AppendTag(head, answerRaw, protowire.BytesType), uint64(len(data)))
		if joined {
			head = append(head, data...)
			continue
		}
		parts = append(parts, head, data)
		head = head[len(head):]
	}
	if joined {
		c.reply, parts = head, append(parts, head)
	}
	if !streamed {
		return c.send(parts...)
	}
	parts[1] = parts[1][prefixBytes:]
	return c.send(parts...)
}

// head encodes all but the elements, behind room for a prefix.
func (c *call) head(r *core.Response, final bool) []byte {
	b := append(c.reply[:0], make([]byte, prefixBytes)...)
	b = appendText(b, answerModel, r.Model)
	b = appendText(b, answerVersion, r.Version)
	b = appendText(b, answerID, c.request.id)
	if final {
		value := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1)
		entry := protowire.AppendBytes(protowire.AppendTag(appendText(nil, 1, oip.FinalResponse), 2, protowire.BytesType), value)
		b = protowire.AppendBytes(protowire.AppendTag(b, answerParameters, protowire.BytesType), entry)
	}
	for i := range r.Outputs {
		out := &r.Outputs[i]
		var shape []byte
		for _, d := range out.Shape {
			shape = protowire.AppendVarint(shape, uint64(d))
		}
		kind := out.Type.String()
		size := protowire.SizeTag(1) + protowire.SizeBytes(len(out.Name)) + protowire.SizeTag(2) + protowire.SizeBytes(len(kind)) + protowire.SizeTag(3) + protowire.SizeBytes(len(shape))
		b = protowire.AppendVarint(protowire.AppendTag(b, answerOutputs, protowire.BytesType), uint64(size))
		b = protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), out.Name)
		b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), kind)
		b = protowire.AppendBytes(protowire.AppendTag(b, 3, protowire.BytesType), shape)
	}
	return b
}

// writeError sends what went wrong with one request of a stream. Its id says
// with which.
func (c *call) writeError(err error) error {
	text := err.Error()
	b := append(c.reply[:0], make([]byte, prefixBytes)...)
	b = appendText(b, streamError, text[:min(len(text), maxText)])
	if id := c.request.id; id != "" {
		b = protowire.AppendBytes(protowire.AppendTag(b, streamResponse, protowire.BytesType), appendText(nil, answerID, id))
	}
	c.reply = b
	return c.send(b)
}

// appendText appends a string field that is not empty.
func appendText(b []byte, number protowire.Number, text string) []byte {
	if text == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), text)
}
