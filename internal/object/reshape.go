package object

import (
	"maps"
	"slices"

	"oscine.dev/oscine/internal/tensor"
)

// Reshape says which tensors of a model clients know by other shapes.
type Reshape struct {
	Inputs  map[string]TensorReshape `json:"inputs,omitempty"`  // by their names
	Outputs map[string]TensorReshape `json:"outputs,omitempty"` // by their names
}

// TensorReshape is two shapes of the same elements. A dimension of -1 in one stands
// for that of the other, in their order.
type TensorReshape struct {
	Dims  []int64 `json:"dims"`  // for clients, with the dimension of the batch
	Shape []int64 `json:"shape"` // of the model
}

func (r *Reshape) check(c *Checker) {
	for field, tensors := range map[string]map[string]TensorReshape{"inputs": r.Inputs, "outputs": r.Outputs} {
		for _, name := range slices.Sorted(maps.Keys(tensors)) {
			t := tensors[name]
			if len(t.Dims) > tensor.MaxRank || len(t.Shape) > tensor.MaxRank || !tensor.Shape(t.Dims).SameElements(t.Shape) {
				c.Bad("spec.reshape."+field, "%.60q: dims and shape must be at most %d numbers from -1 on, with as many -1, and the same product of the others, at most %d", name, tensor.MaxRank, tensor.MaxBytes)
			}
		}
	}
}
