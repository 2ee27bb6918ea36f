package gguf

import "oscine.dev/oscine/internal/printable"

// block is how a data type stores its elements: so many together in so many
// bytes.
type block struct{ elements, bytes int64 }

// blockOf returns the layout of a data type by its number. ok is false for
// those that this code does not know.
//
// Source: github.com/ggml-org/ggml, include/ggml.h (enum ggml_type) and the
// structures of src/ggml-common.h.
func blockOf(kind uint32) (b block, ok bool) {
	b, ok = map[uint32]block{
		0: {1, 4}, 1: {1, 2}, 30: {1, 2}, 24: {1, 1}, 25: {1, 2}, 26: {1, 4}, 27: {1, 8}, 28: {1, 8}, // F32, F16, BF16, I8 to I64, F64
		2: {32, 18}, 3: {32, 20}, 6: {32, 22}, 7: {32, 24}, 8: {32, 34}, 9: {32, 36}, // Q4_0 to Q8_1
		10: {256, 84}, 11: {256, 110}, 12: {256, 144}, 13: {256, 176}, 14: {256, 210}, 15: {256, 292}, // Q2_K to Q8_K
		16: {256, 66}, 17: {256, 74}, 18: {256, 98}, 19: {256, 50}, 20: {32, 18}, 21: {256, 110}, 22: {256, 82}, 23: {256, 136}, 29: {256, 56}, // IQ…
		34: {256, 54}, 35: {256, 66}, 39: {32, 17}, // TQ1_0, TQ2_0, MXFP4
	}[kind]
	return b, ok
}

// tensors reads the list of tensors and checks that the file holds them all.
func (h *Header) tensors(d *reader, size int64) error {
	var end int64 // of the tensor that lies last, from where the data begin
	for range h.Tensors {
		name := d.text(maxName, maxName)
		n := d.uint32()
		if d.err == nil && n > maxDims {
			return bad("tensor %q has %d dimensions", printable.Text(name), n)
		}
		elements, row := int64(1), int64(1)
		for i := range n {
			length := d.uint64()
			if length == 0 || length > maxParts || int64(length) > maxParts/elements {
				if d.err != nil {
					return d.err
				}
				return bad("tensor %q has a dimension of %d", printable.Text(name), length)
			}
			if elements *= int64(length); i == 0 {
				row = int64(length)
			}
		}
		kind, at := d.uint32(), d.uint64()
		if d.err != nil {
			return d.err
		}
		bytes := int64(0)
		if b, ok := blockOf(kind); ok {
			if row%b.elements != 0 {
				return bad("tensor %q has rows of %d elements, its type has blocks of %d", printable.Text(name), row, b.elements)
			}
			bytes = elements / b.elements * b.bytes
			h.Quantized = h.Quantized || b.elements > 1
		}
		if at > uint64(size) || int64(at) > size-bytes {
			return bad("tensor %q lies beyond the file's end", printable.Text(name))
		}
		h.TensorBytes += bytes
		end = max(end, int64(at)+bytes)
	}
	alignment := int64(32)
	if list := h.numbers["general.alignment"]; len(list) > 0 {
		alignment = list[0]
	}
	if alignment <= 0 || alignment > 1<<20 || alignment&(alignment-1) != 0 {
		return bad("its alignment is %d", alignment)
	}
	begin := (d.read + alignment - 1) / alignment * alignment
	if h.Tensors > 0 && end > size-begin {
		return bad("it is cut short: its tensors need %d bytes, it has %d", begin+end, size)
	}
	if h.TensorBytes > size {
		return bad("its tensors lie over each other")
	}
	return nil
}
