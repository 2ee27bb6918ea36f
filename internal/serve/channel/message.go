package channel

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"oscine.dev/oscine/internal/tensor"
)

// Version is the protocol's version. Both sides must speak the same one.
const Version = 1

// Versions returns the versions that this code speaks.
func Versions() []int { return []int{Version} }

// Bounds of the protocol.
const (
	MaxMessage  = 128 << 10 // bytes of a control message
	MaxRequests = 64        // requests of one run
	MaxTensors  = 512       // inputs, or outputs, of a model
	maxText     = 1000      // bytes of an error text
)

type kind byte

const (
	helloKind kind = iota + 1
	modelKind
	regionKind
	mappedKind
	runKind
	doneKind
)

// ErrProtocol is wrapped by every error that means that the other side does
// not follow the protocol; the connection is of no further use.
var ErrProtocol = errors.New("worker protocol broken")

// Metadata is what a worker says of its model after loading it.
type Metadata struct {
	Engine  string        `json:"engine"` // name and version, for example "onnxruntime 1.30.0"
	Inputs  []tensor.Spec `json:"inputs"`
	Outputs []tensor.Spec `json:"outputs"`
	Batch   bool          `json:"batch"`   // the first dimension of all inputs and outputs is a batch that requests may share
	Threads int           `json:"threads"` // of the engine
}

func (m *Metadata) check() error {
	if len(m.Inputs) > MaxTensors || len(m.Outputs) == 0 || len(m.Outputs) > MaxTensors {
		return fmt.Errorf("%w: %d inputs and %d outputs", ErrProtocol, len(m.Inputs), len(m.Outputs))
	}
	for _, spec := range append(m.Inputs[:len(m.Inputs):len(m.Inputs)], m.Outputs...) {
		if spec.Type.Size() == 0 || len(spec.Shape) > tensor.MaxRank {
			return fmt.Errorf("%w: tensor %q has type %s and %d dimensions", ErrProtocol, spec.Name, spec.Type, len(spec.Shape))
		}
		for _, d := range spec.Shape {
			if d < -1 || d > tensor.MaxBytes {
				return fmt.Errorf("%w: tensor %q has the shape %s", ErrProtocol, spec.Name, spec.Shape)
			}
		}
	}
	return nil
}

type helloMessage struct {
	Version int `json:"version"`
}

type modelMessage struct {
	Version int    `json:"version"`
	Error   string `json:"error,omitempty"`
	Metadata
}

type regionMessage struct {
	Slots     int `json:"slots"`
	SlotBytes int `json:"slotBytes"`
}

type mappedMessage struct {
	Error string `json:"error,omitempty"`
}

func encodeControl(k kind, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(body) >= MaxMessage {
		return nil, fmt.Errorf("%w: message of %d bytes", ErrProtocol, len(body))
	}
	return append([]byte{byte(k)}, body...), nil
}

func decodeControl(msg []byte, k kind, v any) error {
	if len(msg) == 0 || kind(msg[0]) != k {
		return fmt.Errorf("%w: unexpected message", ErrProtocol)
	}
	if err := json.Unmarshal(msg[1:], v); err != nil {
		return fmt.Errorf("%w: %v", ErrProtocol, err)
	}
	return nil
}

// Request asks for one inference on the tensors in a slot. Inputs lie in the
// model's order, each at a 64-byte boundary, from the slot's first byte on
// (see Layout).
type Request struct {
	Slot   int
	Shapes []tensor.Shape // one for each input of the model
	Wanted []int          // indices of the outputs; none means all
}

// Result is the answer to a Request.
type Result struct {
	Err     string         // the engine's words when the inference failed
	Shapes  []tensor.Shape // one for each wanted output
	Offsets []int          // where each output begins in the slot
}

const align = 64

// Layout returns where each input of the given shapes begins in a slot, and
// the first free byte behind them, which is aligned as well. It fails with
// tensor.ErrShape for an impossible shape.
func Layout(specs []tensor.Spec, shapes []tensor.Shape, offsets []int) ([]int, int, error) {
	offsets, at := offsets[:0], 0
	for i, spec := range specs {
		n, err := shapes[i].Bytes(spec.Type)
		if err != nil {
			return nil, 0, fmt.Errorf("input %q: %w", spec.Name, err)
		}
		if at > tensor.MaxBytes {
			return nil, 0, fmt.Errorf("%w: inputs need more than %d bytes", tensor.ErrShape, tensor.MaxBytes)
		}
		offsets = append(offsets, at)
		at += (n + align - 1) &^ (align - 1)
	}
	return offsets, at, nil
}

func appendShape(b []byte, s tensor.Shape) []byte {
	b = append(b, byte(len(s)))
	for _, d := range s {
		b = binary.LittleEndian.AppendUint64(b, uint64(d))
	}
	return b
}

func appendRun(b []byte, sequence uint32, requests []Request) []byte {
	b = append(b, byte(runKind))
	b = binary.LittleEndian.AppendUint32(b, sequence)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(requests)))
	for _, r := range requests {
		b = binary.LittleEndian.AppendUint16(b, uint16(r.Slot))
		b = binary.LittleEndian.AppendUint16(b, uint16(len(r.Shapes)))
		for _, s := range r.Shapes {
			b = appendShape(b, s)
		}
		b = binary.LittleEndian.AppendUint16(b, uint16(len(r.Wanted)))
		for _, w := range r.Wanted {
			b = binary.LittleEndian.AppendUint16(b, uint16(w))
		}
	}
	return b
}

func appendDone(b []byte, sequence uint32, results []Result) []byte {
	b = append(b, byte(doneKind))
	b = binary.LittleEndian.AppendUint32(b, sequence)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(results)))
	for _, r := range results {
		text := r.Err[:min(len(r.Err), maxText)]
		b = binary.LittleEndian.AppendUint16(b, uint16(len(text)))
		b = append(b, text...)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(r.Shapes)))
		for i, s := range r.Shapes {
			b = appendShape(b, s)
			b = binary.LittleEndian.AppendUint64(b, uint64(r.Offsets[i]))
		}
	}
	return b
}
