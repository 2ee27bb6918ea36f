package onnx

import (
	"context"
	"fmt"
	"time"
	"unsafe"

	"oscine.dev/oscine/internal/serve/engine/clib"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// stoppable is how long the runs of a model take for it to be worth arranging
// that each can be stopped.
const stoppable = 5 * time.Millisecond

// Run implements worker.Session, on the memory of the inputs itself.
func (s *Session) Run(ctx context.Context, inputs []worker.Tensor, out *worker.Output) error {
	defer s.releaseInputs()
	for i := range inputs {
		if err := s.input(i, &inputs[i]); err != nil {
			return err
		}
	}
	stop, options := func() bool { return true }, uintptr(0)
	if s.usual > stoppable {
		options = s.options
		stop = context.AfterFunc(ctx, func() { _ = s.lib.call(fnRunOptionsSetTerminate, options) })
	}
	begin := time.Now()
	outputs, err := s.compute(out.Wanted(), options)
	if !stop() {
		// The one that stops may be about to; it must not hit the next run.
		if e := s.renewOptions(); err == nil {
			err = e
		}
	} else if err == nil {
		s.usual += (time.Since(begin) - s.usual) / 8
	}
	if err != nil {
		return err
	}
	defer s.releaseOutputs(outputs)
	for i, wanted := range out.Wanted() {
		data, shape, err := s.output(i, wanted)
		if err == nil {
			err = out.Put(shape, data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// renewOptions makes run options that nobody else knows. The old ones, which a
// late call may still set, are not freed: a run is stopped seldom.
func (s *Session) renewOptions() error {
	return s.lib.call(fnCreateRunOptions, s.lib.out(&s.options))
}

// input makes the OrtValue of input i over memory that outlives the run.
func (s *Session) input(i int, t *worker.Tensor) error {
	spec := &s.meta.Inputs[i]
	for j, d := range t.Shape {
		s.dims[j] = uintptr(d)
	}
	if spec.Type == tensor.Bytes {
		if err := s.inputStrings(i, t); err != nil {
			return fmt.Errorf("input %q: %w", spec.Name, err)
		}
		return nil
	}
	l, v := s.lib, &s.scratch
	address := uintptr(unsafe.Pointer(unsafe.SliceData(t.Data)))
	if err := l.call(fnCreateTensorWithDataAsOrtValue, l.memory, address, uintptr(len(t.Data)),
		s.dims.Address(), uintptr(len(t.Shape)), elementType(spec.Type), l.out(&v.a)); err != nil {
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

// compute runs the model on the inputs made and returns the values of the
// wanted outputs; options are OrtRunOptions, or 0 for none.
func (s *Session) compute(wanted []int, options uintptr) (clib.Words, error) {
	n := len(wanted)
	if n > len(s.wantNames) {
		return nil, fmt.Errorf("%d outputs are asked for, the model has %d", n, len(s.meta.Outputs))
	}
	for i, w := range wanted {
		s.wantNames[i] = s.outNames[w]
	}
	clear(s.outValues[:n])
	err := s.lib.call(fnRun, s.ptr, options, s.inNames.Address(), s.inValues.Address(), uintptr(len(s.meta.Inputs)),
		s.wantNames.Address(), uintptr(n), s.outValues.Address())
	return s.outValues[:n], err
}

func (s *Session) releaseOutputs(values clib.Words) {
	for _, v := range values {
		s.lib.release(fnReleaseValue, v)
	}
}

// output returns the memory and shape of value i of the last run, which is output
// wanted of the model. The memory goes with releaseOutputs, or with the next call.
func (s *Session) output(i, wanted int) ([]byte, tensor.Shape, error) {
	if form := s.forms[wanted]; form != tensors {
		return s.flattened(s.outValues[i], form, s.meta.Outputs[wanted].Type)
	}
	data, spec, err := s.tensorOf(s.outValues[i])
	if err != nil {
		return nil, nil, err
	}
	return data, spec.Shape, nil
}
