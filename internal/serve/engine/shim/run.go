package shim

import (
	"context"
	"fmt"
	"slices"
	"unsafe"

	"oscine.dev/oscine/internal/serve/engine/clib"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// Run implements worker.Session, on the memory of the inputs itself. A run cannot
// be stopped.
func (s *Session) Run(_ context.Context, inputs []worker.Tensor, out *worker.Output) error {
	records := record(unsafe.Slice((*int64)(unsafe.Pointer(unsafe.SliceData(s.inputs))), len(s.inputs)/8))
	for i := range inputs {
		t := records.at(i)
		t[recordType], t[recordRank] = elementOf(s.meta.Inputs[i].Type), int64(len(inputs[i].Shape))
		copy(t[recordDims:][:tensor.MaxRank], inputs[i].Shape)
		t[recordSize] = int64(len(inputs[i].Data))
		t[recordData] = int64(s.out.Address()) // nothing is read of an empty one
		if len(inputs[i].Data) > 0 {
			t[recordData] = int64(uintptr(unsafe.Pointer(unsafe.SliceData(inputs[i].Data))))
		}
	}
	if err := s.call(s.lib.run, s.handle, s.inputs.Address(), uintptr(len(inputs)), s.out.Address()); err != nil {
		return s.wrong(err)
	}
	if n := int(s.out[0]); n != len(s.meta.Outputs) {
		return s.wrong(fmt.Errorf("the model gives %d outputs, %d are stated", n, len(s.meta.Outputs)))
	}
	for _, w := range out.Wanted() {
		if err := s.output(w, out); err != nil {
			return s.wrong(fmt.Errorf("output %q %w", s.meta.Outputs[w].Name, err))
		}
	}
	s.worked = true
	return nil
}

// wrong is the error of a run: the request's fault, but the model's where it was
// only stated what that takes and gives, and it has never run so.
func (s *Session) wrong(err error) error {
	if s.told || s.worked {
		return err
	}
	return fmt.Errorf("%w: with inputs and outputs as the options state them: %w", worker.ErrEngine, err)
}

func (s *Session) output(i int, out *worker.Output) error {
	if err := s.call(s.lib.output, s.handle, uintptr(i), s.described.address(0)); err != nil {
		return err
	}
	got, _, err := s.described.spec(0)
	if err != nil {
		return err
	}
	if want := s.meta.Outputs[i]; got.Type != want.Type || !fits(got.Shape, want.Shape) {
		return fmt.Errorf("is %s%s, stated is %s%s", got.Type, got.Shape, want.Type, want.Shape)
	}
	t := s.described.at(0)
	return out.Put(got.Shape, clib.Bytes(uintptr(t[recordData]), int(t[recordSize])))
}

// fits reports whether a shape is one of those that are stated.
func fits(got, want tensor.Shape) bool {
	return slices.EqualFunc(got, want, func(g, w int64) bool { return g == w || w < 0 })
}
