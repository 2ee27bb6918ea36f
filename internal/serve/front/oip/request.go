package oip

import (
	"errors"
	"fmt"
	"strings"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/tensor"
)

// inferInput is one input of a request.
type inferInput struct {
	name   string
	kind   tensor.DataType
	shape  tensor.Shape
	data   []byte // the JSON array, or the binary elements once they are read
	binary int    // bytes behind the JSON; -1: the elements are JSON
	place  place  // where the elements are in shared memory
}

// Output is one requested output.
type Output struct {
	Name string
	OutputParameters
	place place // where the elements go in shared memory
}

// inferRequest is the JSON part of an inference request.
type inferRequest struct {
	id        string
	inputs    []inferInput
	outputs   []Output
	allBinary bool   // outputs are binary unless they say otherwise
	binary    int    // bytes of all binary inputs
	places    bool   // inputs or outputs are in shared memory
	strings   []byte // the elements of byte strings that came as JSON
	Parameters
}

// maxDim bounds a dimension of a request.
const maxDim = tensor.MaxBytes

// parse reads a request. The data of inputs stay where they are in body.
func (r *inferRequest) parse(body []byte) error {
	*r = inferRequest{inputs: r.inputs[:0], outputs: r.outputs[:0], strings: r.strings[:0]}
	s := scanner{b: body}
	seen := false
	err := s.object(func(key string) (err error) {
		switch key {
		case "id":
			if r.id, err = s.text(); err == nil && len(r.id) > MaxID {
				err = fmt.Errorf("%w: id is longer than %d bytes", core.ErrInvalid, MaxID)
			}
			return err
		case "parameters":
			return r.parameters(&s)
		case "inputs":
			seen = true
			return s.array(func() error { return r.input(&s) })
		case "outputs":
			return s.array(func() error { return r.output(&s) })
		default:
			return s.skip(0)
		}
	})
	if err != nil {
		return err
	}
	if s.peek(); s.at != len(body) {
		return s.fail("the end")
	}
	if !seen {
		return fmt.Errorf("%w: inputs are missing", core.ErrInvalid)
	}
	return nil
}

// parameters reads those of the whole request.
func (r *inferRequest) parameters(s *scanner) error {
	return s.object(func(key string) (err error) {
		v, err := s.value()
		switch {
		case err != nil:
			return err
		case key == "binary_data_output":
			r.allBinary, err = v.boolean(key)
			return err
		}
		return r.Set(key, v)
	})
}

func (r *inferRequest) input(s *scanner) error {
	if len(r.inputs) == core.MaxTensors {
		return fmt.Errorf("%w: more than %d inputs", core.ErrInvalid, core.MaxTensors)
	}
	r.inputs = grow(r.inputs)
	in := &r.inputs[len(r.inputs)-1]
	last := *in
	*in = inferInput{shape: in.shape[:0], binary: -1}
	shaped := false
	err := s.object(func(key string) (err error) {
		switch key {
		case "name":
			in.name, err = s.textAs(last.name)
		case "datatype":
			var name string
			if name, err = s.word(); err == nil {
				if in.kind, err = tensor.ParseDataType(name); err != nil {
					err = fmt.Errorf("%w: input %q: %w", core.ErrInvalid, in.name, err)
				}
			}
		case "shape":
			in.shape, shaped = in.shape[:0], true
			err = s.array(func() error { return in.dimension(s) })
		case "data":
			in.data, err = s.elements()
		case "parameters":
			err = in.parameters(s)
		default:
			err = s.skip(0)
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case in.name == "":
		return fmt.Errorf("%w: input %d has no name", core.ErrInvalid, len(r.inputs)-1)
	case in.kind == tensor.Invalid:
		return fmt.Errorf("%w: input %q has no datatype", core.ErrInvalid, in.name)
	case !shaped:
		return fmt.Errorf("%w: input %q has no shape", core.ErrInvalid, in.name)
	case in.data == nil && in.binary < 0 && in.place.region == "":
		return fmt.Errorf("%w: input %q has neither data nor binary_data_size nor shared_memory_region", core.ErrInvalid, in.name)
	case in.data != nil && in.binary >= 0 || in.place.region != "" && (in.data != nil || in.binary >= 0):
		return fmt.Errorf("%w: input %q has more than one of data, binary_data_size and shared_memory_region", core.ErrInvalid, in.name)
	case in.place.region != "":
		r.places = true
		return nil
	}
	if in.binary > 0 {
		r.binary += in.binary
	}
	if in.kind == tensor.Bytes && in.binary < 0 {
		return r.texts(in)
	}
	if r.binary > tensor.MaxBytes {
		return fmt.Errorf("%w: binary data of more than %d bytes", core.ErrInvalid, tensor.MaxBytes)
	}
	return nil
}

// texts reads byte strings, whose size core asks for before they go into their slot.
func (r *inferRequest) texts(in *inferInput) (err error) {
	from := len(r.strings)
	n := 0
	if r.strings, n, err = tensor.ParseStrings(r.strings, in.data); err != nil {
		return fmt.Errorf("%w: input %q: %w", core.ErrInvalid, in.name, err)
	}
	// An earlier input's may lie in memory that this one outgrew, as they were.
	in.data = r.strings[from:]
	want, err := in.shape.Elements()
	if err == nil && n != want {
		err = fmt.Errorf("%w: got %d elements, the shape needs %d", tensor.ErrData, n, want)
	}
	if err != nil {
		return fmt.Errorf("%w: input %q: %w", core.ErrInvalid, in.name, err)
	}
	return nil
}

// grow appends one element, keeping what its memory held.
func grow[T any](s []T) []T {
	if len(s) < cap(s) {
		return s[:len(s)+1]
	}
	var zero T
	return append(s, zero)
}

func (in *inferInput) dimension(s *scanner) error {
	d, err := s.integer()
	if err == nil && (d < 0 || d > maxDim || len(in.shape) == tensor.MaxRank) {
		err = fmt.Errorf("%w: input %q: shape needs at most %d dimensions from 0 to %d", core.ErrInvalid, in.name, tensor.MaxRank, maxDim)
	}
	in.shape = append(in.shape, d)
	return err
}

func (in *inferInput) parameters(s *scanner) error {
	return s.object(func(key string) error {
		v, err := s.value()
		if err != nil || key != "binary_data_size" {
			return errors.Join(err, in.place.set(key, v))
		}
		n, err := v.whole(key)
		if err == nil && (n < 0 || n > tensor.MaxBytes) {
			err = fmt.Errorf("%w: input %q: binary_data_size %d is out of range", core.ErrInvalid, in.name, n)
		}
		in.binary = int(n)
		return err
	})
}

func (r *inferRequest) output(s *scanner) error {
	if len(r.outputs) == core.MaxTensors {
		return fmt.Errorf("%w: more than %d outputs", core.ErrInvalid, core.MaxTensors)
	}
	r.outputs = grow(r.outputs)
	out := &r.outputs[len(r.outputs)-1]
	last := out.Name
	*out = Output{}
	err := s.object(func(key string) (err error) {
		switch key {
		case "name":
			out.Name, err = s.textAs(last)
			return err
		case "parameters":
			return out.parameters(s)
		}
		return s.skip(0)
	})
	r.places = r.places || out.place.region != ""
	return err
}

func (out *Output) parameters(s *scanner) error {
	return s.object(func(key string) error {
		v, err := s.value()
		if err != nil {
			return err
		}
		if strings.HasPrefix(key, "shared_memory_") {
			err = out.place.set(key, v)
		} else {
			err = out.Set(key, v)
		}
		if err != nil {
			return fmt.Errorf("output %q: %w", out.Name, err)
		}
		return nil
	})
}
