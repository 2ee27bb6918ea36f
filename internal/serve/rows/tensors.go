package rows

import "io"

// Port is an input or output of an ONNX model.
type Port struct {
	// Type is the element type as TensorProto.DataType in onnx.proto numbers it, 0
	// where the port is no tensor or does not say.
	Type int64
	Dims []int64 // -1: open; nil: the number of dimensions is not told
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
				port.Dims = []int64{}
			}
			err = info.sub(infoType, func(kind message) error {
				return kind.sub(typeTensor, func(t message) error {
					return t.each(func(v field) (err error) {
						if v.number == typeElement {
							port.Type, err = v.varint()
						}
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
