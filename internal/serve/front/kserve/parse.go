package kserve

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/tensor"
)

// predict is a request that was read.
type predict struct {
	inputs []core.Input
	rows   int // instances; -1: the request has named inputs instead
}

// parse reads a request for a model that takes the inputs of specs.
func parse(text []byte, specs []tensor.Spec) (*predict, error) {
	var wire struct {
		Instances json.RawMessage `json:"instances"`
		Inputs    json.RawMessage `json:"inputs"`
	}
	if err := json.Unmarshal(text, &wire); err != nil {
		return nil, fmt.Errorf("%w: the body is not a JSON object: %w", core.ErrInvalid, err)
	}
	given := func(m json.RawMessage) bool { return len(m) > 0 && string(m) != "null" }
	p := &predict{rows: -1}
	var (
		values map[string][]byte
		err    error
	)
	switch {
	case given(wire.Instances) == given(wire.Inputs):
		return nil, fmt.Errorf("%w: give either instances, one for each row, or inputs", core.ErrInvalid)
	case given(wire.Instances):
		values, p.rows, err = instances(wire.Instances, specs)
	default:
		values, err = inputs(wire.Inputs, specs)
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
	for name := range values {
		if !known(specs, name) {
			return nil, fmt.Errorf("%w: input %q is not known", core.ErrInvalid, name)
		}
	}
	return p, nil
}

func known(specs []tensor.Spec, name string) bool {
	for i := range specs {
		if specs[i].Name == name {
			return true
		}
	}
	return false
}

// instances gathers rows: each is an object with a value for each input, or, of
// a model with one input, that value.
func instances(text []byte, specs []tensor.Spec) (values map[string][]byte, rows int, err error) {
	var list []json.RawMessage
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, 0, fmt.Errorf("%w: instances must be a list", core.ErrInvalid)
	}
	if len(list) == 0 {
		return nil, 0, fmt.Errorf("%w: instances is empty", core.ErrInvalid)
	}
	values = map[string][]byte{}
	add := func(name string, row int, value []byte) {
		separator := byte(',')
		if row == 0 {
			separator = '['
		}
		values[name] = append(append(values[name], separator), value...)
	}
	named := object(list[0])
	for i, row := range list {
		if object(row) != named {
			return nil, 0, fmt.Errorf("%w: instance %d is not of the kind of the first", core.ErrInvalid, i)
		}
		if !named {
			if len(specs) != 1 {
				return nil, 0, fmt.Errorf("%w: instance %d: the model has %d inputs: each instance must be an object that names them", core.ErrInvalid, i, len(specs))
			}
			add(specs[0].Name, i, row)
			continue
		}
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(row, &fields); err != nil {
			return nil, 0, fmt.Errorf("%w: instance %d: %w", core.ErrInvalid, i, err)
		}
		if i > 0 && len(fields) != len(values) {
			return nil, 0, fmt.Errorf("%w: instance %d has not the inputs of the first", core.ErrInvalid, i)
		}
		for name, value := range fields {
			if _, ok := values[name]; !ok && i > 0 {
				return nil, 0, fmt.Errorf("%w: instance %d has not the inputs of the first", core.ErrInvalid, i)
			}
			add(name, i, value)
		}
	}
	for name := range values {
		values[name] = append(values[name], ']')
	}
	return values, len(list), nil
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
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, fmt.Errorf("%w: inputs: %w", core.ErrInvalid, err)
	}
	values := map[string][]byte{}
	for name, value := range fields {
		values[name] = value
	}
	return values, nil
}

// input makes a tensor of a value of any nesting.
func input(spec *tensor.Spec, value []byte) (core.Input, error) {
	in := core.Input{Name: spec.Name, Type: spec.Type}
	s := shaper{text: value}
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
	var wire map[string]json.RawMessage
	if json.Unmarshal(text, &wire) != nil || len(wire) != 1 {
		return nil, false
	}
	var encoded string
	if raw, ok := wire["b64"]; !ok || json.Unmarshal(raw, &encoded) != nil {
		return nil, false
	}
	raw, err := base64.StdEncoding.DecodeString(encoded)
	return raw, err == nil
}
