package onnx

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"oscine.dev/oscine/internal/serve/engine/clib"
	"oscine.dev/oscine/internal/serve/rows"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// form is how the library gives an output.
type form int

const (
	tensors  form = iota // a tensor
	mapping              // a map from labels to numbers
	mappings             // a sequence of such maps, one a row: what ZipMap makes
)

// Numbers of ONNXType.
const (
	typeTensor   = 1
	typeSequence = 2
	typeMap      = 3
)

// stringElement is ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING.
const stringElement = 8

// describeMaps reads the type of a map, or of a sequence of maps, into a spec of
// the numbers in them, in the order of the labels.
func (s *Session) describeMaps(typeInfo uintptr, kind uint32, spec *tensor.Spec) (form, error) {
	l, v := s.lib, &s.scratch
	found, of := mapping, typeInfo
	spec.Shape = tensor.Shape{-1}
	if kind == typeSequence {
		found, spec.Shape = mappings, tensor.Shape{-1, -1}
		if err := l.call(fnCastTypeInfoToSequenceTypeInfo, typeInfo, l.out(&v.a)); err != nil {
			return 0, err
		}
		if err := l.call(fnGetSequenceElementType, v.a, l.out(&v.b)); err != nil {
			return 0, err
		}
		of = v.b
		defer l.release(fnReleaseTypeInfo, of)
		v.a = 0
		if err := l.call(fnGetOnnxTypeFromTypeInfo, of, l.out(&v.a)); err != nil {
			return 0, err
		}
		if uint32(v.a) != typeMap {
			return 0, errors.New("is a sequence of tensors, which cannot be served: have the model stack or concatenate them (ConcatFromSequence)")
		}
	}
	if err := l.call(fnCastTypeInfoToMapTypeInfo, of, l.out(&v.a)); err != nil {
		return 0, err
	}
	if err := l.call(fnGetMapValueType, v.a, l.out(&v.b)); err != nil {
		return 0, err
	}
	values := v.b
	defer l.release(fnReleaseTypeInfo, values)
	if err := l.call(fnCastTypeInfoToTensorInfo, values, l.out(&v.a)); err != nil {
		return 0, err
	}
	v.b = 0
	if err := l.call(fnGetTensorElementType, v.a, l.out(&v.b)); err != nil {
		return 0, err
	}
	if spec.Type = rows.DataType(int64(uint32(v.b))); spec.Type == tensor.Invalid || spec.Type == tensor.Bytes {
		return 0, errors.New("is a map whose values are no numbers, which cannot be served")
	}
	return found, nil
}

// inputStrings makes the OrtValue of input i from byte strings, which the library
// copies. It takes none with a zero byte.
func (s *Session) inputStrings(i int, t *worker.Tensor) error {
	n, err := t.Shape.Elements()
	if err != nil {
		return err
	}
	need := 8*n + len(t.Data) + n // a pointer and a zero byte for each
	s.texts = s.texts.AtLeast(need)
	pointers := unsafe.Slice((*uintptr)(unsafe.Pointer(unsafe.SliceData(s.texts))), max(n, 1))
	at, k := 8*n, 0
	err = tensor.Strings(t.Data, n, func(text []byte) error {
		if bytes.IndexByte(text, 0) >= 0 {
			return fmt.Errorf("%w: string %d has a zero byte, which ONNX Runtime takes for its end", tensor.ErrData, k)
		}
		pointers[k] = s.texts.Address() + uintptr(at)
		at += copy(s.texts[at:], text)
		s.texts[at] = 0
		at++
		k++
		return nil
	})
	if err != nil {
		return err
	}
	l, v := s.lib, &s.scratch
	if err := l.call(fnCreateTensorAsOrtValue, l.alloc, s.dims.Address(), uintptr(len(t.Shape)), stringElement, l.out(&v.a)); err != nil {
		return err
	}
	s.inValues[i] = v.a
	return l.call(fnFillStringTensor, v.a, uintptr(unsafe.Pointer(unsafe.SliceData(pointers))), uintptr(n))
}

// strings reads a tensor of strings as the elements of BYTES, into s.gathered.
func (s *Session) strings(value uintptr, elements int) ([]byte, error) {
	s.gathered = s.gathered[:0]
	if elements == 0 {
		return s.gathered, nil
	}
	l, v := s.lib, &s.scratch
	if err := l.call(fnGetStringTensorDataLength, value, l.out(&v.a)); err != nil {
		return nil, err
	}
	total := int(v.a)
	if total > tensor.MaxBytes || elements > tensor.MaxBytes/8 {
		return nil, fmt.Errorf("%d strings of %d bytes are more than can be served", elements, total)
	}
	s.texts = s.texts.AtLeast(8*elements + total + 1)
	offsets := unsafe.Slice((*uintptr)(unsafe.Pointer(unsafe.SliceData(s.texts))), elements)
	content := s.texts[8*elements:]
	if err := l.call(fnGetStringTensorContent, value, content.Address(), uintptr(total), s.texts.Address(), uintptr(elements)); err != nil {
		return nil, err
	}
	for i, from := range offsets {
		to := uintptr(total)
		if i+1 < elements {
			to = offsets[i+1]
		}
		if from > to || to > uintptr(total) {
			return nil, fmt.Errorf("%w: it gave strings that overlap", worker.ErrEngine)
		}
		s.gathered = tensor.AppendString(s.gathered, content[from:to])
	}
	return s.gathered, nil
}

// tensorOf returns the elements, type and shape of a tensor; they go with it, or
// with the next call.
func (s *Session) tensorOf(value uintptr) ([]byte, *tensor.Spec, error) {
	l, v := s.lib, &s.scratch
	if err := l.call(fnGetTensorTypeAndShape, value, l.out(&v.b)); err != nil {
		return nil, nil, err
	}
	spec := &s.last
	err := s.typeAndShape(v.b, spec)
	l.release(fnReleaseTensorTypeAndShapeInfo, v.b)
	if err != nil {
		return nil, nil, err
	}
	if spec.Type == tensor.Bytes {
		n, err := spec.Shape.Elements()
		if err != nil {
			return nil, nil, err
		}
		data, err := s.strings(value, n)
		return data, spec, err
	}
	n, err := spec.Shape.Bytes(spec.Type)
	if err != nil {
		return nil, nil, err
	}
	if err := l.call(fnGetTensorMutableData, value, l.out(&v.a)); err != nil {
		return nil, nil, err
	}
	return unsafe.Slice((*byte)(clib.Pointer(v.a)), n), spec, nil
}

// numbers reads the values of a map, and appends its labels' bytes to labels.
func (s *Session) numbers(value uintptr, labels []byte, numbers []byte) (_, _ []byte, err error) {
	l, v := s.lib, &s.scratch
	for part := range 2 { // the labels, then the values
		if err := l.call(fnGetValue, value, uintptr(part), l.alloc, l.out(&v.a)); err != nil {
			return nil, nil, err
		}
		of := v.a
		data, _, err := s.tensorOf(of)
		if part == 0 {
			labels = append(labels, data...)
		} else {
			numbers = append(numbers, data...)
		}
		l.release(fnReleaseValue, of)
		if err != nil {
			return nil, nil, err
		}
	}
	return labels, numbers, nil
}

// flattened reads a map, or a sequence of maps that all have the same labels, as
// one tensor of their values in the order of the labels.
func (s *Session) flattened(value uintptr, kind form, element tensor.DataType) ([]byte, tensor.Shape, error) {
	if kind == mapping {
		_, numbers, err := s.numbers(value, nil, nil)
		return numbers, tensor.Shape{int64(len(numbers) / element.Size())}, err
	}
	l, v := s.lib, &s.scratch
	if err := l.call(fnGetValueCount, value, l.out(&v.a)); err != nil {
		return nil, nil, err
	}
	rows := int(v.a)
	var first, labels, numbers []byte
	for row := range rows {
		if err := l.call(fnGetValue, value, uintptr(row), l.alloc, l.out(&v.a)); err != nil {
			return nil, nil, err
		}
		of := v.a
		var err error
		labels, numbers, err = s.numbers(of, labels[:0], numbers)
		l.release(fnReleaseValue, of)
		switch {
		case err != nil:
			return nil, nil, err
		case row == 0:
			first = bytes.Clone(labels)
		case !bytes.Equal(first, labels):
			return nil, nil, fmt.Errorf("%w: its maps have different labels, and are no table", worker.ErrEngine)
		}
	}
	columns := 0
	if rows > 0 {
		columns = len(numbers) / element.Size() / rows
	}
	return numbers, tensor.Shape{int64(rows), int64(columns)}, nil
}
