package tensorflow

import (
	"context"
	"fmt"
	"unsafe"

	"oscine.dev/oscine/internal/serve/engine/clib"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

const maxDims = tensor.MaxRank

// Run implements worker.Session, on the memory of the inputs itself where that is
// aligned as the library wants it. A run of a session cannot be stopped.
func (s *Session) Run(_ context.Context, inputs []worker.Tensor, out *worker.Output) error {
	l := s.lib
	defer s.free(s.inTensors)
	for i := range inputs {
		if err := s.input(i, &inputs[i]); err != nil {
			return fmt.Errorf("input %q: %w", s.meta.Inputs[i].Name, err)
		}
	}
	wanted := out.Wanted()
	for i, w := range wanted {
		copy(s.wanted[2*i:2*i+2], s.outs[2*w:2*w+2])
	}
	clear(s.outTensors)
	defer s.free(s.outTensors)
	l.run.Call(s.session, 0, s.ins.Address(), s.inTensors.Address(), uintptr(len(inputs)),
		s.wanted.Address(), s.outTensors.Address(), uintptr(len(wanted)), 0, 0, 0, s.status)
	if err := s.failed(); err != nil {
		return err
	}
	for i := range wanted {
		if err := s.output(s.outTensors[i], out); err != nil {
			return fmt.Errorf("output %q: %w", s.meta.Outputs[wanted[i]].Name, err)
		}
	}
	return nil
}

func (s *Session) free(tensors clib.Words) {
	for i, t := range tensors {
		if t != 0 {
			s.lib.deleteTensor.Call(t)
			tensors[i] = 0
		}
	}
}

func (s *Session) input(i int, t *worker.Tensor) error {
	for j, d := range t.Shape {
		s.dims[j] = uintptr(d)
	}
	address := uintptr(unsafe.Pointer(unsafe.SliceData(t.Data)))
	if len(t.Data) == 0 {
		address = s.dims.Address() // nothing is read of it
	}
	s.inTensors[i] = s.lib.newTensor.Call(elementOf(s.meta.Inputs[i].Type), s.dims.Address(), uintptr(len(t.Shape)), address, uintptr(len(t.Data)), s.lib.keep, 0)
	if s.inTensors[i] == 0 {
		return fmt.Errorf("%w: no tensor of %s could be made", worker.ErrEngine, t.Shape)
	}
	return nil
}

func (s *Session) output(t uintptr, out *worker.Output) error {
	l := s.lib
	shape := make(tensor.Shape, int(int32(l.dimensions.Call(t))))
	if len(shape) > tensor.MaxRank {
		return fmt.Errorf("%w: it has %d dimensions", worker.ErrEngine, len(shape))
	}
	for i := range shape {
		shape[i] = int64(l.dimension.Call(t, uintptr(i)))
	}
	return out.Put(shape, clib.Bytes(l.data.Call(t), int(l.byteSize.Call(t))))
}
