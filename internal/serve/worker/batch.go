package worker

import (
	"slices"

	"oscine.dev/oscine/internal/tensor"
)

// joinable reports whether two calls may share a batch.
func joinable(a, b *call) bool {
	if a.request.Stream || b.request.Stream || len(a.request.Shapes) == 0 {
		return false
	}
	for i, shape := range a.request.Shapes {
		other := b.request.Shapes[i]
		if len(shape) == 0 || shape[0] != a.request.Shapes[0][0] || other[0] != b.request.Shapes[0][0] || !slices.Equal(shape[1:], other[1:]) {
			return false
		}
	}
	return slices.Equal(a.request.Wanted, b.request.Wanted)
}

// runJoined gathers the rows of all calls, runs them as one batch and divides
// the answers. It reports false, having stored nothing, when the batch cannot
// be run or divided; then each call must run alone, which also tells whose
// fault it was.
func (e *executor) runJoined(calls []call) bool {
	s := e.conn.server
	var rows int64
	for i := range calls {
		rows += calls[i].request.Shapes[0][0]
	}
	e.gathered = resize(e.gathered, len(s.meta.Inputs))
	e.inputs = e.inputs[:0]
	for i := range s.meta.Inputs {
		if !e.gather(i, rows, calls) {
			return false
		}
	}
	e.out = Output{meta: &s.meta, calls: calls, rows: rows, wanted: calls[0].request.Wanted, all: e.out.all}
	if len(e.out.wanted) == 0 {
		e.out.wanted = e.out.every()
	}
	for i := range calls {
		calls[i].at = calls[i].end
	}
	if e.compute(calls) != nil || e.out.complete() != nil {
		for i := range calls {
			r := calls[i].result
			r.Shapes, r.Offsets, r.Sizes = r.Shapes[:0], r.Offsets[:0], r.Sizes[:0]
		}
		return false
	}
	return true
}

// wholeStrings reports whether an input of byte strings has as many as its shape
// says: else it would get the next call's.
func (c *call) wholeStrings(spec *tensor.Spec, i int) bool {
	if spec.Type != tensor.Bytes {
		return true
	}
	n, err := c.request.Shapes[i].Elements()
	return err == nil && tensor.Strings(c.memory[c.offsets[i]:][:c.request.Sizes[i]], n, func([]byte) error { return nil }) == nil
}

// gather joins the rows of one input of all calls.
func (e *executor) gather(i int, rows int64, calls []call) bool {
	shape := slices.Clone(calls[0].request.Shapes[i])
	shape[0] = rows
	total := 0
	for j := range calls {
		total += calls[j].request.Sizes[i]
	}
	if total > tensor.MaxBytes {
		return false
	}
	if total > len(e.gathered[i]) {
		e.gathered[i] = e.gathered[i].AtLeast(total + total/2)
	}
	at := 0
	for j := range calls {
		c := &calls[j]
		if !c.wholeStrings(&e.conn.server.meta.Inputs[i], i) {
			return false
		}
		at += copy(e.gathered[i][at:], c.memory[c.offsets[i]:][:c.request.Sizes[i]])
	}
	e.inputs = append(e.inputs, Tensor{shape, e.gathered[i][:total]})
	return true
}
