package rows

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// Numbers of fields in onnx.proto that are read.
const (
	modelGraph, modelOpsets, modelTraining, modelFunctions = 7, 8, 20, 25
	opsetDomain, opsetVersion                              = 1, 2

	graphNode, graphInitializer, graphInput, graphOutput, graphSparse = 1, 5, 11, 12, 15

	nodeInput, nodeOutput, nodeName, nodeOp, nodeAttribute, nodeDomain = 1, 2, 3, 4, 5, 7

	attrName, attrFloat, attrInt, attrString, attrTensor, attrFloats, attrInts, attrReference = 1, 2, 3, 4, 5, 7, 8, 21

	tensorDims, tensorType, tensorFloats, tensorInt32s, tensorInt64s, tensorName, tensorRaw, tensorLocation = 1, 2, 4, 5, 7, 8, 9, 14

	infoName, infoType, typeTensor, typeElement, typeShape, shapeDim, dimValue, dimParam = 1, 2, 1, 1, 2, 1, 1, 2
)

// Numbers of element types in onnx.proto.
const (
	typeFloat, typeInt32, typeInt64 = 1, 6, 7
)

// graph is what matters of a model.
type graph struct {
	opsets       map[string]int64
	initializers map[string]*value
	inputs       []port
	outputs      []string
	nodes        []node
}

// port is an input of the model.
type port struct {
	name string
	dims []dim // nil: not told
}

// dim is a dimension of an input: a number, or a name, or neither.
type dim struct {
	size int64 // -1: open
	name string
}

// node is one operator.
type node struct {
	name, op, domain string
	inputs, outputs  []string
	attributes       map[string]*attribute
}

// attribute is one of a node's settings.
type attribute struct {
	number int64
	real   float64
	text   string
	ints   []int64
	reals  []float64
	tensor *value
	other  bool // it holds something else: a graph, say
}

// parse reads a model.
func parse(f *file) (*graph, error) {
	g := &graph{opsets: map[string]int64{}, initializers: map[string]*value{}}
	var body message
	graphs := 0
	err := message{f, 0, f.size}.each(func(v field) error {
		m, err := message{}, error(nil)
		switch v.number {
		case modelGraph, modelOpsets, modelTraining, modelFunctions:
			if m, err = v.embedded(); err != nil {
				return err
			}
		}
		switch v.number {
		case modelGraph:
			body = m
			graphs++
		case modelOpsets:
			return g.opset(m)
		case modelTraining:
			return unproven("it carries training")
		case modelFunctions:
			return unproven("it defines operators of its own")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if graphs != 1 {
		return nil, errWire
	}
	return g, body.each(g.field)
}

func (g *graph) opset(m message) error {
	domain, version := "", int64(0)
	err := m.each(func(v field) (err error) {
		switch v.number {
		case opsetDomain:
			domain, err = v.text()
		case opsetVersion:
			version, err = v.varint()
		}
		return err
	})
	if domain == "ai.onnx" {
		domain = ""
	}
	g.opsets[domain] = version
	return err
}

func (g *graph) field(v field) error {
	switch v.number {
	case graphNode, graphInitializer, graphInput, graphOutput:
	case graphSparse:
		return unproven("it has sparse weights")
	default:
		return nil
	}
	m, err := v.embedded()
	if err != nil {
		return err
	}
	switch v.number {
	case graphNode:
		if len(g.nodes) == maxNodes {
			return unproven("it has more than %d operators", maxNodes)
		}
		n, err := parseNode(m)
		g.nodes = append(g.nodes, n)
		return err
	case graphInitializer:
		name, t, err := parseTensor(m)
		if g.initializers[name] != nil {
			return errWire
		}
		g.initializers[name] = t
		return err
	}
	p, err := parsePort(m)
	if v.number == graphInput {
		g.inputs = append(g.inputs, p)
	} else {
		g.outputs = append(g.outputs, p.name)
	}
	return err
}

func parseNode(m message) (n node, err error) {
	n.attributes = map[string]*attribute{}
	err = m.each(func(v field) (err error) {
		if len(n.inputs) > maxArgs || len(n.outputs) > maxArgs || len(n.attributes) > maxArgs {
			return errWire
		}
		text := ""
		switch v.number {
		case nodeInput, nodeOutput, nodeName, nodeOp, nodeDomain:
			if text, err = v.text(); err != nil {
				return err
			}
		}
		switch v.number {
		case nodeInput:
			n.inputs = append(n.inputs, text)
		case nodeOutput:
			n.outputs = append(n.outputs, text)
		case nodeName:
			n.name = text
		case nodeOp:
			n.op = text
		case nodeDomain:
			if n.domain = text; text == "ai.onnx" {
				n.domain = ""
			}
		case nodeAttribute:
			m, err := v.embedded()
			if err != nil {
				return err
			}
			name, a, err := parseAttribute(m)
			n.attributes[name] = a
			return err
		}
		return nil
	})
	return n, err
}

func parseAttribute(m message) (name string, a *attribute, err error) {
	a = &attribute{}
	err = m.each(func(v field) (err error) {
		switch v.number {
		case attrName:
			name, err = v.text()
		case attrFloat:
			if v.kind != protowire.Fixed32Type {
				return errWire
			}
			a.real = float64(math.Float32frombits(uint32(v.value)))
		case attrInt:
			a.number, err = v.varint()
		case attrString:
			if v.sub.len() > maxText {
				a.other = true // no setting that matters is so long
				return nil
			}
			a.text, err = v.text()
		case attrTensor:
			var m message
			if m, err = v.embedded(); err == nil {
				_, a.tensor, err = parseTensor(m)
			}
		case attrInts, attrFloats:
			if v.sub.len() > window || len(a.ints)+len(a.reals) > window {
				a.other = true // the weights of a tree
				return nil
			}
			size := 0
			if v.number == attrFloats {
				size = 4
			}
			var list []uint64
			list, err = v.numbers(nil, size)
			for _, x := range list {
				if v.number == attrInts {
					a.ints = append(a.ints, int64(x))
				} else {
					a.reals = append(a.reals, float64(math.Float32frombits(uint32(x))))
				}
			}
		case attrReference:
			return errWire // only functions have those
		case 13, 20: // doc_string, type
		default:
			a.other = true
		}
		return err
	})
	return name, a, err
}

// parseTensor reads what matters of a constant: its shape, and its values where
// they are few.
func parseTensor(m message) (name string, t *value, err error) {
	var (
		dims, data []uint64
		kind       int64
		raw        message
		external   bool
	)
	err = m.each(func(v field) (err error) {
		switch v.number {
		case tensorDims:
			if dims, err = v.numbers(dims, 0); err == nil && len(dims) > maxRank {
				err = errWire
			}
		case tensorType:
			kind, err = v.varint()
		case tensorName:
			name, err = v.text()
		case tensorRaw:
			raw, err = v.embedded()
		case tensorLocation:
			var location int64
			location, err = v.varint()
			external = location != 0
		case tensorFloats, tensorInt32s, tensorInt64s:
			if v.kind == protowire.BytesType && v.sub.len() > 8*maxValues || len(data) > maxValues {
				return nil // too many to matter
			}
			size := 0
			if v.number == tensorFloats {
				size = 4
			}
			data, err = v.numbers(data, size)
		}
		return err
	})
	if err != nil {
		return name, nil, err
	}
	t = &value{form: constant, dims: make([]int64, len(dims))}
	count := int64(1)
	for i, d := range dims {
		if t.dims[i] = int64(d); t.dims[i] < 0 || t.dims[i] > math.MaxInt32 {
			return name, nil, errWire
		}
		if count *= t.dims[i]; count > maxValues {
			count = maxValues + 1 // and it stays beyond
		}
	}
	if external || count > maxValues || len(dims) > 1 {
		return name, t, nil
	}
	return name, t, t.values(kind, raw, data, int(count))
}

// values reads the elements of a scalar or a vector that is a number of a shape,
// or a scale.
func (t *value) values(kind int64, raw message, data []uint64, count int) error {
	size := map[int64]int{typeFloat: 4, typeInt32: 4, typeInt64: 8}[kind]
	if size == 0 {
		return nil
	}
	if raw.f != nil {
		if raw.len() != int64(size*count) {
			return errWire
		}
		b, err := raw.f.bytes(raw.at, int(raw.len()))
		if err != nil {
			return err
		}
		data = data[:0]
		for ; len(b) > 0; b = b[size:] {
			if size == 8 {
				data = append(data, binary.LittleEndian.Uint64(b))
			} else {
				data = append(data, uint64(binary.LittleEndian.Uint32(b)))
			}
		}
	}
	if len(data) != count {
		return nil // they lie elsewhere
	}
	for _, x := range data {
		switch kind {
		case typeFloat:
			t.reals = append(t.reals, float64(math.Float32frombits(uint32(x))))
		case typeInt32:
			t.ints = append(t.ints, element{known: true, n: int64(int32(x))})
		default:
			t.ints = append(t.ints, element{known: true, n: int64(x)})
		}
	}
	if kind != typeFloat && t.ints == nil {
		t.ints = []element{}
	}
	return nil
}

func parsePort(m message) (p port, err error) {
	types := 0
	err = m.each(func(v field) (err error) {
		switch v.number {
		case infoName:
			p.name, err = v.text()
		case infoType:
			types++
			var m message
			if m, err = v.embedded(); err == nil {
				p.dims, err = parseType(m)
			}
		}
		return err
	})
	if err == nil && types > 1 {
		err = errWire
	}
	return p, err
}

// parseType reads the shape of a tensor type; nil for any other.
func parseType(m message) (dims []dim, err error) {
	seen := map[int]int{}
	err = m.each(func(v field) error {
		if v.number != typeTensor {
			return nil
		}
		seen[0]++
		m, err := v.embedded()
		if err != nil {
			return err
		}
		return m.each(func(v field) error {
			if v.number != typeShape {
				return nil
			}
			seen[1]++
			m, err := v.embedded()
			if err != nil {
				return err
			}
			dims = []dim{}
			return m.each(func(v field) error {
				if v.number != shapeDim {
					return nil
				}
				d := dim{size: -1}
				m, err := v.embedded()
				if err != nil || len(dims) == maxRank {
					return fmt.Errorf("%w: shape of an input", errWire)
				}
				err = m.each(func(v field) (err error) {
					switch v.number {
					case dimValue:
						d.name = ""
						d.size, err = v.varint()
					case dimParam:
						d.name, err = v.text()
						d.size = -1
					}
					return err
				})
				dims = append(dims, d)
				return err
			})
		})
	})
	if err == nil && (seen[0] > 1 || seen[1] > 1) {
		err = errWire
	}
	return dims, err
}

// String names a node in a reason.
func (n *node) String() string {
	s := n.op
	if n.domain != "" {
		s = n.domain + ":" + s
	}
	if n.name != "" {
		s = fmt.Sprintf("%s (%s)", s, n.name)
	}
	return strings.ToValidUTF8(s, "?")
}
