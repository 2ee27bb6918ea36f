package optimize

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/tensor"
)

// npyMagic begins a .npy file (NumPy's NEP 1: A simple file format for NumPy arrays).
const npyMagic = "\x93NUMPY"

// maxHeader bounds the header of a .npy file in bytes.
const maxHeader = 64 << 10

var (
	descrRE = regexp.MustCompile(`'descr'\s*:\s*'([^']{2,8})'`)
	orderRE = regexp.MustCompile(`'fortran_order'\s*:\s*(True|False)`)
	shapeRE = regexp.MustCompile(`'shape'\s*:\s*\(([0-9, ]*)\)`)
)

// descriptions are NumPy's of the types.
func descriptions() map[string]tensor.DataType {
	return map[string]tensor.DataType{
		"|b1": tensor.Bool, "|u1": tensor.Uint8, "|i1": tensor.Int8,
		"<u2": tensor.Uint16, "<u4": tensor.Uint32, "<u8": tensor.Uint64, "<i2": tensor.Int16, "<i4": tensor.Int32, "<i8": tensor.Int64,
		"<f2": tensor.FP16, "<f4": tensor.FP32, "<f8": tensor.FP64,
	}
}

var errNPY = errors.New("it is no .npy file, as numpy.save writes them")

// readNPY reads an array.
func readNPY(r io.Reader) (Tensor, error) {
	var t Tensor
	header, err := npyHeader(r)
	if err != nil {
		return t, err
	}
	descr, order, shape := descrRE.FindSubmatch(header), orderRE.FindSubmatch(header), shapeRE.FindSubmatch(header)
	if descr == nil || order == nil || shape == nil {
		return t, errNPY
	}
	kind, ok := descriptions()[string(descr[1])]
	switch {
	case !ok:
		return t, fmt.Errorf("an array of NumPy's type %q is not read: save it as the model's input, for example with astype('float32')", descr[1])
	case string(order[1]) == "True":
		return t, errors.New("the array is in Fortran's order: save numpy.ascontiguousarray of it")
	}
	t.Type, t.Shape = kind, tensor.Shape{}
	for part := range strings.SplitSeq(string(shape[1]), ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		n, err := strconv.ParseInt(part, 10, 64)
		if err != nil || len(t.Shape) == tensor.MaxRank {
			return t, errNPY
		}
		t.Shape = append(t.Shape, n)
	}
	size, err := t.Shape.Bytes(kind)
	if err != nil {
		return t, fmt.Errorf("%w: divide the array into several files", err)
	}
	if t.Data, err = readAll(r, int64(size)); err != nil {
		return t, fmt.Errorf("the array is cut short: %w", err)
	}
	return t, nil
}

func npyHeader(r io.Reader) ([]byte, error) {
	var start [len(npyMagic) + 2]byte
	if _, err := io.ReadFull(r, start[:]); err != nil || string(start[:len(npyMagic)]) != npyMagic {
		return nil, errNPY
	}
	length := make([]byte, 2)
	if start[len(npyMagic)] > 1 {
		length = make([]byte, 4)
	}
	if _, err := io.ReadFull(r, length); err != nil {
		return nil, errNPY
	}
	n := uint32(binary.LittleEndian.Uint16(length))
	if len(length) == 4 {
		n = binary.LittleEndian.Uint32(length)
	}
	if n > maxHeader {
		return nil, errNPY
	}
	header, err := readAll(r, int64(n))
	if err != nil {
		return nil, errNPY
	}
	return header, nil
}

// WriteNPY writes an array as numpy.load reads it.
func WriteNPY(w io.Writer, t Tensor) error {
	descr := ""
	for name, kind := range descriptions() {
		if kind == t.Type {
			descr = name
		}
	}
	if descr == "" {
		return fmt.Errorf("arrays of %s are not known to NumPy", t.Type)
	}
	var shape strings.Builder
	for _, d := range t.Shape {
		fmt.Fprintf(&shape, "%d,", d)
	}
	header := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descr, shape.String())
	const align = 64
	before := len(npyMagic) + 4
	header += strings.Repeat(" ", (align-(before+len(header)+1)%align)%align) + "\n"
	start := append([]byte(npyMagic), 1, 0)
	start = binary.LittleEndian.AppendUint16(start, uint16(len(header)))
	if _, err := w.Write(append(start, header...)); err != nil {
		return err
	}
	_, err := w.Write(t.Data)
	return err
}
