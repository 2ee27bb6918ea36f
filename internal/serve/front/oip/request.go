package oip

import (
	"fmt"
	"time"

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
}

// inferOutput is one requested output.
type inferOutput struct {
	name   string
	binary bool
	chosen bool // binary was said for this output
}

// inferRequest is the JSON part of an inference request.
type inferRequest struct {
	id        string
	inputs    []inferInput
	outputs   []inferOutput
	allBinary bool // outputs are binary unless they say otherwise
	binary    int  // bytes of all binary inputs
	priority  int  // 1 is served first; 0: the usual
	timeout   time.Duration
}

// Bounds of a request.
const (
	maxID  = 1024
	maxDim = tensor.MaxBytes
)

// parse reads a request. The data of inputs stay where they are in body.
func (r *inferRequest) parse(body []byte) error {
	*r = inferRequest{inputs: r.inputs[:0], outputs: r.outputs[:0]}
	s := scanner{b: body}
	seen := false
	err := s.object(func(key string) (err error) {
		switch key {
		case "id":
			if r.id, err = s.text(); err == nil && len(r.id) > maxID {
				err = fmt.Errorf("%w: id is longer than %d bytes", core.ErrInvalid, maxID)
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

// parameters reads those of the whole request. priority and timeout mean what
// they mean to Triton: docs/protocol/extension_schedule_policy.md.
func (r *inferRequest) parameters(s *scanner) error {
	return s.object(func(key string) (err error) {
		switch key {
		case "binary_data_output":
			r.allBinary, err = s.boolean()
			return err
		case "priority":
			var n int64
			if n, err = s.integer(); err == nil && (n < 0 || n > core.MaxPriority) {
				err = fmt.Errorf("%w: parameter \"priority\" is %d: choose 1, served first, to %d, or 0 for the usual, which is %d", core.ErrInvalid, n, core.MaxPriority, core.UsualPriority)
			}
			r.priority = int(n)
			return err
		case "timeout":
			var n int64
			if n, err = s.integer(); err == nil && (n < 0 || n > core.MaxTimeout.Microseconds()) {
				err = fmt.Errorf("%w: parameter \"timeout\" is %d: choose microseconds from 1 to %d, or 0 for none", core.ErrInvalid, n, core.MaxTimeout.Microseconds())
			}
			r.timeout = time.Duration(n) * time.Microsecond
			return err
		case "sequence_id", "sequence_start", "sequence_end":
			return fmt.Errorf("%w: parameter %q: stateful sequences are not supported", core.ErrInvalid, key)
		}
		return s.skip(0)
	})
}

func (r *inferRequest) input(s *scanner) error {
	if len(r.inputs) == core.MaxTensors {
		return fmt.Errorf("%w: more than %d inputs", core.ErrInvalid, core.MaxTensors)
	}
	r.inputs = grow(r.inputs)
	in := &r.inputs[len(r.inputs)-1]
	*in = inferInput{shape: in.shape[:0], binary: -1}
	shaped := false
	err := s.object(func(key string) (err error) {
		switch key {
		case "name":
			in.name, err = s.text()
		case "datatype":
			var name string
			if name, err = s.text(); err == nil {
				if in.kind, err = tensor.ParseDataType(name); err != nil {
					err = fmt.Errorf("%w: input %q: %w", core.ErrInvalid, in.name, err)
				}
			}
		case "shape":
			in.shape, shaped = in.shape[:0], true
			err = s.array(func() error { return in.dimension(s) })
		case "data":
			in.data, err = s.numbers()
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
	case in.data == nil && in.binary < 0:
		return fmt.Errorf("%w: input %q has neither data nor binary_data_size", core.ErrInvalid, in.name)
	case in.data != nil && in.binary >= 0:
		return fmt.Errorf("%w: input %q has both data and binary_data_size", core.ErrInvalid, in.name)
	}
	if in.binary > 0 {
		r.binary += in.binary
	}
	if r.binary > tensor.MaxBytes {
		return fmt.Errorf("%w: binary data of more than %d bytes", core.ErrInvalid, tensor.MaxBytes)
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
		switch key {
		case "binary_data_size":
			n, err := s.integer()
			if err == nil && (n < 0 || n > tensor.MaxBytes) {
				err = fmt.Errorf("%w: input %q: binary_data_size %d is out of range", core.ErrInvalid, in.name, n)
			}
			in.binary = int(n)
			return err
		case "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size":
			return fmt.Errorf("%w: input %q: clients' shared memory is not supported", core.ErrInvalid, in.name)
		}
		return s.skip(0)
	})
}

func (r *inferRequest) output(s *scanner) error {
	if len(r.outputs) == core.MaxTensors {
		return fmt.Errorf("%w: more than %d outputs", core.ErrInvalid, core.MaxTensors)
	}
	var out inferOutput
	err := s.object(func(key string) (err error) {
		switch key {
		case "name":
			out.name, err = s.text()
			return err
		case "parameters":
			return out.parameters(s)
		}
		return s.skip(0)
	})
	r.outputs = append(r.outputs, out)
	return err
}

func (out *inferOutput) parameters(s *scanner) error {
	return s.object(func(key string) (err error) {
		switch key {
		case "binary_data":
			out.chosen = true
			out.binary, err = s.boolean()
			return err
		case "classification":
			return fmt.Errorf("%w: output %q: classification is not supported", core.ErrInvalid, out.name)
		case "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size":
			return fmt.Errorf("%w: output %q: clients' shared memory is not supported", core.ErrInvalid, out.name)
		}
		return s.skip(0)
	})
}
