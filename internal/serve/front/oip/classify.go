package oip

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/tensor"
)

// CheckClasses refuses, before anything is computed, classes of an output that
// has no numbers to order. specs are the model's outputs.
func CheckClasses(specs []tensor.Spec, name string, p OutputParameters) error {
	if p.Classes == 0 {
		return nil
	}
	if i := tensor.Find(specs, name); i >= 0 && scoreOf(specs[i].Type) == nil {
		return fmt.Errorf("%w: output %q: classification needs numbers, and its elements are %s", core.ErrInvalid, name, specs[i].Type)
	}
	return nil
}

// ClassifyAll replaces the outputs of which classes are asked for. specs are the
// model's outputs.
func ClassifyAll(outputs []core.Output, asked []Output, specs []tensor.Spec) error {
	for i := range min(len(outputs), len(asked)) {
		if n := asked[i].Classes; n > 0 {
			if err := classify(&outputs[i], n, specOf(specs, outputs[i].Name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// classify replaces the elements of an output by its n largest, each as the text
// VALUE:INDEX, the largest first and of equals the one of the lower index; see
// Triton's docs/protocol/extension_classification.md. Where spec, the model's
// output, leaves the first of several dimensions open, each row has classes of
// its own.
func classify(out *core.Output, n int, spec tensor.Spec) error {
	score := scoreOf(out.Type)
	size := out.Type.Size()
	if score == nil || size == 0 {
		return fmt.Errorf("%w: output %q: classification needs numbers, and its elements are %s", core.ErrInvalid, out.Name, out.Type)
	}
	elements, rows := len(out.Data)/size, 1
	var shape tensor.Shape
	if len(out.Shape) > 1 && len(spec.Shape) > 1 && spec.Shape[0] < 0 {
		rows = int(out.Shape[0])
		shape = append(shape, out.Shape[0])
	}
	width := 0
	if rows > 0 {
		width = elements / rows
	}
	n = min(n, width)
	var data, text []byte
	order := make([]int, width)
	for row := range rows {
		values := out.Data[row*width*size : (row+1)*width*size]
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int {
			x, y := score(values[a*size:]), score(values[b*size:])
			switch {
			case x > y || y != y && x == x: // what is not a number comes last
				return -1
			case x < y || x != x && y == y:
				return 1
			}
			return 0
		})
		for _, i := range order[:n] {
			text = appendScore(text[:0], out.Type, values[i*size:(i+1)*size])
			text = strconv.AppendInt(append(text, ':'), int64(i), 10)
			data = tensor.AppendString(data, text)
		}
	}
	out.Type, out.Shape, out.Data = tensor.Bytes, append(shape, int64(n)), data
	return nil
}

// specOf finds the output of a name.
func specOf(specs []tensor.Spec, name string) tensor.Spec {
	if i := tensor.Find(specs, name); i >= 0 {
		return specs[i]
	}
	return tensor.Spec{Name: name}
}

// scoreOf returns what orders elements of a type, or nil.
func scoreOf(d tensor.DataType) func([]byte) float64 {
	le := binary.LittleEndian
	switch d {
	case tensor.FP32:
		return func(b []byte) float64 { return float64(math.Float32frombits(le.Uint32(b))) }
	case tensor.FP64:
		return func(b []byte) float64 { return math.Float64frombits(le.Uint64(b)) }
	case tensor.Uint8:
		return func(b []byte) float64 { return float64(b[0]) }
	case tensor.Int8:
		return func(b []byte) float64 { return float64(int8(b[0])) }
	case tensor.Uint16:
		return func(b []byte) float64 { return float64(le.Uint16(b)) }
	case tensor.Int16:
		return func(b []byte) float64 { return float64(int16(le.Uint16(b))) }
	case tensor.Uint32:
		return func(b []byte) float64 { return float64(le.Uint32(b)) }
	case tensor.Int32:
		return func(b []byte) float64 { return float64(int32(le.Uint32(b))) }
	}
	return nil
}

// appendScore writes a value as Triton does: floats with six decimals.
func appendScore(b []byte, d tensor.DataType, e []byte) []byte {
	switch f := scoreOf(d)(e); d {
	case tensor.FP32, tensor.FP64:
		return strconv.AppendFloat(b, f, 'f', 6, 64)
	default:
		return strconv.AppendInt(b, int64(f), 10)
	}
}
