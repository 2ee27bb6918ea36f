package worker

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

// Which of the joined runs are checked: few at first, then one in checkEvery.
const (
	firstCheck = 8
	checkEvery = 256
)

// checked reports whether the n-th joined run is one of which an answer is computed
// once more, alone.
func checked(n int64) bool {
	return n >= firstCheck && (n < checkEvery && n&(n-1) == 0 || n%checkEvery == 0)
}

// checkJoined computes one answer of a joined run alone, and says where it differs
// by more than rounding; "" where it does not.
func (e *executor) checkJoined(calls []call, n int64) string {
	c := &calls[int(n/firstCheck)%len(calls)]
	total := 0
	for _, size := range c.result.Sizes {
		total += channel.Aligned(size)
	}
	memory := NewBlock(total)
	defer memory.Free()
	e.inputs = e.inputs[:0]
	for i, shape := range c.request.Shapes {
		e.inputs = append(e.inputs, Tensor{shape, c.memory[c.offsets[i]:][:c.request.Sizes[i]]})
	}
	alone := channel.Result{}
	e.out = Output{meta: &e.conn.server.meta, memory: memory, result: &alone, wanted: e.out.wanted, all: e.out.all}
	e.single[0] = *c
	if e.compute(e.single[:]) != nil || e.out.complete() != nil {
		return "" // nobody waits any more, or it does not fit: nothing is known
	}
	for i, wanted := range e.out.wanted {
		spec := &e.conn.server.meta.Outputs[wanted]
		joined := c.memory[c.result.Offsets[i]:][:c.result.Sizes[i]]
		same := slices.Equal(c.result.Shapes[i], alone.Shapes[i]) && near(joined, memory[alone.Offsets[i]:][:alone.Sizes[i]], spec.Type)
		if !same {
			return fmt.Sprintf("output %q of a batched request differed from the same request run alone: requests are no longer batched", spec.Name)
		}
	}
	return ""
}

// rounding is how far numbers may be apart, as a part of the greatest of them:
// libraries add in another order when there are more rows.
func rounding(kind tensor.DataType) float64 {
	switch kind {
	case tensor.FP64:
		return 1e-6
	case tensor.FP32:
		return 1e-3
	case tensor.FP16, tensor.BF16:
		return 2e-2
	}
	return 0
}

// near reports whether two tensors are equal but for rounding.
func near(a, b []byte, kind tensor.DataType) bool {
	part := rounding(kind)
	if bytes.Equal(a, b) {
		return true
	}
	if part == 0 || len(a) != len(b) {
		return false
	}
	greatest, apart := 0.0, 0.0
	for at := 0; at+kind.Size() <= len(a); at += kind.Size() {
		x, y := number(a[at:], kind), number(b[at:], kind)
		if x == y || math.IsNaN(x) && math.IsNaN(y) {
			continue
		}
		if d := math.Abs(x - y); !(d <= math.MaxFloat64) {
			return false // one is no number
		} else if d > apart {
			apart = d
		}
	}
	for at := 0; at+kind.Size() <= len(b); at += kind.Size() {
		if y := math.Abs(number(b[at:], kind)); y > greatest && !math.IsInf(y, 0) {
			greatest = y
		}
	}
	return apart <= part*greatest
}

// number reads a floating-point element.
func number(data []byte, kind tensor.DataType) float64 {
	switch kind {
	case tensor.FP64:
		return math.Float64frombits(binary.LittleEndian.Uint64(data))
	case tensor.FP32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(data)))
	case tensor.BF16:
		return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(data)) << 16))
	}
	return half(binary.LittleEndian.Uint16(data))
}

// half is the value of a number of IEEE 754's binary16.
func half(bits uint16) float64 {
	exponent, fraction := int(bits>>10&0x1f), float64(bits&0x3ff)
	value := math.Ldexp(1+fraction/1024, exponent-15)
	switch {
	case exponent == 0:
		value = math.Ldexp(fraction/1024, -14)
	case exponent == 0x1f && fraction == 0:
		value = math.Inf(1)
	case exponent == 0x1f:
		value = math.NaN()
	}
	if bits&0x8000 != 0 {
		return -value
	}
	return value
}
