package shim

import (
	"errors"
	"fmt"
	"unsafe"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/engine/clib"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// Library is a loaded shim.
type Library struct{ load, count, describe, run, output, end clib.Func }

// Load loads the library from a path, or by name from the system's paths.
func Load(path string) (*Library, error) {
	lib, err := clib.Load(path)
	if err != nil {
		return nil, err
	}
	l := new(Library)
	return l, lib.Bind(map[string]*clib.Func{
		"oscine_load": &l.load, "oscine_count": &l.count, "oscine_describe": &l.describe,
		"oscine_run": &l.run, "oscine_output": &l.output, "oscine_close": &l.end,
	})
}

// Model says what is to be loaded.
type Model struct {
	File    string
	Engine  string // name and version, for people
	Threads int
	Options map[string]string // of the Model: inputs, outputs, method, reset
}

// Session is a loaded model. It implements worker.Session. It is not safe for
// concurrent use.
type Session struct {
	lib       *Library
	handle    uintptr
	meta      channel.Metadata
	told      bool // by the format, what the model takes and gives
	worked    bool // it has run once
	out       clib.Words
	inputs    worker.Block
	described record
}

// Open loads a model.
func (l *Library) Open(m Model) (*Session, error) {
	s := &Session{lib: l, out: clib.NewWords(1), described: newRecords(1)}
	s.meta.Engine = m.Engine
	if err := s.open(m); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Session) open(m Model) error {
	inputs, err := ParseSpecs(m.Options["inputs"])
	if err != nil {
		return fmt.Errorf("the option inputs: %w", err)
	}
	outputs, err := ParseSpecs(m.Options["outputs"])
	if err != nil {
		return fmt.Errorf("the option outputs: %w", err)
	}
	method := m.Options["method"]
	if method == "" {
		method = "forward"
	}
	file, name, reset := clib.String(m.File), clib.String(method), clib.String(m.Options["reset"])
	if err := s.call(s.lib.load, file, name, reset, uintptr(m.Threads), s.out.Address()); err != nil {
		return fmt.Errorf("not a model that %s can load: %w", m.Engine, err)
	}
	s.handle = s.out[0]
	if s.meta.Inputs, err = s.list(false, inputs, nil); err != nil {
		return err
	}
	s.meta.Outputs, err = s.list(true, outputs, inputs)
	s.inputs = worker.NewBlock(len(s.meta.Inputs) * recordBytes)
	return err
}

// Unstated is the error of a model whose format does not tell its inputs, or its
// outputs, and of which nothing is stated.
func Unstated(kind string) error {
	return fmt.Errorf("the model's format does not say what its %ss are: state them in order, such as oscine serve FILE --option '%ss=NAME:FP32[-1,512] OTHER:INT64[]'", kind, kind)
}

// call calls a function that returns null or a text.
func (s *Session) call(f clib.Func, args ...uintptr) error {
	if text := f.Call(args...); text != 0 {
		return errors.New(clib.Text(text))
	}
	return nil
}

// list joins what the format tells of all inputs or outputs with what is stated.
// Outputs may have other sizes than the format tells where inputs have.
func (s *Session) list(outputs bool, stated, inputs []tensor.Spec) ([]tensor.Spec, error) {
	kind, which := "input", uintptr(0)
	if outputs {
		kind, which = "output", 1
	}
	n := int(int64(s.lib.count.Call(s.handle, which)))
	if s.told = n >= 0; !s.told {
		if len(stated) == 0 {
			return nil, Unstated(kind)
		}
		return stated, nil
	}
	if n > channel.MaxTensors {
		return nil, fmt.Errorf("the model has %d %ss, at most %d can be served", n, kind, channel.MaxTensors)
	}
	if len(stated) > 0 && len(stated) != n {
		return nil, fmt.Errorf("the option %ss states %d, the model has %d", kind, len(stated), n)
	}
	specs := make([]tensor.Spec, n)
	for i := range specs {
		if err := s.call(s.lib.describe, s.handle, which, uintptr(i), s.described.address(0)); err != nil {
			return nil, fmt.Errorf("%s %d %w", kind, i, err)
		}
		spec, open, err := s.described.spec(0)
		if err != nil {
			return nil, fmt.Errorf("%s %d %w", kind, i, err)
		}
		spec.Name = fmt.Sprint(kind, i)
		switch {
		case len(stated) > 0:
			if err := agree(stated[i], spec, open); err != nil {
				return nil, fmt.Errorf("the option %ss states %w", kind, err)
			}
			spec = stated[i]
		case open && len(inputs) > 0:
			for j := range spec.Shape {
				spec.Shape[j] = -1
			}
		}
		specs[i] = spec
	}
	return specs, nil
}

// Metadata implements worker.Session.
func (s *Session) Metadata() channel.Metadata { return s.meta }

// Close implements worker.Session.
func (s *Session) Close() error {
	if s.handle != 0 {
		s.lib.end.Call(s.handle)
	}
	s.handle = 0
	s.inputs.Free()
	s.inputs = nil
	return nil
}

// record is memory for oscine_tensors of engine.h, which are words of 64 bits.
type record []int64

const (
	recordType, recordRank, recordDims = 0, 1, 2
	recordData                         = recordDims + tensor.MaxRank
	recordSize, recordOpen             = recordData + 1, recordData + 2
	recordWords                        = recordData + 3
	recordBytes                        = 8 * recordWords
)

func newRecords(n int) record {
	b := worker.NewBlock(n * recordBytes)
	return unsafe.Slice((*int64)(unsafe.Pointer(unsafe.SliceData(b))), n*recordWords)
}

func (r record) address(i int) uintptr { return uintptr(unsafe.Pointer(&r[i*recordWords])) }

func (r record) at(i int) []int64 { return r[i*recordWords:][:recordWords] }

// spec reads a record; open tells that its dimensions are upper bounds.
func (r record) spec(i int) (spec tensor.Spec, open bool, err error) {
	t := r.at(i)
	known := false
	if spec.Type, known = types[t[recordType]]; !known {
		return spec, false, fmt.Errorf("holds elements of PyTorch's type %d, which cannot be served", t[recordType])
	}
	if t[recordRank] < 0 || t[recordRank] > tensor.MaxRank {
		return spec, false, fmt.Errorf("has %d dimensions, at most %d can be served", t[recordRank], tensor.MaxRank)
	}
	spec.Shape = append(tensor.Shape{}, t[recordDims:][:t[recordRank]]...)
	return spec, t[recordOpen] != 0, nil
}

// types maps c10's ScalarType (c10/core/ScalarType.h) to the protocol's types.
var types = map[int64]tensor.DataType{
	0: tensor.Uint8, 1: tensor.Int8, 2: tensor.Int16, 3: tensor.Int32, 4: tensor.Int64, 5: tensor.FP16, 6: tensor.FP32, 7: tensor.FP64,
	11: tensor.Bool, 15: tensor.BF16, 27: tensor.Uint16, 28: tensor.Uint32, 29: tensor.Uint64,
}

func elementOf(d tensor.DataType) int64 {
	for element, t := range types {
		if t == d {
			return element
		}
	}
	return -1 // none: a stated type has been looked up
}
