package rows

import "io"

// Unranked names the inputs and outputs of an ONNX model whose type does not say
// how many dimensions they have.
func Unranked(r io.ReaderAt, size int64) (map[string]bool, error) {
	f := &file{r: r, size: size}
	names := map[string]bool{}
	err := message{f, 0, size}.sub(modelGraph, func(graph message) error {
		return graph.each(func(v field) error {
			if v.number != graphInput && v.number != graphOutput {
				return nil
			}
			info, err := v.embedded()
			if err != nil {
				return err
			}
			name, ranked, err := info.ranked()
			if !ranked && len(names) < maxArgs {
				names[name] = true
			}
			return err
		})
	})
	return names, err
}

// sub calls visit with the messages of one field.
func (m message) sub(number int, visit func(message) error) error {
	return m.each(func(v field) error {
		if int(v.number) != number {
			return nil
		}
		inner, err := v.embedded()
		if err != nil {
			return err
		}
		return visit(inner)
	})
}

// ranked reads the name of a value, and whether its type is anything but a tensor
// without a shape.
func (m message) ranked() (name string, ranked bool, err error) {
	ranked = true
	err = m.each(func(v field) (err error) {
		switch v.number {
		case infoName:
			name, err = v.text()
		case infoType:
			var kind message
			if kind, err = v.embedded(); err != nil {
				return err
			}
			return kind.sub(typeTensor, func(t message) error {
				ranked = false
				return t.sub(typeShape, func(message) error { ranked = true; return nil })
			})
		}
		return err
	})
	return name, ranked, err
}
