package onnx

import (
	"fmt"
	"slices"
	"unsafe"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

// Infer implements channel.Engine: calls whose inputs differ only in the batch
// dimension run as one.
func (s *Session) Infer(calls []channel.Call) {
	for len(calls) > 0 {
		n := 1
		for s.meta.Batch && n < len(calls) && joinable(&calls[0], &calls[n]) {
			n++
		}
		if n == 1 || !s.runJoined(calls[:n]) {
			for i := range calls[:n] {
				s.runOne(&calls[i])
			}
		}
		calls = calls[n:]
	}
}

// joinable reports whether two calls may share a batch.
func joinable(a, b *channel.Call) bool {
	for i, shape := range a.Request.Shapes {
		other := b.Request.Shapes[i]
		if shape[0] != a.Request.Shapes[0][0] || other[0] != b.Request.Shapes[0][0] || !slices.Equal(shape[1:], other[1:]) {
			return false
		}
	}
	return slices.Equal(a.Request.Wanted, b.Request.Wanted)
}

// runOne runs one call on the slot's memory itself.
func (s *Session) runOne(c *channel.Call) {
	base := uintptr(unsafe.Pointer(unsafe.SliceData(c.Memory)))
	defer s.releaseInputs()
	for i, shape := range c.Request.Shapes {
		if err := s.input(i, base+uintptr(c.Offsets[i]), shape); err != nil {
			c.Result.Err = err.Error()
			return
		}
	}
	outputs, err := s.run(c.Request.Wanted)
	if err != nil {
		c.Result.Err = err.Error()
		return
	}
	defer s.releaseOutputs(outputs)
	at := c.End
	for i := range outputs {
		data, spec, err := s.output(i)
		if err == nil {
			at, err = store(c, at, spec.Shape, data)
		}
		if err != nil {
			c.Result.Err = err.Error()
			return
		}
	}
}

// runJoined gathers the rows of all calls, runs them as one batch and scatters
// the answers. It reports false, having stored nothing, when the batch cannot
// be run or divided; then each call must run alone, which also tells whose
// fault it was.
func (s *Session) runJoined(calls []channel.Call) bool {
	defer s.releaseInputs()
	var rows int64
	for i := range calls {
		rows += calls[i].Request.Shapes[0][0]
	}
	for i := range s.meta.Inputs {
		if !s.gather(i, rows, calls) {
			return false
		}
	}
	outputs, err := s.run(calls[0].Request.Wanted)
	if err != nil {
		return false
	}
	defer s.releaseOutputs(outputs)
	for i := range outputs {
		data, spec, err := s.output(i)
		if err != nil || len(spec.Shape) == 0 || spec.Shape[0] != rows {
			forget(calls)
			return false
		}
		if !scatter(calls, data, spec.Shape, len(data)/int(max(rows, 1))) {
			forget(calls)
			return false
		}
	}
	return true
}

// gather joins the rows of one input of all calls.
func (s *Session) gather(i int, rows int64, calls []channel.Call) bool {
	shape := slices.Clone(calls[0].Request.Shapes[i])
	shape[0] = rows
	total, err := shape.Bytes(s.meta.Inputs[i].Type)
	if err != nil {
		return false
	}
	s.gathered[i] = s.gathered[i].atLeast(total)
	at := 0
	for j := range calls {
		n, err := calls[j].Request.Shapes[i].Bytes(s.meta.Inputs[i].Type)
		if err != nil {
			return false
		}
		at += copy(s.gathered[i][at:at+n], calls[j].Memory[calls[j].Offsets[i]:])
	}
	return s.input(i, s.gathered[i].address(), shape) == nil
}

// scatter gives each call its rows of one output.
func scatter(calls []channel.Call, data []byte, shape tensor.Shape, rowBytes int) bool {
	own := slices.Clone(shape)
	for i := range calls {
		c := &calls[i]
		own[0] = c.Request.Shapes[0][0]
		n := rowBytes * int(own[0])
		end, err := store(c, c.End, own, data[:n])
		if err != nil {
			return false
		}
		c.End, data = end, data[n:]
	}
	return true
}

func forget(calls []channel.Call) {
	for i := range calls {
		r := calls[i].Result
		r.Shapes, r.Offsets = r.Shapes[:0], r.Offsets[:0]
	}
}

// store writes an output at the given place of the call's slot and returns the
// place behind it.
func store(c *channel.Call, at int, shape tensor.Shape, data []byte) (int, error) {
	if len(data) > len(c.Memory)-at {
		return 0, fmt.Errorf("inputs and outputs need more than the %d bytes of a slot: send a smaller batch", len(c.Memory))
	}
	copy(c.Memory[at:], data)
	c.Result.Shapes = append(c.Result.Shapes, slices.Clone(shape))
	c.Result.Offsets = append(c.Result.Offsets, at)
	return at + (len(data)+63)&^63, nil
}

// input makes the OrtValue of input i over memory that outlives the run.
func (s *Session) input(i int, address uintptr, shape tensor.Shape) error {
	spec := &s.meta.Inputs[i]
	n, err := shape.Bytes(spec.Type)
	if err != nil {
		return err
	}
	for j, d := range shape {
		s.dims[j] = uintptr(d)
	}
	l, v := s.lib, &s.scratch
	if err := l.call(fnCreateTensorWithDataAsOrtValue, l.memory, address, uintptr(n),
		s.dims.address(), uintptr(len(shape)), elementType(spec.Type), l.out(&v.a)); err != nil {
		return fmt.Errorf("input %q: %w", spec.Name, err)
	}
	s.inValues[i] = v.a
	return nil
}

func (s *Session) releaseInputs() {
	for i := range s.meta.Inputs {
		s.lib.release(fnReleaseValue, s.inValues[i])
		s.inValues[i] = 0
	}
}

// run runs the model on the inputs made and returns the values of the wanted
// outputs.
func (s *Session) run(wanted []int) (words, error) {
	names, n := s.outNames, len(s.meta.Outputs)
	if len(wanted) > 0 {
		if n = len(wanted); n > len(s.wantNames) {
			return nil, fmt.Errorf("%d outputs are asked for, the model has %d", n, len(s.meta.Outputs))
		}
		names = s.wantNames
		for i, w := range wanted {
			names[i] = s.outNames[w]
		}
	}
	clear(s.outValues[:n])
	err := s.lib.call(fnRun, s.ptr, 0, s.inNames.address(), s.inValues.address(), uintptr(len(s.meta.Inputs)),
		names.address(), uintptr(n), s.outValues.address())
	return s.outValues[:n], err
}

func (s *Session) releaseOutputs(values words) {
	for _, v := range values {
		s.lib.release(fnReleaseValue, v)
	}
}

// output returns the memory, type and shape of an output of the last run; the
// memory is the library's and goes with releaseOutputs.
func (s *Session) output(i int) ([]byte, tensor.Spec, error) {
	l, v := s.lib, &s.scratch
	var spec tensor.Spec
	if err := l.call(fnGetTensorTypeAndShape, s.outValues[i], l.out(&v.b)); err != nil {
		return nil, spec, err
	}
	err := s.typeAndShape(v.b, &spec)
	l.release(fnReleaseTensorTypeAndShapeInfo, v.b)
	if err != nil {
		return nil, spec, err
	}
	n, err := spec.Shape.Bytes(spec.Type)
	if err != nil {
		return nil, spec, err
	}
	if err := l.call(fnGetTensorMutableData, s.outValues[i], l.out(&v.a)); err != nil {
		return nil, spec, err
	}
	return unsafe.Slice((*byte)(pointer(v.a)), n), spec, nil
}
