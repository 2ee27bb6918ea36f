package rows

import (
	"io"

	"oscine.dev/oscine/internal/tensor"
)

// Port is an input or output of an ONNX model.
type Port struct {
	Type tensor.DataType // Invalid where the port is no tensor or does not say
	Dims tensor.Shape    // -1: open; nil: the number of dimensions is not told
}

// DataType is the type that TensorProto.DataType of onnx.proto numbers, as ONNX
// Runtime's API does too; Invalid for one that the protocol lacks.
func DataType(element int64) tensor.DataType {
	types := [...]tensor.DataType{
		1: tensor.FP32, 2: tensor.Uint8, 3: tensor.Int8, 4: tensor.Uint16, 5: tensor.Int16, 6: tensor.Int32,
		7: tensor.Int64, 8: tensor.Bytes, 9: tensor.Bool, 10: tensor.FP16, 11: tensor.FP64, 12: tensor.Uint32, 13: tensor.Uint64, 16: tensor.BF16,
	}
	if element >= 0 && element < int64(len(types)) {
		return types[element]
	}
	return tensor.Invalid
}

// Ports returns the inputs and outputs of an ONNX model by their names. Inputs may be
// weights too, which clients need not send.
func Ports(r io.ReaderAt, size int64) (inputs, outputs map[string]Port, err error) {
	inputs, outputs = map[string]Port{}, map[string]Port{}
	err = message{&file{r: r, size: size}, 0, size}.sub(modelGraph, func(graph message) error {
		return graph.each(func(v field) error {
			list := map[int]map[string]Port{graphInput: inputs, graphOutput: outputs}[int(v.number)]
			if list == nil || len(list) == maxArgs {
				return nil
			}
			info, err := v.embedded()
			if err != nil {
				return err
			}
			told, err := parsePort(info)
			if err != nil {
				return err
			}
			port := Port{}
			for _, d := range told.dims {
				port.Dims = append(port.Dims, d.size)
			}
			if told.dims != nil && port.Dims == nil {
				port.Dims = tensor.Shape{}
			}
			err = info.sub(infoType, func(kind message) error {
				return kind.sub(typeTensor, func(t message) error {
					return t.each(func(v field) error {
						if v.number != typeElement {
							return nil
						}
						element, err := v.varint()
						port.Type = DataType(element)
						return err
					})
				})
			})
			list[told.name] = port
			return err
		})
	})
	return inputs, outputs, err
}
