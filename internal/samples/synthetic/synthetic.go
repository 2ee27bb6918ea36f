package synthetic

import (
	"encoding/binary"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Model is an ONNX model under construction: a chain of operators from an input x to an
// output y, of 32-bit floats in rows.
// Source: ONNX, onnx.proto.
type Model struct {
	graph []byte // fields of GraphProto
	last  string // the value that the next operator takes
	node  []byte // the last operator, whose output has no name yet
	count int    // of the operators
	seed  uint32 // of the weights
}

// New begins a model whose input has rows of these dimensions.
func New(dims ...uint64) *Model {
	return &Model{graph: message(nil, 11, value("x", dims)), last: "x", seed: 7}
}

// Operator adds an operator that takes one value.
func (m *Model) Operator(kind string) { m.add(kind) }

// Dense adds a product with weights, from so many features to others.
func (m *Model) Dense(from, to uint64) {
	m.add("MatMul", m.weight(math.Sqrt(6/float64(from)), from, to))
}

// Convolution adds a padded convolution with square filters, and a Relu.
func (m *Model) Convolution(from, to, size, stride uint64) {
	w := m.weight(math.Sqrt(6/float64(from*size*size)), to, from, size, size)
	pad := size / 2
	m.add("Conv", w, integers("pads", pad, pad, pad, pad), integers("strides", stride, stride))
	m.add("Relu")
}

// Bytes ends the model, whose output has rows of these dimensions, and returns its file.
func (m *Model) Bytes(dims ...uint64) []byte {
	m.name("y")
	graph := message(text(m.graph, 2, "synthetic"), 12, value("y", dims))
	const irVersion, operatorSet = 8, 13
	head := message(number(nil, 1, irVersion), 8, number(nil, 2, operatorSet))
	return message(head, 7, graph)
}

// add adds an operator with fields of NodeProto beside its first input.
func (m *Model) add(kind string, fields ...[]byte) {
	if m.node != nil {
		m.name(fmt.Sprint("v", m.count))
	}
	m.count++
	m.node = text(text(nil, 1, m.last), 4, kind)
	for _, f := range fields {
		m.node = append(m.node, f...)
	}
}

// name gives the output of the last operator a name.
func (m *Model) name(output string) {
	m.graph, m.last = message(m.graph, 1, text(m.node, 2, output)), output
}

// weight adds a tensor of made-up numbers and returns its use as an input.
func (m *Model) weight(scale float64, dims ...uint64) []byte {
	var t []byte
	size := uint64(1)
	for _, d := range dims {
		t, size = number(t, 1, d), size*d
	}
	raw := make([]byte, 0, 4*size)
	for range size {
		m.seed = m.seed*1664525 + 1013904223 // Numerical Recipes
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(float32((float64(m.seed)/(1<<31)-1)*scale)))
	}
	name := fmt.Sprint("w", m.count)
	m.graph = message(m.graph, 5, message(text(number(t, 2, 1), 8, name), 9, raw))
	return text(nil, 1, name)
}

// value is a ValueInfoProto of floats, whose first dimension is open.
func value(name string, dims []uint64) []byte {
	shape := message(nil, 1, text(nil, 2, "batch"))
	for _, d := range dims {
		shape = message(shape, 1, number(nil, 1, d))
	}
	return message(text(nil, 1, name), 2, message(nil, 1, message(number(nil, 1, 1), 2, shape)))
}

// integers is an attribute of a node.
func integers(name string, values ...uint64) []byte {
	a := number(text(nil, 1, name), 20, 7) // INTS
	for _, v := range values {
		a = number(a, 8, v)
	}
	return message(nil, 5, a)
}

func message(b []byte, field protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), m)
}

func text(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func number(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}
