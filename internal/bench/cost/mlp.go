package main

import (
	"encoding/binary"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// features is how many floats a row of the made models has, in and out.
const features = 64

// mlp returns an ONNX model x [batch, 64] → y [batch, 64] of fully connected layers
// whose hidden ones have the given widths, with weights that repeat.
func mlp(hidden ...int) []byte {
	const elemFloat, irVersion, opset = 1, 8, 13
	var graph []byte
	widths := append(append([]int{features}, hidden...), features)
	in := "x"
	for i := range len(widths) - 1 {
		weights, out := fmt.Sprintf("w%d", i), fmt.Sprintf("h%d", i)
		last := i == len(widths)-2
		if last {
			out = "y"
		}
		raw := make([]byte, 0, 4*widths[i]*widths[i+1])
		for j := range widths[i] * widths[i+1] {
			w := (float32(j*2654435761%1000)/1000 - 0.5) / float32(widths[i])
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(w))
		}
		var t []byte
		t = number(number(t, 1, uint64(widths[i])), 1, uint64(widths[i+1]))
		t = text(number(t, 2, elemFloat), 8, weights)
		graph = message(graph, 5, message(t, 9, raw))
		if last {
			graph = node(graph, "MatMul", out, in, weights)
			break
		}
		graph = node(graph, "MatMul", out+"m", in, weights)
		graph = node(graph, "Relu", out, out+"m")
		in = out
	}
	graph = text(graph, 2, "mlp")
	for field, name := range map[protowire.Number]string{11: "x", 12: "y"} {
		shape := message(message(nil, 1, text(nil, 2, "batch")), 1, number(nil, 1, features))
		kind := message(number(nil, 1, elemFloat), 2, shape)
		graph = message(graph, field, message(text(nil, 1, name), 2, message(nil, 1, kind)))
	}
	model := number(nil, 1, irVersion)
	model = message(model, 7, graph)
	return message(model, 8, number(nil, 2, opset))
}

func node(graph []byte, operator, out string, in ...string) []byte {
	var n []byte
	for _, name := range in {
		n = text(n, 1, name)
	}
	return message(graph, 1, text(text(n, 2, out), 4, operator))
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
