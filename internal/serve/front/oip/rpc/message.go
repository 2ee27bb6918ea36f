package rpc

import (
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front/oip"
	"oscine.dev/oscine/internal/tensor"
)

// request is a ModelInferRequest. Its bytes stay where they are in the message.
type request struct {
	left               time.Duration // of the client's deadline; 0: none
	model, version, id string
	parameters         oip.Parameters
	inputs             []input
	outputs            []oip.Output
	raw                int // entries of raw_input_contents
}

// input is one input tensor: its elements are raw or in contents.
type input struct {
	name     string
	kind     tensor.DataType
	shape    tensor.Shape
	raw      []byte // set where isRaw
	contents contents
	isRaw    bool
	given    bool // it has contents
}

// forget lets go of what a request's memory refers to.
func (q *request) forget() {
	for i := range q.inputs {
		q.inputs[i].raw, q.inputs[i].contents = nil, contents{}
	}
	*q = request{inputs: q.inputs[:0], outputs: q.outputs[:0]}
}

// fields walks the fields of a message. A field is called with its wire type, the
// number of a varint or fixed field, or the bytes of another.
func fields(b []byte, field func(number protowire.Number, kind protowire.Type, value uint64, bytes []byte) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return broken(n)
		}
		b = b[n:]
		var (
			value uint64
			bytes []byte
		)
		switch kind {
		case protowire.VarintType:
			value, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(b)
			value = uint64(v)
		case protowire.Fixed64Type:
			value, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return broken(n)
		}
		b = b[n:]
		if err := field(number, kind, value, bytes); err != nil {
			return err
		}
	}
	return nil
}

func broken(n int) error {
	return fmt.Errorf("%w: the message is not a ModelInferRequest: %w", core.ErrInvalid, protowire.ParseError(n))
}

// Numbers of ModelInferRequest's fields; see the proto file of package oip.
const (
	fieldModel, fieldVersion, fieldID, fieldParameters, fieldInputs, fieldOutputs, fieldRaw = 1, 2, 3, 4, 5, 6, 7

	inputName, inputDatatype, inputShape, inputParameters, inputContents = 1, 2, 3, 4, 5
	outputName, outputParameters                                         = 1, 2
)

// parse reads the message.
func (q *request) parse(b []byte) error {
	*q = request{left: q.left, inputs: q.inputs[:0], outputs: q.outputs[:0]}
	err := fields(b, func(number protowire.Number, kind protowire.Type, _ uint64, bytes []byte) error {
		if kind != protowire.BytesType {
			return nil
		}
		switch number {
		case fieldModel:
			q.model = string(bytes)
		case fieldVersion:
			q.version = string(bytes)
		case fieldID:
			if len(bytes) > oip.MaxID {
				return fmt.Errorf("%w: id is longer than %d bytes", core.ErrInvalid, oip.MaxID)
			}
			q.id = string(bytes)
		case fieldParameters:
			return parameter(bytes, q.parameters.Set)
		case fieldInputs:
			return q.input(bytes)
		case fieldOutputs:
			return q.output(bytes)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return q.takeRaw(b)
}

func (q *request) input(b []byte) error {
	if len(q.inputs) == core.MaxTensors {
		return fmt.Errorf("%w: more than %d inputs", core.ErrInvalid, core.MaxTensors)
	}
	q.inputs = grow(q.inputs)
	in := &q.inputs[len(q.inputs)-1]
	*in = input{shape: in.shape[:0]}
	datatype := ""
	err := fields(b, func(number protowire.Number, kind protowire.Type, value uint64, bytes []byte) (err error) {
		switch {
		case number == inputName && kind == protowire.BytesType:
			in.name = string(bytes)
		case number == inputDatatype && kind == protowire.BytesType:
			datatype = string(bytes)
		case number == inputShape && kind == protowire.VarintType:
			return in.dimension(value)
		case number == inputShape && kind == protowire.BytesType:
			for len(bytes) > 0 {
				v, n := protowire.ConsumeVarint(bytes)
				if n < 0 {
					return broken(n)
				}
				if err := in.dimension(v); err != nil {
					return err
				}
				bytes = bytes[n:]
			}
		case number == inputParameters && kind == protowire.BytesType:
			return parameter(bytes, oip.InputParameter)
		case number == inputContents && kind == protowire.BytesType:
			in.given = true
			return in.contents.parse(bytes)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("input %q: %w", in.name, err)
	}
	if in.kind, err = tensor.ParseDataType(datatype); err != nil {
		return fmt.Errorf("%w: input %q: %w", core.ErrInvalid, in.name, err)
	}
	return nil
}

func (in *input) dimension(v uint64) error {
	if v > tensor.MaxBytes || len(in.shape) == tensor.MaxRank {
		return fmt.Errorf("%w: shape needs at most %d dimensions from 0 to %d", core.ErrInvalid, tensor.MaxRank, tensor.MaxBytes)
	}
	in.shape = append(in.shape, int64(v))
	return nil
}

func (q *request) output(b []byte) error {
	if len(q.outputs) == core.MaxTensors {
		return fmt.Errorf("%w: more than %d outputs", core.ErrInvalid, core.MaxTensors)
	}
	var out oip.Output
	err := fields(b, func(number protowire.Number, kind protowire.Type, _ uint64, bytes []byte) error {
		switch {
		case number == outputName && kind == protowire.BytesType:
			out.Name = string(bytes)
		case number == outputParameters && kind == protowire.BytesType:
			return parameter(bytes, out.Set)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("output %q: %w", out.Name, err)
	}
	q.outputs = append(q.outputs, out)
	return nil
}

// takeRaw gives each input its entry of raw_input_contents.
func (q *request) takeRaw(b []byte) error {
	next := 0
	err := fields(b, func(number protowire.Number, kind protowire.Type, _ uint64, bytes []byte) error {
		if number != fieldRaw || kind != protowire.BytesType {
			return nil
		}
		q.raw++
		if next == len(q.inputs) {
			return fmt.Errorf("%w: raw_input_contents has more entries than there are inputs", core.ErrInvalid)
		}
		in := &q.inputs[next]
		in.raw, in.isRaw = bytes, true
		next++
		return nil
	})
	if err != nil {
		return err
	}
	for i := range q.inputs {
		switch in := &q.inputs[i]; {
		case in.isRaw && in.given:
			return fmt.Errorf("%w: input %q has both contents and an entry of raw_input_contents", core.ErrInvalid, in.name)
		case !in.isRaw && q.raw > 0:
			return fmt.Errorf("%w: input %q has no entry of raw_input_contents, which needs one for each input where it is used", core.ErrInvalid, in.name)
		}
	}
	return nil
}

// parameter reads an entry of a map of InferParameter and hands on what it says.
func parameter(entry []byte, set func(name string, v oip.Value) error) error {
	var (
		name string
		v    oip.Value
	)
	err := fields(entry, func(number protowire.Number, kind protowire.Type, _ uint64, bytes []byte) error {
		switch {
		case number == 1 && kind == protowire.BytesType:
			name = string(bytes)
		case number == 2 && kind == protowire.BytesType:
			return fields(bytes, func(number protowire.Number, kind protowire.Type, value uint64, bytes []byte) error {
				switch {
				case number == 1 && kind == protowire.VarintType:
					v = oip.Bool(value != 0)
				case number == 2 && kind == protowire.VarintType:
					v = oip.Int(int64(value))
				case number == 3 && kind == protowire.BytesType:
					v = oip.Text(string(bytes))
				case number == 5 && kind == protowire.VarintType:
					v = oip.Int(int64(min(value, math.MaxInt64)))
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return err
	}
	return set(name, v)
}

// grow appends one element, keeping what its memory held.
func grow[T any](s []T) []T {
	if len(s) < cap(s) {
		return s[:len(s)+1]
	}
	var zero T
	return append(s, zero)
}
