package channel

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"oscine.dev/oscine/internal/tensor"
)

// Request asks for one inference on the tensors in a slot. Inputs lie in the
// model's order, each at a 64-byte boundary, from the slot's first byte on
// (see Layout).
type Request struct {
	ID     uint64 // the caller's, never 0 and never used again on a region
	Slot   int
	Within time.Duration // in which the answer is of use; 0: no bound
	Stream bool          // partial results are wanted
	Shapes []tensor.Shape
	Sizes  []int // bytes of each input; only those of BYTES count
	Wanted []int // indices of the outputs; none means all
}

// Code says how a request ended.
type Code byte

// The codes of results.
const (
	OK        Code = iota
	Partial        // one part of a stream; more results follow
	Invalid        // the request does not fit the model
	Failed         // the engine could not compute it
	Cancelled      // it was cancelled, computed or not
	Expired        // its deadline passed before it was computed
	codes
)

// Result is the answer to a Request, or a part of it.
type Result struct {
	ID      uint64
	Slot    int
	Code    Code
	Err     string         // why, unless Code is Partial; with OK, why requests share no runs any more
	Shapes  []tensor.Shape // one for each wanted output
	Offsets []int          // where each output begins in the slot
	Sizes   []int          // bytes of each output
}

// Align is the boundary, in bytes, at which each tensor in a slot begins.
const Align = 64

// Aligned is n rounded up to the next boundary.
func Aligned(n int) int { return (n + Align - 1) &^ (Align - 1) }

// Layout returns where each input of the given shapes begins in a slot, and
// the first free byte behind them, which is aligned as well. The sizes of
// BYTES tensors are the caller's. It fails with tensor.ErrShape for an
// impossible shape.
func Layout(specs []tensor.Spec, shapes []tensor.Shape, sizes, offsets []int) ([]int, int, error) {
	offsets, at := offsets[:0], 0
	for i := range specs {
		n, err := size(&specs[i], shapes[i], sizes, i)
		if err != nil {
			return nil, 0, fmt.Errorf("input %q: %w", specs[i].Name, err)
		}
		if at > tensor.MaxBytes {
			return nil, 0, fmt.Errorf("%w: inputs need more than %d bytes", tensor.ErrShape, tensor.MaxBytes)
		}
		offsets = append(offsets, at)
		at += Aligned(n)
	}
	return offsets, at, nil
}

// size is the bytes of tensor i.
func size(spec *tensor.Spec, shape tensor.Shape, sizes []int, i int) (int, error) {
	if spec.Type != tensor.Bytes {
		return shape.Bytes(spec.Type)
	}
	// Each element takes four bytes at least, for its length.
	least, err := shape.Bytes(tensor.Uint32)
	if err != nil {
		return 0, err
	}
	if i >= len(sizes) || sizes[i] < least || sizes[i] > tensor.MaxBytes {
		return 0, fmt.Errorf("%w: byte strings of shape %s need %d bytes at least and %d at most", tensor.ErrShape, shape, least, tensor.MaxBytes)
	}
	return sizes[i], nil
}

func appendShape(b []byte, s tensor.Shape) []byte {
	b = append(b, byte(len(s)))
	for _, d := range s {
		b = binary.LittleEndian.AppendUint64(b, uint64(d))
	}
	return b
}

// RunBytes is how many bytes the message of a run of these requests has, which
// may be at most MaxMessage.
func RunBytes(requests []Request) int {
	n := 1 + 2
	for i := range requests {
		n += requests[i].bytes()
	}
	return n
}

// bytes is what a request takes of a message.
func (r *Request) bytes() int {
	n := 8 + 2 + 8 + 1 + 2 + 2 + 2*len(r.Wanted)
	for _, s := range r.Shapes {
		n += 1 + 8*len(s) + 8
	}
	return n
}

func appendRun(b []byte, requests []Request) []byte {
	le := binary.LittleEndian
	b = le.AppendUint16(append(b, byte(runKind)), uint16(len(requests)))
	for i := range requests {
		r := &requests[i]
		b = le.AppendUint16(le.AppendUint64(b, r.ID), uint16(r.Slot))
		b = le.AppendUint64(b, uint64(r.Within))
		stream := byte(0)
		if r.Stream {
			stream = 1
		}
		b = le.AppendUint16(append(b, stream), uint16(len(r.Shapes)))
		for j, s := range r.Shapes {
			n := 0
			if j < len(r.Sizes) {
				n = r.Sizes[j]
			}
			b = le.AppendUint64(appendShape(b, s), uint64(n))
		}
		b = le.AppendUint16(b, uint16(len(r.Wanted)))
		for _, w := range r.Wanted {
			b = le.AppendUint16(b, uint16(w))
		}
	}
	return b
}

func appendResults(b []byte, results []Result) []byte {
	le := binary.LittleEndian
	b = le.AppendUint16(append(b, byte(resultKind)), uint16(len(results)))
	for i := range results {
		r := &results[i]
		b = le.AppendUint16(le.AppendUint64(b, r.ID), uint16(r.Slot))
		text := r.Err[:min(len(r.Err), MaxText)]
		b = le.AppendUint16(append(b, byte(r.Code)), uint16(len(text)))
		b = append(b, text...)
		b = le.AppendUint16(b, uint16(len(r.Shapes)))
		for j, s := range r.Shapes {
			b = le.AppendUint64(appendShape(b, s), uint64(r.Offsets[j]))
			b = le.AppendUint64(b, uint64(r.Sizes[j]))
		}
	}
	return b
}

// reader takes numbers off a message; after the first bad one ok is false and
// all further numbers are zero.
type reader struct {
	b  []byte
	ok bool
}

func (r *reader) take(n int) []byte {
	if !r.ok || len(r.b) < n {
		r.ok = false
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) u8(limit int) int {
	b := r.take(1)
	if b == nil || int(b[0]) > limit {
		r.ok = false
		return 0
	}
	return int(b[0])
}

func (r *reader) u16(limit int) int {
	b := r.take(2)
	if b == nil {
		return 0
	}
	n := int(binary.LittleEndian.Uint16(b))
	if n > limit {
		r.ok = false
		return 0
	}
	return n
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// bytes is a number of bytes, or a place among them.
func (r *reader) bytes() int {
	n := r.u64()
	if n > tensor.MaxBytes {
		r.ok = false
		return 0
	}
	return int(n)
}

// shape reads a shape into s, reusing its memory. Dimensions are never
// negative here.
func (r *reader) shape(s tensor.Shape) tensor.Shape {
	s = s[:0]
	for range r.u8(tensor.MaxRank) {
		s = append(s, int64(r.bytes()))
	}
	return s
}

// grow returns s with length n, keeping the elements' own memory for reuse.
func grow[T any](s []T, n int) []T {
	if n <= cap(s) {
		return s[:n]
	}
	return slices.Grow(s[:cap(s)], n-cap(s))[:n]
}

const maxSlot = 1<<16 - 1

// decodeRun reads a run message into requests, reusing their memory. It checks
// counts and bounds that need no model.
func decodeRun(msg []byte, requests []Request) ([]Request, error) {
	r := reader{b: msg, ok: true}
	if k := r.take(1); k == nil || kind(k[0]) != runKind {
		return nil, fmt.Errorf("%w: unexpected message", ErrProtocol)
	}
	requests = grow(requests, r.u16(MaxRequests))
	for i := range requests {
		q := &requests[i]
		q.ID, q.Slot, q.Within, q.Stream = r.u64(), r.u16(maxSlot), time.Duration(r.u64()), r.u8(1) == 1
		n := r.u16(MaxTensors)
		q.Shapes, q.Sizes = grow(q.Shapes, n), grow(q.Sizes, n)
		for j := range q.Shapes {
			q.Shapes[j], q.Sizes[j] = r.shape(q.Shapes[j]), r.bytes()
		}
		q.Wanted = grow(q.Wanted, r.u16(MaxTensors))
		for j := range q.Wanted {
			q.Wanted[j] = r.u16(maxSlot)
		}
	}
	if !r.ok || len(r.b) != 0 {
		return nil, fmt.Errorf("%w: malformed run message of %d bytes", ErrProtocol, len(msg))
	}
	return requests, nil
}

// decodeResults reads a result message into results, reusing their memory.
func decodeResults(msg []byte, results []Result) ([]Result, error) {
	r := reader{b: msg, ok: true}
	if k := r.take(1); k == nil || kind(k[0]) != resultKind {
		return nil, fmt.Errorf("%w: unexpected message", ErrProtocol)
	}
	results = grow(results, r.u16(MaxRequests))
	for i := range results {
		q := &results[i]
		q.ID, q.Slot, q.Code = r.u64(), r.u16(maxSlot), Code(r.u8(int(codes-1)))
		q.Err = string(r.take(r.u16(MaxText)))
		n := r.u16(MaxTensors)
		q.Shapes, q.Offsets, q.Sizes = grow(q.Shapes, n), grow(q.Offsets, n), grow(q.Sizes, n)
		for j := range q.Shapes {
			q.Shapes[j], q.Offsets[j], q.Sizes[j] = r.shape(q.Shapes[j]), r.bytes(), r.bytes()
		}
	}
	if !r.ok || len(r.b) != 0 {
		return nil, fmt.Errorf("%w: malformed result of %d bytes", ErrProtocol, len(msg))
	}
	return results, nil
}
