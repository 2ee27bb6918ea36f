package tensorflow

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

// signature is a SignatureDef of a SavedModel (tensorflow/core/protobuf/
// meta_graph.proto): what a model takes and gives, by name.
type signature struct{ inputs, outputs []endpoint }

// endpoint is an input or output, and where the graph has it.
type endpoint struct {
	tensor.Spec
	operation string
	index     int
}

var errProto = errors.New("the graph's description is damaged")

// fields calls each for every field of a message: with the bytes of one that has
// any, else with its number.
func fields(message []byte, each func(field protowire.Number, value []byte, number uint64) error) error {
	for len(message) > 0 {
		field, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return errProto
		}
		message = message[n:]
		var value []byte
		var number uint64
		switch kind {
		case protowire.BytesType:
			value, n = protowire.ConsumeBytes(message)
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(message)
		default:
			n = protowire.ConsumeFieldValue(field, kind, message)
		}
		if n < 0 {
			return errProto
		}
		message = message[n:]
		if err := each(field, value, number); err != nil {
			return err
		}
	}
	return nil
}

// entry reads an entry of a map whose keys are strings.
func entry(message []byte) (key string, value []byte, err error) {
	err = fields(message, func(field protowire.Number, v []byte, _ uint64) error {
		switch field {
		case 1:
			key = string(v)
		case 2:
			value = v
		}
		return nil
	})
	return key, value, err
}

// defaultKey is the signature that TensorFlow Serving takes too.
const defaultKey = "serving_default"

// findSignature finds the signature of a key in a MetaGraphDef; "" is the default
// one, or the only one.
func findSignature(graph []byte, key string) (*signature, error) {
	found := map[string][]byte{}
	err := fields(graph, func(field protowire.Number, value []byte, _ uint64) error {
		if field != 5 { // signature_def
			return nil
		}
		name, def, err := entry(value)
		if name != "__saved_model_init_op" {
			found[name] = def
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(found))
	def, ok := found[key]
	if key == "" {
		if def, ok = found[defaultKey]; !ok && len(names) == 1 {
			def, ok = found[names[0]], true
		}
	}
	if !ok {
		return nil, fmt.Errorf("the model has no signature %q: it has %q: name one by the option signature", key, names)
	}
	return parseSignature(def)
}

func parseSignature(def []byte) (*signature, error) {
	s := new(signature)
	err := fields(def, func(field protowire.Number, value []byte, _ uint64) error {
		if field != 1 && field != 2 { // inputs, outputs
			return nil
		}
		name, info, err := entry(value)
		if err != nil {
			return err
		}
		e, err := parseInfo(name, info)
		if err != nil {
			return fmt.Errorf("%s %q: %w", map[protowire.Number]string{1: "input", 2: "output"}[field], name, err)
		}
		if field == 1 {
			s.inputs = append(s.inputs, *e)
		} else {
			s.outputs = append(s.outputs, *e)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(s.inputs) > channel.MaxTensors || len(s.outputs) > channel.MaxTensors || len(s.outputs) == 0 {
		return nil, fmt.Errorf("the signature has %d inputs and %d outputs, from one output to %d of each can be served", len(s.inputs), len(s.outputs), channel.MaxTensors)
	}
	for _, list := range [][]endpoint{s.inputs, s.outputs} { // a map's order says nothing
		slices.SortFunc(list, func(a, b endpoint) int { return strings.Compare(a.Name, b.Name) })
	}
	return s, nil
}

// parseInfo reads a TensorInfo.
func parseInfo(name string, info []byte) (*endpoint, error) {
	e := &endpoint{Spec: tensor.Spec{Name: name}}
	unknown := false
	err := fields(info, func(field protowire.Number, value []byte, number uint64) (err error) {
		switch field {
		case 1: // name, of an operation and its output
			operation, index, _ := strings.Cut(string(value), ":")
			if e.operation = operation; index != "" {
				e.index, err = strconv.Atoi(index)
			}
		case 2: // dtype
			if e.Type = types[uint32(number)]; e.Type == tensor.Invalid {
				err = fmt.Errorf("holds elements of TensorFlow's type %d, which cannot be served", number)
			}
		case 3: // tensor_shape
			e.Shape, unknown, err = parseShape(value)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case unknown || len(e.Shape) > tensor.MaxRank:
		return nil, fmt.Errorf("has no fixed number of dimensions up to %d", tensor.MaxRank)
	case e.operation == "" || e.index < 0 || e.Type == tensor.Invalid:
		return nil, errors.New("is no tensor of the graph")
	}
	return e, nil
}

// parseShape reads a TensorShapeProto.
func parseShape(message []byte) (shape tensor.Shape, unknown bool, err error) {
	shape = tensor.Shape{}
	err = fields(message, func(field protowire.Number, value []byte, number uint64) error {
		switch field {
		case 2: // dim
			size := int64(0)
			if err := fields(value, func(f protowire.Number, _ []byte, n uint64) error {
				if f == 1 {
					size = int64(n)
				}
				return nil
			}); err != nil {
				return err
			}
			shape = append(shape, max(size, -1))
		case 3:
			unknown = number != 0
		}
		return nil
	})
	return shape, unknown, err
}

// types maps DataType of tensorflow/core/framework/types.proto to the protocol's.
var types = map[uint32]tensor.DataType{
	1: tensor.FP32, 2: tensor.FP64, 3: tensor.Int32, 4: tensor.Uint8, 5: tensor.Int16, 6: tensor.Int8, 9: tensor.Int64,
	10: tensor.Bool, 14: tensor.BF16, 17: tensor.Uint16, 19: tensor.FP16, 22: tensor.Uint32, 23: tensor.Uint64,
}

func elementOf(d tensor.DataType) uintptr {
	for element, t := range types {
		if t == d {
			return uintptr(element)
		}
	}
	return 0
}
