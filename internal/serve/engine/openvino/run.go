package openvino

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
	defer s.freeInputs()
	for i := range inputs {
		if err := s.input(i, &inputs[i]); err != nil {
			return fmt.Errorf("input %q: %w", s.meta.Inputs[i].Name, err)
		}
	}
	if err := s.compute(ctx); err != nil {
		return err
	}
	for _, w := range out.Wanted() {
		if err := s.output(w, out); err != nil {
			return fmt.Errorf("output %q: %w", s.meta.Outputs[w].Name, err)
		}
	}
	return nil
}

// compute runs the model, and stops it once ctx is done, which OpenVINO does for
// runs on its own threads only.
func (s *Session) compute(ctx context.Context) error {
	l, begin := s.lib, time.Now()
	run := func() error { return l.call(l.infer, s.request) }
	if s.usual > stoppable {
		run = func() error { return s.computeStoppable(ctx) }
	}
	if err := run(); err != nil {
		return err
	}
	s.usual += (time.Since(begin) - s.usual) / 8
	return nil
}

func (s *Session) computeStoppable(ctx context.Context) error {
	l := s.lib
	if err := l.call(l.startAsync, s.request); err != nil {
		return err
	}
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(over)
		l.cancel.Call(s.request)
	})
	err := l.call(l.wait, s.request)
	if !stop() {
		<-over // it must not hit the next run
	}
	return err
}

// input makes the tensor of input i over memory that outlives the run.
func (s *Session) input(i int, t *worker.Tensor) error {
	for j, d := range t.Shape {
		s.dims[j] = uintptr(d)
	}
	l := s.lib
	address := uintptr(unsafe.Pointer(unsafe.SliceData(t.Data)))
	if len(t.Data) == 0 {
		address = s.dims.Address() // nothing is read of it
	}
	if err := l.call(l.tensorFromMemory, elementOf(s.meta.Inputs[i].Type), uintptr(len(t.Shape)), s.dims.Address(), address, s.inputs.At(i)); err != nil {
		return err
	}
	return l.call(l.setInput, s.request, uintptr(i), s.inputs[i])
}

func (s *Session) freeInputs() {
	for i := range s.meta.Inputs {
		if s.inputs[i] != 0 {
			s.lib.tensorFree.Call(s.inputs[i])
			s.inputs[i] = 0
		}
	}
}

// output puts an output of the last run.
func (s *Session) output(i int, out *worker.Output) error {
	l := s.lib
	if err := l.call(l.getOutput, s.request, uintptr(i), s.out.Address()); err != nil {
		return err
	}
	t := s.out[0]
	defer l.tensorFree.Call(t)
	if err := l.call(l.tensorShape, t, s.shape.Address()); err != nil {
		return err
	}
	shape := make(tensor.Shape, 0, tensor.MaxRank)
	shape = append(shape, clib.Int64s(s.shape[1], int(s.shape[0]))...)
	l.shapeFree.Call(s.shape.Address())
	if err := l.call(l.tensorBytes, t, s.out.Address()); err != nil {
		return err
	}
	n := int(s.out[0])
	if err := l.call(l.tensorData, t, s.out.Address()); err != nil {
		return err
	}
	return out.Put(shape, clib.Bytes(s.out[0], n))
}
