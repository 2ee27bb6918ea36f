package oip

import (
	"fmt"
	"strconv"
	"time"

	"oscine.dev/oscine/internal/serve/core"
)

// MaxID bounds the id of a request in bytes.
const MaxID = 1024

// Value is the value of a parameter, however the client wrote it.
type Value struct {
	kind   valueKind
	number int64
	text   string
}

type valueKind uint8

const (
	otherValue valueKind = iota
	boolValue
	intValue
	textValue
)

// Bool is a parameter that is true or false.
func Bool(v bool) Value {
	out := Value{kind: boolValue}
	if v {
		out.number = 1
	}
	return out
}

// Int is a parameter that is a whole number.
func Int(v int64) Value { return Value{kind: intValue, number: v} }

// Text is a parameter that is a text.
func Text(v string) Value { return Value{kind: textValue, text: v} }

// Parameters are those of a whole request that mean something to a node.
type Parameters struct {
	Priority int           // 1 is served first; 0: the usual
	Timeout  time.Duration // after which nobody wants the answer; 0: the model's default
	Sequence core.Sequence // to which the request belongs
	// FinalResponse asks, on a stream, for a last answer without outputs that says
	// that it is the last.
	FinalResponse bool
}

// FinalResponse is the parameter of an answer that says whether it is the last.
const FinalResponse = "triton_final_response"

// Set takes one parameter; those that mean nothing here are passed over.
// priority and timeout mean what they mean to Triton:
// docs/protocol/extension_schedule_policy.md.
func (p *Parameters) Set(name string, v Value) (err error) {
	switch name {
	case "priority":
		var n int64
		if n, err = v.whole(name); err == nil && (n < 0 || n > core.MaxPriority) {
			err = fmt.Errorf("%w: parameter \"priority\" is %d: choose 1, served first, to %d, or 0 for the usual, which is %d", core.ErrInvalid, n, core.MaxPriority, core.UsualPriority)
		}
		p.Priority = int(n)
	case "timeout":
		var n int64
		if n, err = v.whole(name); err == nil && (n < 0 || n > core.MaxTimeout.Microseconds()) {
			err = fmt.Errorf("%w: parameter \"timeout\" is %d: choose microseconds from 1 to %d, or 0 for the model's default", core.ErrInvalid, n, core.MaxTimeout.Microseconds())
		}
		p.Timeout = time.Duration(n) * time.Microsecond
	case "triton_enable_empty_final_response":
		p.FinalResponse, err = v.boolean(name)
	case "sequence_id":
		p.Sequence.ID, err = v.sequence(name)
	case "sequence_start":
		p.Sequence.Start, err = v.boolean(name)
	case "sequence_end":
		p.Sequence.End, err = v.boolean(name)
	}
	return err
}

// OutputParameters are those of a requested output.
type OutputParameters struct {
	Classes    int  // how many classes are wanted instead of the elements; 0: the elements
	Binary     bool // over HTTP, the elements follow the JSON
	BinarySaid bool // Binary was said for this output
}

// maxClasses bounds what a client asks for; more than there are is all of them.
const maxClasses = 1 << 20

// Set takes one parameter; those that mean nothing here are passed over.
func (p *OutputParameters) Set(name string, v Value) (err error) {
	switch name {
	case "binary_data":
		p.BinarySaid = true
		p.Binary, err = v.boolean(name)
	case "classification":
		var n int64
		if n, err = v.whole(name); err == nil && (n < 0 || n > maxClasses) {
			err = fmt.Errorf("%w: parameter \"classification\" is %d: choose how many classes, up to %d", core.ErrInvalid, n, maxClasses)
		}
		p.Classes = int(n)
	default:
		err = refuseRegion(name)
	}
	return err
}

// InputParameter refuses the parameters of an input that change where its
// elements are; others are passed over.
func InputParameter(name string, _ Value) error { return refuseRegion(name) }

func refuseRegion(name string) error {
	switch name {
	case "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size":
		return fmt.Errorf("%w: parameter %q: clients' shared memory is not supported over gRPC: ask over HTTP, on the node's Unix socket", core.ErrInvalid, name)
	}
	return nil
}

func (v Value) whole(name string) (int64, error) {
	if v.kind != intValue {
		return 0, fmt.Errorf("%w: parameter %q needs a whole number", core.ErrInvalid, name)
	}
	return v.number, nil
}

// maxSequence is how many bytes the name of a sequence has at most, as in Triton.
const maxSequence = 128

// sequence is the name of a sequence: a number is another name than its text. 0
// and the empty text are none.
func (v Value) sequence(name string) (string, error) {
	switch {
	case v.kind == intValue && v.number != 0:
		return strconv.FormatUint(uint64(v.number), 10), nil
	case v.kind == textValue && v.text != "" && len(v.text) <= maxSequence:
		return strconv.Quote(v.text), nil
	case v.kind == intValue, v.kind == textValue && v.text == "":
		return "", nil
	}
	return "", fmt.Errorf("%w: parameter %q needs a whole number or a text of at most %d bytes", core.ErrInvalid, name, maxSequence)
}

func (v Value) boolean(name string) (bool, error) {
	if v.kind != boolValue {
		return false, fmt.Errorf("%w: parameter %q needs true or false", core.ErrInvalid, name)
	}
	return v.number != 0, nil
}
