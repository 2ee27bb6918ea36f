package kserve

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
	"oscine.dev/oscine/internal/tensor"
)

// predict is a request that was read.
type predict struct {
	inputs []core.Input
	rows   int // instances; -1: the request has named inputs instead
}

// parse reads a request for a model that takes the inputs of specs.
func parse(text []byte, specs []tensor.Spec) (*predict, error) {
	if err := front.CheckObject(text); err != nil {
		return nil, fmt.Errorf("%w: the body is not a JSON object: %w", core.ErrInvalid, err)
	}
	var rows, named []byte
	if err := front.Members(text, func(name string, value []byte) error {
		if string(value) == "null" {
			value = nil
		}
		switch name {
		case "instances":
			rows = value
		case "inputs":
			named = value
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("%w: the body: %w", core.ErrInvalid, err)
	}
	p := &predict{rows: -1}
	var (
		values map[string][]byte
		err    error
	)
	switch {
	case (rows == nil) == (named == nil):
		return nil, fmt.Errorf("%w: give either instances, one for each row, or inputs", core.ErrInvalid)
	case rows != nil:
		values, p.rows, err = instances(rows, specs)
	default:
		values, err = inputs(named, specs)
	}
	if err != nil {
		return nil, err
	}
	for i := range specs {
		spec := &specs[i]
		value, ok := values[spec.Name]
		if !ok {
			return nil, fmt.Errorf("%w: input %q is missing", core.ErrInvalid, spec.Name)
		}
		in, err := input(spec, value)
		if err != nil {
			return nil, fmt.Errorf("%w: input %q: %w", core.ErrInvalid, spec.Name, err)
		}
		p.inputs = append(p.inputs, in)
	}
	return p, nil
}

// instances gathers rows: each is an object with a value for each input, or, of
// a model with one input, that value.
func instances(text []byte, specs []tensor.Spec) (values map[string][]byte, rows int, err error) {
	if len(text) == 0 || text[0] != '[' {
		return nil, 0, fmt.Errorf("%w: instances must be a list", core.ErrInvalid)
	}
	g := gatherer{specs: specs, values: map[string][]byte{}, counts: map[string]int{}}
	if err := front.Elements(text, g.row); err != nil {
		return nil, 0, err
	}
	if g.rows == 0 {
		return nil, 0, fmt.Errorf("%w: instances is empty", core.ErrInvalid)
	}
	for name := range g.values {
		g.values[name] = append(g.values[name], ']')
	}
	return g.values, g.rows, nil
}

// gatherer makes an array of each input's values in the rows that it has read.
type gatherer struct {
	specs  []tensor.Spec
	named  bool // rows are objects that name inputs
	rows   int
	values map[string][]byte
	counts map[string]int // of the values
}

func (g *gatherer) row(row []byte) error {
	named := object(row)
	switch {
	case g.rows == 0:
		g.named = named
	case named != g.named:
		return fmt.Errorf("%w: instance %d is not of the same kind as the first", core.ErrInvalid, g.rows)
	}
	switch {
	case named:
		if err := front.Members(row, g.add); err != nil {
			return err
		}
	case len(g.specs) != 1:
		return fmt.Errorf("%w: instance %d: the model has %d inputs: each instance must be an object that names them", core.ErrInvalid, g.rows, len(g.specs))
	default:
		if err := g.add(g.specs[0].Name, row); err != nil {
			return err
		}
	}
	for i := range g.specs {
		switch name := g.specs[i].Name; {
		case g.counts[name] > g.rows:
		case g.rows == 0:
			return fmt.Errorf("%w: input %q is missing", core.ErrInvalid, name)
		default:
			return fmt.Errorf("%w: instance %d does not have the same inputs as the first", core.ErrInvalid, g.rows)
		}
	}
	g.rows++
	return nil
}

// add takes an input's value of the row. One that is not known is refused with
// the first row.
func (g *gatherer) add(name string, value []byte) error {
	switch {
	case tensor.Find(g.specs, name) < 0:
		return fmt.Errorf("%w: instance %d: input %q is not known", core.ErrInvalid, g.rows, name)
	case g.counts[name] > g.rows:
		return fmt.Errorf("%w: instance %d: input %q is given twice", core.ErrInvalid, g.rows, name)
	}
	separator := byte(',')
	if g.rows == 0 {
		separator = '['
	}
	g.values[name] = append(append(g.values[name], separator), value...)
	g.counts[name]++
	return nil
}

// object reports whether a value is an object that names inputs, and not
// encoded bytes.
func object(text []byte) bool {
	if text = bytes.TrimLeft(text, " \t\r\n"); len(text) == 0 || text[0] != '{' {
		return false
	}
	_, encoded := decoded(text)
	return !encoded
}

// inputs reads the tensors by name, or the one of a model with one input.
func inputs(text []byte, specs []tensor.Spec) (map[string][]byte, error) {
	if !object(text) {
		if len(specs) != 1 {
			return nil, fmt.Errorf("%w: the model has %d inputs: inputs must be an object that names them", core.ErrInvalid, len(specs))
		}
		return map[string][]byte{specs[0].Name: text}, nil
	}
	values := map[string][]byte{}
	err := front.Members(text, func(name string, value []byte) error {
		if tensor.Find(specs, name) < 0 {
			return fmt.Errorf("%w: input %q is not known", core.ErrInvalid, name)
		}
		values[name] = value
		return nil
	})
	return values, err
}

// input makes a tensor of a value of any nesting.
func input(spec *tensor.Spec, value []byte) (core.Input, error) {
	in := core.Input{Name: spec.Name, Type: spec.Type}
	s := shaper{text: value, texts: spec.Type == tensor.Bytes}
	if err := s.value(0); err != nil {
		return in, err
	}
	in.Shape = s.shape
	if spec.Type == tensor.Bytes {
		in.Data = core.Bytes(s.strings)
		return in, nil
	}
	if !spec.Type.HasJSON() {
		return in, fmt.Errorf("%w: %s elements cannot be written as JSON: send them by /v2 as binary tensors", tensor.ErrData, spec.Type)
	}
	if len(s.shape) == 0 {
		value = append(append([]byte{'['}, value...), ']')
	}
	in.Data = numbers{spec.Type, value}
	return in, nil
}

// numbers is a core.Source of JSON that goes straight into its slot.
type numbers struct {
	kind tensor.DataType
	text []byte
}

// Put implements core.Source.
func (n numbers) Put(dst []byte) error { return tensor.ParseJSON(dst, n.kind, n.text) }

// decoded returns the bytes of {"b64": TEXT}.
func decoded(text []byte) ([]byte, bool) {
	var encoded string
	members, ok := 0, false
	if err := front.Members(text, func(name string, value []byte) error {
		if members++; members > 1 {
			return errMembers
		}
		ok = name == "b64" && json.Unmarshal(value, &encoded) == nil
		return nil
	}); err != nil || !ok {
		return nil, false
	}
	raw, err := base64.StdEncoding.DecodeString(encoded)
	return raw, err == nil
}

var errMembers = errors.New("an object with more than one member")
