package channel

import (
	"encoding/binary"
	"fmt"
	"slices"

	"oscine.dev/oscine/internal/tensor"
)

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

func (r *reader) u16() int {
	if b := r.take(2); b != nil {
		return int(binary.LittleEndian.Uint16(b))
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) i64() int64 {
	if b := r.take(8); b != nil {
		return int64(binary.LittleEndian.Uint64(b))
	}
	return 0
}

func (r *reader) count(limit int) int {
	n := r.u16()
	if n > limit {
		r.ok = false
		return 0
	}
	return n
}

// shape reads a shape into s, reusing its memory. Dimensions are never
// negative here.
func (r *reader) shape(s tensor.Shape) tensor.Shape {
	b := r.take(1)
	if b == nil || b[0] > tensor.MaxRank {
		r.ok = false
		return s[:0]
	}
	s = s[:0]
	for range b[0] {
		d := r.i64()
		if d < 0 || d > tensor.MaxBytes {
			r.ok = false
		}
		s = append(s, d)
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

// decodeRun reads a run message into requests, reusing their memory. It checks
// counts and bounds that need no model; Serve checks the rest.
func decodeRun(msg []byte, requests []Request) (uint32, []Request, error) {
	r := reader{b: msg, ok: true}
	if k := r.take(1); k == nil || kind(k[0]) != runKind {
		return 0, nil, fmt.Errorf("%w: unexpected message", ErrProtocol)
	}
	sequence := r.u32()
	requests = grow(requests, r.count(MaxRequests))
	for i := range requests {
		q := &requests[i]
		q.Slot = r.u16()
		q.Shapes = grow(q.Shapes, r.count(MaxTensors))
		for j := range q.Shapes {
			q.Shapes[j] = r.shape(q.Shapes[j])
		}
		q.Wanted = grow(q.Wanted, r.count(MaxTensors))
		for j := range q.Wanted {
			q.Wanted[j] = r.u16()
		}
	}
	if !r.ok || len(r.b) != 0 {
		return 0, nil, fmt.Errorf("%w: malformed run message of %d bytes", ErrProtocol, len(msg))
	}
	return sequence, requests, nil
}

// decodeDone reads a done message into results, reusing their memory.
func decodeDone(msg []byte, results []Result) (uint32, []Result, error) {
	r := reader{b: msg, ok: true}
	if k := r.take(1); k == nil || kind(k[0]) != doneKind {
		return 0, nil, fmt.Errorf("%w: unexpected message", ErrProtocol)
	}
	sequence := r.u32()
	results = grow(results, r.count(MaxRequests))
	for i := range results {
		q := &results[i]
		q.Err = string(r.take(r.count(maxText)))
		n := r.count(MaxTensors)
		q.Shapes, q.Offsets = grow(q.Shapes, n), grow(q.Offsets, n)
		for j := range q.Shapes {
			q.Shapes[j] = r.shape(q.Shapes[j])
			at := r.i64()
			if at < 0 || at > tensor.MaxBytes {
				r.ok = false
			}
			q.Offsets[j] = int(at)
		}
	}
	if !r.ok || len(r.b) != 0 {
		return 0, nil, fmt.Errorf("%w: malformed answer of %d bytes", ErrProtocol, len(msg))
	}
	return sequence, results, nil
}
