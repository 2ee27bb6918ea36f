package onnx

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// The tests write their own ONNX models (onnx.proto3 of github.com/onnx/onnx)
// so that each shows in a few words what it is.

func varint(field int, v uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, uint64(field<<3)), v)
}

func nested(field int, parts ...[]byte) []byte {
	var body []byte
	for _, p := range parts {
		body = append(body, p...)
	}
	b := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(field<<3|2)), uint64(len(body)))
	return append(b, body...)
}

func str(field int, s string) []byte { return nested(field, []byte(s)) }

// value describes an input (field 11) or output (field 12) of a graph. A
// dimension is a number or a name.
func value(field int, name string, element uint64, dims ...any) []byte {
	var shape [][]byte
	for _, d := range dims {
		switch d := d.(type) {
		case int:
			shape = append(shape, nested(1, varint(1, uint64(d))))
		case string:
			shape = append(shape, nested(1, str(2, d)))
		}
	}
	return nested(field, str(1, name), nested(2, nested(1, varint(1, element), nested(2, shape...))))
}

// node is an operator of a graph.
func node(operator, output string, inputs ...string) []byte {
	var parts [][]byte
	for _, in := range inputs {
		parts = append(parts, str(1, in))
	}
	return nested(1, append(parts, str(2, output), str(4, operator))...)
}

func model(opset uint64, graph ...[]byte) []byte {
	return append(append(varint(1, 8), nested(7, append(graph, str(2, "test"))...)...), nested(8, varint(2, opset))...)
}

// doubler is y = x + x over the given dimensions.
func doubler(dims ...any) []byte {
	const float = 1
	return model(13, node("Add", "y", "x", "x"), value(11, "x", float, dims...), value(12, "y", float, dims...))
}

func writeModel(t testing.TB, raw []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
