package openvino

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/engine/clib"
	"oscine.dev/oscine/internal/serve/rows"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// Name is the library's file name.
const Name = "libopenvino_c.so.2641"

// Engine implements worker.Engine.
type Engine struct {
	library string
	loaded  *Library
}

// Flags implements worker.Engine.
func (e *Engine) Flags(f *flag.FlagSet) {
	f.StringVar(&e.library, "library", Name, "OpenVINO's C `library`")
}

// Options implements worker.Engine.
func (*Engine) Options() []string { return nil }

// Open implements worker.Engine.
func (e *Engine) Open(path string, o worker.Options) (worker.Session, error) {
	if e.loaded == nil {
		var err error
		if e.loaded, err = Load(e.library); err != nil {
			return nil, err
		}
	}
	s, err := e.loaded.Open(path, o.Threads)
	if err != nil {
		return nil, err
	}
	if s.alone != nil {
		fmt.Fprintln(os.Stderr, "requests are not joined into batches:", s.alone)
	}
	return s, nil
}

// Session is a loaded model. It implements worker.Session. It is not safe for
// concurrent use.
type Session struct {
	lib                      *Library
	compiled, request        uintptr
	meta                     channel.Metadata
	alone                    error // why requests are not joined into batches; nil where they are
	inputs, out, shape, dims clib.Words
	usual                    time.Duration // of the runs so far
}

// Open loads the model at path with the given number of threads.
func (l *Library) Open(path string, threads int) (*Session, error) {
	file, remove, err := entry(path)
	if err != nil {
		return nil, err
	}
	if remove != nil {
		defer remove()
	}
	s := &Session{lib: l, out: clib.NewWords(2), shape: clib.NewWords(3), dims: clib.NewWords(tensor.MaxRank)}
	s.meta.Engine = "openvino " + l.version
	err = s.compile(file, threads)
	if err == nil {
		err = s.describe()
	}
	if err == nil {
		s.alone = errors.New("only ONNX graphs are looked through for rows that depend on each other")
		if filepath.Ext(file) == ".onnx" {
			s.alone = rows.IndependentFile(file)
		}
		s.meta.Batch = s.alone == nil
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// properties of a compiled model: the latency of one request counts, the threads
// are those of the placement, and results are those of the model's own types.
func properties(threads int) [][2]string {
	return [][2]string{
		{"INFERENCE_NUM_THREADS", strconv.Itoa(threads)}, {"NUM_STREAMS", "1"}, {"ENABLE_CPU_PINNING", "NO"},
		{"INFERENCE_PRECISION_HINT", "f32"}, {"PERFORMANCE_HINT", "LATENCY"},
	}
}

func (s *Session) compile(file string, threads int) error {
	l := s.lib
	if err := l.call(l.readModel, l.core, clib.String(file), 0, s.out.Address()); err != nil {
		return fmt.Errorf("not a model that OpenVINO %s can load: %s", l.version, strings.ReplaceAll(err.Error(), file, "the model"))
	}
	model := s.out[0]
	defer l.modelFree.Call(model)
	set := properties(threads)
	words := clib.NewWords(2 * len(set))
	for i, p := range set {
		words[2*i], words[2*i+1] = clib.String(p[0]), clib.String(p[1])
	}
	if err := l.call(l.compile, l.core, model, clib.String("CPU"), uintptr(len(set)), words.Address(), s.out.Address()); err != nil {
		return fmt.Errorf("OpenVINO %s cannot compile the model: %s", l.version, strings.ReplaceAll(err.Error(), file, "the model"))
	}
	s.compiled = s.out[0]
	if err := l.call(l.createRequest, s.compiled, s.out.Address()); err != nil {
		return err
	}
	s.request = s.out[0]
	return nil
}

func (s *Session) describe() error {
	var err error
	if s.meta.Inputs, err = s.list(s.lib.inputsSize, s.lib.inputAt, "input"); err != nil {
		return err
	}
	s.meta.Outputs, err = s.list(s.lib.outputsSize, s.lib.outputAt, "output")
	s.inputs = clib.NewWords(len(s.meta.Inputs))
	return err
}

// list describes all inputs or all outputs.
func (s *Session) list(count, get clib.Func, kind string) ([]tensor.Spec, error) {
	l := s.lib
	if err := l.call(count, s.compiled, s.out.Address()); err != nil {
		return nil, err
	}
	n := int(s.out[0])
	if n > channel.MaxTensors {
		return nil, fmt.Errorf("the model has %d %ss, at most %d can be served", n, kind, channel.MaxTensors)
	}
	specs := make([]tensor.Spec, n)
	for i := range specs {
		if err := l.call(get, s.compiled, uintptr(i), s.out.Address()); err != nil {
			return nil, err
		}
		port := s.out[0]
		err := s.port(port, &specs[i])
		l.portFree.Call(port)
		if specs[i].Name == "" || tensor.Find(specs[:i], specs[i].Name) >= 0 {
			specs[i].Name = kind + strconv.Itoa(i) // the format need not name it
		}
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", kind, specs[i].Name, err)
		}
	}
	return specs, nil
}

// port reads name, type and shape of an input or output.
func (s *Session) port(port uintptr, spec *tensor.Spec) error {
	l := s.lib
	if err := l.call(l.anyName, port, s.out.Address()); err == nil {
		spec.Name = clib.Text(s.out[0])
		l.free.Call(s.out[0])
	}
	s.out[0] = 0
	if err := l.call(l.elementType, port, s.out.Address()); err != nil {
		return err
	}
	kind, known := types[uint32(s.out[0])]
	if !known {
		return fmt.Errorf("holds elements of OpenVINO's type %d, which cannot be served", uint32(s.out[0]))
	}
	spec.Type = kind
	// ov_partial_shape_t: least and greatest rank, then the dimensions' address.
	if err := l.call(l.partialShape, port, s.shape.Address()); err != nil {
		return err
	}
	defer l.partialShapeFree.Call(s.shape.Address())
	if s.shape[0] != s.shape[1] || s.shape[0] > tensor.MaxRank {
		return fmt.Errorf("has no fixed number of dimensions up to %d", tensor.MaxRank)
	}
	limits := clib.Int64s(s.shape[2], 2*int(s.shape[0]))
	for i := 0; i < len(limits); i += 2 {
		d := limits[i]
		if limits[i+1] != d {
			d = -1
		}
		spec.Shape = append(spec.Shape, d)
	}
	return nil
}

// Metadata implements worker.Session.
func (s *Session) Metadata() channel.Metadata { return s.meta }

// Close implements worker.Session.
func (s *Session) Close() error {
	if s.request != 0 {
		s.lib.requestFree.Call(s.request)
	}
	if s.compiled != 0 {
		s.lib.compiledFree.Call(s.compiled)
	}
	s.request, s.compiled = 0, 0
	return nil
}
