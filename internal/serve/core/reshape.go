package core

import (
	"errors"
	"fmt"
	"slices"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

// Reshape is a tensor that clients know by another shape than the model. Each
// dimension of -1 in one stands for that of the other, in their order; the elements
// stay as they are.
type Reshape struct {
	Name          string
	Client, Model tensor.Shape
}

// Reshapes are those of a model.
type Reshapes struct{ Inputs, Outputs []Reshape }

func (r *Reshapes) none() bool { return len(r.Inputs)+len(r.Outputs) == 0 }

func (r *Reshapes) check() error {
	for _, one := range slices.Concat(r.Inputs, r.Outputs) {
		if len(one.Client) > tensor.MaxRank || len(one.Model) > tensor.MaxRank {
			return fmt.Errorf("reshape of %q: at most %d dimensions are accepted", one.Name, tensor.MaxRank)
		}
		if !one.Client.SameElements(one.Model) {
			return fmt.Errorf("reshape of %q: %s and %s must have as many dimensions of -1, and as many elements in the others", one.Name, one.Client, one.Model)
		}
	}
	return nil
}

// convert is a concrete shape of from as one of to.
func convert(shape, from, to tensor.Shape) (tensor.Shape, error) {
	if err := from.Accepts(shape); err != nil {
		return nil, err
	}
	var open []int64
	for i, d := range from {
		if d == -1 {
			open = append(open, shape[i])
		}
	}
	out := slices.Clone(to)
	for i, d := range out {
		if d == -1 {
			out[i], open = open[0], open[1:]
		}
	}
	return out, nil
}

func find(list []Reshape, name string) *Reshape {
	i := slices.IndexFunc(list, func(r Reshape) bool { return r.Name == name })
	if i < 0 {
		return nil
	}
	return &list[i]
}

// request gives the inputs of a request the shapes that the model has.
func (r *Reshapes) request(q *Request) error {
	if len(r.Inputs) == 0 || len(q.Inputs) == 0 {
		return nil
	}
	q.Inputs = slices.Clone(q.Inputs) // it is only read
	for i := range q.Inputs {
		in := &q.Inputs[i]
		if one := find(r.Inputs, in.Name); one != nil {
			shape, err := convert(in.Shape, one.Client, one.Model)
			if err != nil {
				return fmt.Errorf("%w: input %q: %w", ErrInvalid, in.Name, err)
			}
			in.Shape = shape
		}
	}
	return nil
}

// outputs gives outputs the shapes that clients know.
func (r *Reshapes) outputs(outputs []Output) error {
	if len(r.Outputs) == 0 {
		return nil
	}
	for i := range outputs {
		out := &outputs[i]
		if one := find(r.Outputs, out.Name); one != nil {
			shape, err := convert(out.Shape, one.Model, one.Client)
			if err != nil {
				return fmt.Errorf("output %q of the model does not have the shape that its manifest says: %w", out.Name, err)
			}
			out.Shape = shape
		}
	}
	return nil
}

// fits refuses reshapes that a model does not suit.
func (r *Reshapes) fits(meta *channel.Metadata) error {
	if r.none() {
		return nil
	}
	if meta.Streams {
		return errors.New("a model that streams its answers is not reshaped")
	}
	for _, side := range []struct {
		kind  string
		list  []Reshape
		specs []tensor.Spec
	}{{"input", r.Inputs, meta.Inputs}, {"output", r.Outputs, meta.Outputs}} {
		for _, one := range side.list {
			i := tensor.Find(side.specs, one.Name)
			if i < 0 {
				return fmt.Errorf("%s %q is not known (%s)", side.kind, one.Name, names("the model's "+side.kind+"s are", side.specs))
			}
			spec := &side.specs[i]
			if !spec.AnyRank && !spec.Shape.Matches(one.Model) {
				return fmt.Errorf("%s %q has the shape %s in the model, not %s", side.kind, one.Name, spec.Shape, one.Model)
			}
		}
	}
	return nil
}

// seen are the tensors of a model as clients see them.
func seen(list []Reshape, specs []tensor.Spec) []tensor.Spec {
	if len(list) == 0 {
		return specs
	}
	specs = slices.Clone(specs)
	for i := range specs {
		if one := find(list, specs[i].Name); one != nil {
			specs[i].Shape, specs[i].AnyRank = one.Client, false
		}
	}
	return specs
}
