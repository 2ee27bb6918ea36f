package onnx

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/engine/clib"
	"oscine.dev/oscine/internal/serve/rows"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// Engine implements worker.Engine.
type Engine struct {
	library string
	loaded  *Library
	cuda    int    // its version, for a GPU; 0: on CPUs
	gpu     string // its name
}

// Name is the library's file name.
const Name = "libonnxruntime.so.1"

// Flags implements worker.Engine.
func (e *Engine) Flags(f *flag.FlagSet) {
	f.StringVar(&e.library, "library", Name, "ONNX Runtime `library`")
}

// Options implements worker.Engine.
func (*Engine) Options() []string { return nil }

// Open implements worker.Engine.
func (e *Engine) Open(path string, o worker.Options) (worker.Session, error) {
	file, err := worker.Entry(path, ".onnx", ".ort")
	if err == nil {
		err = complete(file, file != path)
	}
	if err == nil && e.cuda > 0 && e.gpu == "" {
		e.gpu, err = e.openGPU()
	}
	if err == nil && e.loaded == nil {
		e.loaded, err = Load(e.library)
	}
	if err != nil {
		return nil, err
	}
	s, err := e.loaded.open(file, o.Threads, e.cuda > 0)
	if err != nil {
		return nil, err
	}
	if e.cuda > 0 {
		s.meta.Engine += " with CUDA on " + e.gpu
	}
	if s.alone != nil {
		fmt.Fprintln(os.Stderr, "requests are not joined into batches:", s.alone)
	}
	return s, nil
}

// Session is a loaded model. It implements worker.Session. It is not safe for
// concurrent use.
type Session struct {
	lib  *Library
	ptr  uintptr
	meta channel.Metadata
	// alone is why requests are not joined into batches; nil where they are.
	alone error

	// Memory that the library reads and writes, reused by every run.
	inNames, outNames   clib.Words
	inValues, outValues clib.Words
	wantNames           clib.Words
	dims                clib.Words
	scratch             scratch
	texts               worker.Block  // strings on their way to and from the library
	gathered            []byte        // strings of an output
	forms               []form        // of the outputs
	last                tensor.Spec   // of the output looked at last
	options             uintptr       // OrtRunOptions, by which a run is stopped
	usual               time.Duration // of the runs so far
}

// scratch holds the variables that the library writes through a pointer.
type scratch struct{ a, b uintptr }

// Open loads a model file with the given number of threads, which do not spin
// while they wait: they share their cores with others.
func (l *Library) Open(path string, threads int) (*Session, error) {
	return l.open(path, threads, false)
}

func (l *Library) open(path string, threads int, cuda bool) (*Session, error) {
	s := &Session{lib: l, dims: clib.NewWords(tensor.MaxRank)}
	v := &s.scratch
	if err := l.call(fnCreateSessionOptions, l.out(&v.a)); err != nil {
		return nil, err
	}
	options := v.a
	defer l.release(fnReleaseSessionOptions, options)
	if err := l.call(fnSetIntraOpNumThreads, options, uintptr(threads)); err != nil {
		return nil, err
	}
	if err := l.call(fnSetInterOpNumThreads, options, 1); err != nil {
		return nil, err
	}
	for _, entry := range [][2]string{
		{"session.intra_op.allow_spinning", "0"},
		{"session.inter_op.allow_spinning", "0"},
	} {
		if err := l.call(fnAddSessionConfigEntry, options, clib.String(entry[0]), clib.String(entry[1])); err != nil {
			return nil, fmt.Errorf("set %s: %w", entry[0], err)
		}
	}
	if cuda {
		if err := l.onGPU(options); err != nil {
			return nil, err
		}
	}
	if err := l.call(fnCreateSession, l.env, clib.String(path), options, l.out(&v.b)); err != nil {
		if cuda && errors.Is(err, worker.ErrEngine) {
			return nil, fmt.Errorf("load the model on the GPU: %w", err)
		}
		return nil, fmt.Errorf("not a model that ONNX Runtime %s can load: %s", l.version, strings.ReplaceAll(err.Error(), path, "the file"))
	}
	s.ptr = v.b
	s.meta.Engine = "onnxruntime " + l.version
	err := s.describe()
	if err == nil {
		err = s.findUnranked(path)
	}
	if err == nil {
		s.alone = rows.IndependentFile(path)
		s.meta.Batch = s.alone == nil
	}
	if err == nil {
		err = l.call(fnCreateRunOptions, l.out(&s.options))
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close implements worker.Session.
func (s *Session) Close() error {
	s.lib.release(fnReleaseRunOptions, s.options)
	s.lib.release(fnReleaseSession, s.ptr)
	return nil
}

// Metadata implements worker.Session.
func (s *Session) Metadata() channel.Metadata { return s.meta }

func (s *Session) describe() error {
	var err error
	s.meta.Inputs, s.inNames, _, err = s.list(fnSessionGetInputCount, fnSessionGetInputName, fnSessionGetInputTypeInfo)
	if err != nil {
		return fmt.Errorf("input %w", err)
	}
	s.meta.Outputs, s.outNames, s.forms, err = s.list(fnSessionGetOutputCount, fnSessionGetOutputName, fnSessionGetOutputTypeInfo)
	if err != nil {
		return fmt.Errorf("output %w", err)
	}
	s.inValues, s.outValues = clib.NewWords(len(s.meta.Inputs)), clib.NewWords(len(s.meta.Outputs))
	s.wantNames = clib.NewWords(len(s.meta.Outputs))
	return nil
}

// findUnranked marks the tensors of which the model does not tell the rank: the
// library calls them scalars.
func (s *Session) findUnranked(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	unranked, err := rows.Unranked(f, info.Size())
	if err != nil {
		return nil // a format of the library's own, whose ranks are told
	}
	for _, specs := range [][]tensor.Spec{s.meta.Inputs, s.meta.Outputs} {
		for i := range specs {
			specs[i].AnyRank = len(specs[i].Shape) == 0 && unranked[specs[i].Name]
		}
	}
	return nil
}

// complete refuses a model that keeps weights in files which are not beside it;
// inFolder says whether there can be any.
func complete(path string, inFolder bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	needed, err := rows.External(f, info.Size())
	if err != nil {
		return nil // the library says better what is wrong with it
	}
	for _, name := range needed {
		if !filepath.IsLocal(name) {
			return fmt.Errorf("the model keeps weights in %q, outside its folder", name)
		}
		if info, err := os.Stat(filepath.Join(filepath.Dir(path), name)); !inFolder || err != nil || !info.Mode().IsRegular() {
			return fmt.Errorf("the model keeps weights in the file %q, which did not come with it: oscine serve takes it along where it lies beside the model", name)
		}
	}
	return nil
}

// list describes all inputs or all outputs, and returns their names for the
// library.
func (s *Session) list(count, name, info int) ([]tensor.Spec, clib.Words, []form, error) {
	l, v := s.lib, &s.scratch
	if err := l.call(count, s.ptr, l.out(&v.a)); err != nil {
		return nil, nil, nil, err
	}
	n := int(v.a)
	if n > channel.MaxTensors {
		return nil, nil, nil, fmt.Errorf("count of %d is more than %d", n, channel.MaxTensors)
	}
	specs, names, forms := make([]tensor.Spec, n), clib.NewWords(n), make([]form, n)
	for i := range n {
		if err := l.call(name, s.ptr, uintptr(i), l.alloc, l.out(&v.a)); err != nil {
			return nil, nil, nil, err
		}
		names[i] = v.a // lives as long as the process
		specs[i].Name = clib.Text(names[i])
		if err := l.call(info, s.ptr, uintptr(i), l.out(&v.a)); err != nil {
			return nil, nil, nil, err
		}
		typeInfo := v.a
		var err error
		forms[i], err = s.valueInfo(typeInfo, &specs[i], info == fnSessionGetOutputTypeInfo)
		l.release(fnReleaseTypeInfo, typeInfo)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("%q: %w", specs[i].Name, err)
		}
	}
	return specs, names, forms, nil
}

// valueInfo reads type and shape, of an output also those of maps.
func (s *Session) valueInfo(typeInfo uintptr, spec *tensor.Spec, output bool) (form, error) {
	l, v := s.lib, &s.scratch
	v.a = 0
	if err := l.call(fnGetOnnxTypeFromTypeInfo, typeInfo, l.out(&v.a)); err != nil {
		return 0, err
	}
	kind := uint32(v.a)
	if output && (kind == typeSequence || kind == typeMap) {
		return s.describeMaps(typeInfo, kind, spec)
	}
	if kind != typeTensor {
		kinds := []string{"unknown kind", "tensor", "sequence", "map", "opaque kind", "sparse tensor", "optional"}
		return 0, fmt.Errorf("is a %s; only tensors can be served, and maps as outputs", kinds[min(int(kind), len(kinds)-1)])
	}
	if err := l.call(fnCastTypeInfoToTensorInfo, typeInfo, l.out(&v.a)); err != nil {
		return 0, err
	}
	info := v.a
	return tensors, s.typeAndShape(info, spec)
}

// typeAndShape reads an OrtTensorTypeAndShapeInfo into spec, reusing its
// shape's memory.
func (s *Session) typeAndShape(info uintptr, spec *tensor.Spec) error {
	l, v := s.lib, &s.scratch
	v.a = 0
	if err := l.call(fnGetTensorElementType, info, l.out(&v.a)); err != nil {
		return err
	}
	element := uint32(v.a)
	if spec.Type = rows.DataType(int64(element)); spec.Type == tensor.Invalid {
		return fmt.Errorf("holds elements of ONNX's type %d, which cannot be served", element)
	}
	if err := l.call(fnGetDimensionsCount, info, l.out(&v.a)); err != nil {
		return err
	}
	rank := int(v.a)
	if rank > tensor.MaxRank {
		return fmt.Errorf("has %d dimensions, at most %d can be served", rank, tensor.MaxRank)
	}
	if err := l.call(fnGetDimensions, info, s.dims.Address(), uintptr(rank)); err != nil {
		return err
	}
	spec.Shape = spec.Shape[:0]
	for _, d := range s.dims[:rank] {
		spec.Shape = append(spec.Shape, max(int64(d), -1))
	}
	return nil
}

func elementType(d tensor.DataType) uintptr {
	for element := range int64(17) {
		if rows.DataType(element) == d {
			return uintptr(element)
		}
	}
	return 0
}

// Stateless implements worker.Stateless: ONNX keeps nothing from run to run.
func (*Session) Stateless() {}
