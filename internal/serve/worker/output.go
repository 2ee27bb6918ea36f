package worker

import (
	"errors"
	"fmt"
	"slices"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

// Output takes what a run computes. The engine puts each wanted output, in the
// order of Wanted.
type Output struct {
	meta   *channel.Metadata
	wanted []int
	all    []int // the indices of all outputs, kept for the next run

	memory []byte // of the slot
	at     int    // where the next output goes
	result *channel.Result

	send  *channel.Peer // where parts go; nil: they may not be sent
	parts int

	calls []call // of a joined run; nil for a single one
	rows  int64
	next  int // of a joined run, the output that is put next
}

// NewOutput returns an Output over memory of the caller's, for a session that
// runs without a daemon. It wants all outputs.
func NewOutput(meta *channel.Metadata, memory []byte) *Output {
	return &Output{meta: meta, wanted: all(meta), memory: memory, result: &channel.Result{}}
}

// Tensors returns what was put.
func (o *Output) Tensors() []Tensor {
	var list []Tensor
	for i, shape := range o.result.Shapes {
		list = append(list, Tensor{shape, o.memory[o.result.Offsets[i]:][:o.result.Sizes[i]]})
	}
	return list
}

func all(meta *channel.Metadata) []int {
	list := make([]int, len(meta.Outputs))
	for i := range list {
		list[i] = i
	}
	return list
}

func (o *Output) every() []int {
	if len(o.all) != len(o.meta.Outputs) {
		o.all = all(o.meta)
	}
	return o.all
}

// Wanted returns the indices of the outputs that are to be put, never none.
func (o *Output) Wanted() []int { return o.wanted }

// Put takes the next wanted output; the data are copied. An output of BYTES
// has its strings as tensor.Strings reads them.
func (o *Output) Put(shape tensor.Shape, data []byte) error {
	if o.calls != nil {
		return o.scatter(shape, data)
	}
	memory, err := o.Reserve(shape, len(data))
	if err == nil {
		copy(memory, data)
	}
	return err
}

// Reserve returns memory for the next wanted output, for an engine that writes
// it there. It is not to be used in place of Put for the answer to several
// requests at once, whose outputs have no memory in one piece.
func (o *Output) Reserve(shape tensor.Shape, n int) ([]byte, error) {
	put := len(o.result.Shapes)
	if o.calls != nil || put >= len(o.wanted) {
		return nil, fmt.Errorf("%w: more outputs than the %d that are wanted", ErrEngine, len(o.wanted))
	}
	if err := o.checkSize(put, shape, n); err != nil {
		return nil, err
	}
	if n > len(o.memory)-o.at {
		return nil, fmt.Errorf("inputs and outputs have more than the %d bytes that the model's spec.maxRequest allows, output %q alone %d: send less at once, or raise it (oscine serve --max-request)",
			len(o.memory), o.meta.Outputs[o.wanted[put]].Name, n)
	}
	store(o.result, shape, o.at, n)
	memory := o.memory[o.at : o.at+n : o.at+n]
	o.at = channel.Aligned(o.at + n)
	return memory, nil
}

func store(r *channel.Result, shape tensor.Shape, at, n int) {
	r.Shapes = resize(r.Shapes, len(r.Shapes)+1)
	last := len(r.Shapes) - 1
	r.Shapes[last] = append(r.Shapes[last][:0], shape...)
	r.Offsets, r.Sizes = append(r.Offsets, at), append(r.Sizes, n)
}

// checkSize keeps an engine from putting what the daemon would refuse, which
// ends the worker.
func (o *Output) checkSize(put int, shape tensor.Shape, n int) error {
	spec := &o.meta.Outputs[o.wanted[put]]
	least, err := spec.LeastBytes(shape)
	if err != nil || n < least || spec.Type != tensor.Bytes && n != least {
		return fmt.Errorf("%w: output %q of %s %s has %d bytes", ErrEngine, spec.Name, shape, spec.Type, n)
	}
	return nil
}

// Streams reports whether the request takes parts.
func (o *Output) Streams() bool { return o.send != nil }

// Send ends a part of the answer: all wanted outputs have been put once more.
// After parts, the last of them sent, the run may end without outputs.
func (o *Output) Send() error {
	if o.send == nil {
		return errors.New("the request takes no parts")
	}
	if len(o.result.Shapes) != len(o.wanted) {
		return fmt.Errorf("%w: a part of %d outputs, %d are wanted", ErrEngine, len(o.result.Shapes), len(o.wanted))
	}
	o.result.Code = channel.Partial
	err := o.send.Answer([]channel.Result{*o.result})
	o.result.Code = channel.OK
	o.result.Shapes, o.result.Offsets, o.result.Sizes = o.result.Shapes[:0], o.result.Offsets[:0], o.result.Sizes[:0]
	// Parts lie one behind the other: what was sent may not be read yet. Each
	// has room, so that a stream of empty ones ends too.
	o.at = channel.Aligned(o.at + 1)
	o.parts++
	return err
}

// complete tells whether the engine has put all that was wanted.
func (o *Output) complete() error {
	put := o.next
	if o.calls == nil {
		put = len(o.result.Shapes)
	}
	if put == len(o.wanted) || put == 0 && o.parts > 0 {
		return nil
	}
	return fmt.Errorf("%w: %d outputs, %d are wanted", ErrEngine, put, len(o.wanted))
}

// errUndivided means that an output has not a row for each of the inputs.
var errUndivided = errors.New("the output has no row for each of the inputs")

// scatter gives each call its rows of the next output.
func (o *Output) scatter(shape tensor.Shape, data []byte) error {
	if o.next >= len(o.wanted) {
		return fmt.Errorf("%w: more outputs than the %d that are wanted", ErrEngine, len(o.wanted))
	}
	if err := o.checkSize(o.next, shape, len(data)); err != nil {
		return err
	}
	if len(shape) == 0 || shape[0] != o.rows || o.meta.Outputs[o.wanted[o.next]].Type == tensor.Bytes {
		return errUndivided
	}
	rowBytes := len(data) / int(max(o.rows, 1))
	own := slices.Clone(shape)
	for i := range o.calls {
		c := &o.calls[i]
		own[0] = c.request.Shapes[0][0]
		n := rowBytes * int(own[0])
		if n > len(c.memory)-c.at {
			return errUndivided // alone it gets the reason
		}
		copy(c.memory[c.at:], data[:n])
		store(c.result, own, c.at, n)
		c.at, data = channel.Aligned(c.at+n), data[n:]
	}
	o.next++
	return nil
}
