package kserve

import (
	"encoding/json"
	"fmt"
	"slices"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/tensor"
)

// answer writes the outputs as the request had its inputs: rows as predictions,
// tensors as outputs. One output has no name in it, several have.
func (p *predict) answer(outputs []core.Output) ([]byte, error) {
	if p.rows >= 0 {
		return p.predictions(outputs)
	}
	b := []byte(`{"outputs":`)
	if len(outputs) > 1 {
		b = append(b, '{')
	}
	for i := range outputs {
		var err error
		if b, err = named(b, i, len(outputs), outputs[i].Name); err != nil {
			return nil, err
		}
		n, err := nest(&outputs[i])
		if err != nil {
			return nil, err
		}
		if b, err = n.append(b, outputs[i].Shape, 0); err != nil {
			return nil, err
		}
	}
	if len(outputs) > 1 {
		b = append(b, '}')
	}
	return append(b, '}'), nil
}

// named writes an output's name where there are several.
func named(b []byte, i, of int, name string) ([]byte, error) {
	if of == 1 {
		return b, nil
	}
	if i > 0 {
		b = append(b, ',')
	}
	text, err := json.Marshal(name)
	return append(append(b, text...), ':'), err
}

func (p *predict) predictions(outputs []core.Output) ([]byte, error) {
	nested := make([]*nested, len(outputs))
	for i := range outputs {
		out := &outputs[i]
		if len(out.Shape) == 0 || out.Shape[0] != int64(p.rows) {
			return nil, fmt.Errorf("%w: output %q has shape %s, which does not have one row for each of %d instances: send inputs instead of instances", core.ErrInvalid, out.Name, out.Shape, p.rows)
		}
		var err error
		if nested[i], err = nest(out); err != nil {
			return nil, err
		}
	}
	b := []byte(`{"predictions":[`)
	for row := range p.rows {
		if row > 0 {
			b = append(b, ',')
		}
		if len(outputs) > 1 {
			b = append(b, '{')
		}
		for i := range outputs {
			var err error
			if b, err = named(b, i, len(outputs), outputs[i].Name); err != nil {
				return nil, err
			}
			inner := outputs[i].Shape[1:]
			width, err := inner.Elements()
			if err != nil {
				return nil, err
			}
			if b, err = nested[i].append(b, inner, row*width); err != nil {
				return nil, err
			}
		}
		if len(outputs) > 1 {
			b = append(b, '}')
		}
	}
	return append(b, "]}"...), nil
}

// nested is an output whose elements can be taken by their index.
type nested struct {
	out     *core.Output
	offsets []int // of byte strings, and the end
}

// maxEmpty bounds the arrays of an output that has no elements: its shape alone
// says how many there are.
const maxEmpty = 1 << 16

func nest(out *core.Output) (*nested, error) {
	n := &nested{out: out}
	brackets := int64(1)
	for i, d := range out.Shape {
		if d == 0 && brackets > maxEmpty {
			return nil, fmt.Errorf("%w: output %q has shape %s, which has no element in %d arrays", core.ErrInvalid, out.Name, out.Shape, brackets)
		}
		if !slices.Contains(out.Shape[i:], 0) {
			break
		}
		if brackets *= d; brackets > maxEmpty {
			brackets = maxEmpty + 1
		}
	}
	if out.Type != tensor.Bytes {
		return n, nil
	}
	elements, err := out.Shape.Elements()
	if err != nil {
		return nil, err
	}
	n.offsets = append(n.offsets, 0)
	err = tensor.Strings(out.Data, elements, func(s []byte) error {
		n.offsets = append(n.offsets, n.offsets[len(n.offsets)-1]+4+len(s))
		return nil
	})
	return n, err
}

// data is the elements from one index to another.
func (n *nested) data(from, to int) []byte {
	if n.offsets != nil {
		return n.out.Data[n.offsets[from]:n.offsets[to]]
	}
	size := n.out.Type.Size()
	return n.out.Data[from*size : to*size]
}

// append writes the elements of a shape, from an index on.
func (n *nested) append(b []byte, shape tensor.Shape, from int) ([]byte, error) {
	if len(shape) < 2 {
		elements := 1
		if len(shape) == 1 {
			elements = int(shape[0])
		}
		start := len(b)
		b, err := tensor.AppendJSON(b, n.out.Type, n.data(from, from+elements))
		if err != nil {
			return nil, fmt.Errorf("%w: output %q: %w", core.ErrInvalid, n.out.Name, err)
		}
		if len(shape) == 0 { // without the brackets
			return append(b[:start], b[start+1:len(b)-1]...), nil
		}
		return b, nil
	}
	width, err := shape[1:].Elements()
	if err != nil {
		return nil, err
	}
	b = append(b, '[')
	for i := range int(shape[0]) {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = n.append(b, shape[1:], from+i*width); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}
