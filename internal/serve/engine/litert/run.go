package litert

import (
	"context"
	"fmt"
	"slices"

	"oscine.dev/oscine/internal/serve/engine/clib"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// buffers are the tensors that the library reads or writes, in memory of ours.
type buffers struct {
	handles clib.Words // LiteRtTensorBuffer
	memory  []worker.Block
	sizes   []int // bytes of each tensor
	shapes  []tensor.Shape
}

func (b *buffers) free(l *Library) {
	for i := range b.memory {
		if b.handles[i] != 0 {
			l.destroyBuffer.Call(b.handles[i])
		}
		b.memory[i].Free()
	}
	b.handles.Free()
	*b = buffers{}
}

// spare is how far behind a tensor the library's kernels may read.
const spare = 128

// make makes tensors of the given shapes.
func (b *buffers) make(l *Library, specs []tensor.Spec, shapes []tensor.Shape) error {
	b.free(l)
	b.handles, b.shapes = clib.NewWords(len(specs)), shapes
	ranked := newRankedTypes(1)
	defer ranked.free()
	for i, spec := range specs {
		n, err := shapes[i].Bytes(spec.Type)
		if err != nil {
			return fmt.Errorf("%q: %w", spec.Name, err)
		}
		b.memory, b.sizes = append(b.memory, worker.NewBlock(n+spare)), append(b.sizes, n)
		ranked.set(spec.Type, shapes[i])
		if err := call(l.createBuffer, ranked.address(), b.memory[i].Address(), uintptr(n), 0, b.handles.At(i)); err != nil {
			return fmt.Errorf("%q of %s: %w", spec.Name, shapes[i], err)
		}
	}
	return nil
}

// Run implements worker.Session. LiteRT cannot be stopped.
func (s *Session) Run(_ context.Context, inputs []worker.Tensor, out *worker.Output) error {
	if err := s.shape(inputs); err != nil {
		s.current = nil
		return err
	}
	for i := range inputs {
		copy(s.inputs.memory[i], inputs[i].Data)
	}
	if err := call(s.lib.run, s.compiled, s.index, uintptr(len(s.inputs.sizes)), s.inputs.handles.Address(),
		uintptr(len(s.outputs.sizes)), s.outputs.handles.Address()); err != nil {
		return err
	}
	for _, w := range out.Wanted() {
		if err := out.Put(s.outputs.shapes[w], s.outputs.memory[w][:s.outputs.sizes[w]]); err != nil {
			return err
		}
	}
	return nil
}

// shape prepares the model for inputs of these shapes, unless it is.
func (s *Session) shape(inputs []worker.Tensor) error {
	same := s.current != nil
	for i := range inputs {
		same = same && slices.Equal(s.current[i], inputs[i].Shape)
	}
	if same {
		return nil
	}
	s.current = nil
	shapes := make([]tensor.Shape, len(inputs))
	for i := range inputs {
		shapes[i] = slices.Clone(inputs[i].Shape)
		if slices.Contains(s.meta.Inputs[i].Shape, -1) {
			if err := s.resize(i, shapes[i]); err != nil {
				return err
			}
		}
	}
	results, err := s.results()
	if err != nil {
		return err
	}
	if err := s.inputs.make(s.lib, s.meta.Inputs, shapes); err != nil {
		return fmt.Errorf("input %w", err)
	}
	if err := s.outputs.make(s.lib, s.meta.Outputs, results); err != nil {
		return fmt.Errorf("output %w", err)
	}
	s.current = shapes
	return nil
}

func (s *Session) resize(i int, shape tensor.Shape) error {
	memory := worker.NewBlock(4 * max(1, len(shape)))
	defer memory.Free()
	dims := words32(memory)
	for j, d := range shape {
		dims[j] = uint32(int32(d))
	}
	if err := call(s.lib.resize, s.compiled, s.index, uintptr(i), rankedType(dims).address(), uintptr(len(shape))); err != nil {
		return fmt.Errorf("input %q of %s: %w", s.meta.Inputs[i].Name, shape, err)
	}
	return nil
}

// results are the outputs' shapes for the present inputs'.
func (s *Session) results() ([]tensor.Shape, error) {
	n := len(s.meta.Outputs)
	memory := worker.NewBlock(4 * layoutWords * n)
	defer memory.Free()
	layouts := rankedType(words32(memory))
	const update = 1
	if err := call(s.lib.outputLayouts, s.compiled, s.index, uintptr(n), layouts.address(), update); err != nil {
		return nil, fmt.Errorf("find the shapes of the outputs: %w", err)
	}
	shapes := make([]tensor.Shape, n)
	for i := range shapes {
		var err error
		if shapes[i], err = shapeOf(layouts[i*layoutWords:]); err != nil {
			return nil, fmt.Errorf("output %q: %w", s.meta.Outputs[i].Name, err)
		}
		if slices.Contains(shapes[i], -1) {
			return nil, fmt.Errorf("%w: output %q has a shape that only a run tells, which LiteRT answers with zeros", worker.ErrEngine, s.meta.Outputs[i].Name)
		}
	}
	return shapes, nil
}
