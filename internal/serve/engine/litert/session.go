package litert

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"unsafe"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/engine/clib"
	"oscine.dev/oscine/internal/serve/worker"
	"oscine.dev/oscine/internal/tensor"
)

// Name is the library's file name.
const Name = "libLiteRt.so"

// Engine implements worker.Engine. It knows one option: signature, the key of
// the model's signature to run; the default is the first.
type Engine struct {
	library string
	loaded  *Library
}

// Flags implements worker.Engine.
func (e *Engine) Flags(f *flag.FlagSet) {
	f.StringVar(&e.library, "library", Name, "LiteRT `library`")
}

// Options implements worker.Engine.
func (*Engine) Options() []string { return []string{"signature"} }

// Open implements worker.Engine.
func (e *Engine) Open(path string, o worker.Options) (worker.Session, error) {
	if err := inspect(path); err != nil {
		return nil, err
	}
	if e.loaded == nil {
		var err error
		if e.loaded, err = Load(e.library); err != nil {
			return nil, err
		}
	}
	return e.loaded.Open(path, o.Threads, o.Values["signature"])
}

// edgeModel bounds the models for an Edge TPU, whose memory is 8 MiB.
const edgeModel = 64 << 20

// inspect refuses what the library does not: it trusts the file.
func inspect(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	head := make([]byte, 8)
	if _, err := io.ReadFull(f, head); err != nil || !info.Mode().IsRegular() || string(head[4:]) != "TFL3" {
		return errors.New("not a model that LiteRT can load: it is no TensorFlow Lite file")
	}
	if info.Size() > edgeModel {
		return nil
	}
	rest, err := io.ReadAll(io.LimitReader(f, edgeModel))
	if err == nil && bytes.Contains(rest, []byte("edgetpu-custom-op")) {
		err = errors.New("the model is compiled for an Edge TPU, whose library libedgetpu.so this pack lacks: serve the model that it was compiled from")
	}
	return err
}

// Session is a loaded model. It implements worker.Session. It is not safe for
// concurrent use.
type Session struct {
	lib                    *Library
	model, compiled, index uintptr
	meta                   channel.Metadata

	current         []tensor.Shape // of the inputs, for which all below was made; nil: none
	inputs, outputs buffers
}

// Open loads a model file with the given number of threads and the signature of
// that key, "" for the first.
func (l *Library) Open(path string, threads int, signature string) (*Session, error) {
	s := &Session{lib: l}
	s.meta.Engine = "litert " + Version
	if err := s.open(path, threads, signature); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Session) open(path string, threads int, signature string) error {
	l, out := s.lib, clib.NewWords(1)
	if err := call(l.createModel, l.env, clib.String(path), out.Address()); err != nil {
		return fmt.Errorf("not a model that LiteRT %s can load: %w", Version, err)
	}
	s.model = out[0]
	if err := s.choose(signature); err != nil {
		return err
	}
	options, err := l.options(threads)
	if err != nil {
		return err
	}
	defer l.destroyOptions.Call(options)
	if err := call(l.createCompiled, l.env, s.model, options, out.Address()); err != nil {
		return fmt.Errorf("prepare the model: %w", err)
	}
	s.compiled = out[0]
	return nil
}

// options are LiteRtOptions for the CPU with a number of threads.
func (l *Library) options(threads int) (uintptr, error) {
	out := clib.NewWords(1)
	if err := call(l.createOptions, out.Address()); err != nil {
		return 0, err
	}
	options := out[0]
	const cpu = 1
	if err := call(l.setAccelerators, options, cpu); err != nil {
		return 0, err
	}
	// The text lives as long as the process, so nothing destroys it.
	text := clib.String(fmt.Sprintf("num_threads = %d\n", threads))
	if err := call(l.createOpaque, clib.String("xnnpack"), text, l.keep, out.Address()); err != nil {
		return 0, fmt.Errorf("set the number of threads: %w", err)
	}
	return options, call(l.addOpaque, options, out[0])
}

// choose finds the signature and describes its inputs and outputs.
func (s *Session) choose(key string) error {
	l, out := s.lib, clib.NewWords(1)
	if err := call(l.countSignatures, s.model, out.Address()); err != nil {
		return err
	}
	var keys []string
	for i := range min(out[0], channel.MaxTensors) {
		if err := call(l.getSignature, s.model, i, out.Address()); err != nil {
			return err
		}
		signature := out[0]
		if err := call(l.signatureKey, signature, out.Address()); err != nil {
			return err
		}
		name := clib.Text(out[0])
		if keys = append(keys, name); key != "" && name != key {
			continue
		}
		s.index = i
		var err error
		if s.meta.Inputs, err = l.describe(signature, l.countInputs, l.inputName, l.inputTensor); err != nil {
			return fmt.Errorf("input %w", err)
		}
		if s.meta.Outputs, err = l.describe(signature, l.countOutputs, l.outputName, l.outputTensor); err != nil {
			return fmt.Errorf("output %w", err)
		}
		return nil
	}
	return fmt.Errorf("the model has no signature %q: it has %q", key, keys)
}

func (l *Library) describe(signature uintptr, count, name, get clib.Func) ([]tensor.Spec, error) {
	out, ranked := clib.NewWords(1), newRankedTypes(1)
	if err := call(count, signature, out.Address()); err != nil {
		return nil, err
	}
	n := int(out[0])
	if n > channel.MaxTensors {
		return nil, fmt.Errorf("count of %d is more than %d", n, channel.MaxTensors)
	}
	specs := make([]tensor.Spec, n)
	for i := range specs {
		if err := call(name, signature, uintptr(i), out.Address()); err != nil {
			return nil, err
		}
		specs[i].Name = clib.Text(out[0])
		if err := call(get, signature, uintptr(i), out.Address()); err != nil {
			return nil, err
		}
		if err := call(l.rankedType, out[0], ranked.address()); err != nil {
			return nil, fmt.Errorf("%q: %w", specs[i].Name, err)
		}
		kind, known := types[ranked[0]]
		if !known {
			return nil, fmt.Errorf("%q: holds elements of LiteRT's type %d, which cannot be served", specs[i].Name, ranked[0])
		}
		shape, err := shapeOf(ranked[1:])
		if err != nil {
			return nil, fmt.Errorf("%q: %w", specs[i].Name, err)
		}
		specs[i].Type, specs[i].Shape = kind, shape
	}
	return specs, nil
}

// Metadata implements worker.Session.
func (s *Session) Metadata() channel.Metadata { return s.meta }

// Close implements worker.Session.
func (s *Session) Close() error {
	s.inputs.free(s.lib)
	s.outputs.free(s.lib)
	if s.compiled != 0 {
		s.lib.destroyCompiled.Call(s.compiled)
	}
	if s.model != 0 {
		s.lib.destroyModel.Call(s.model)
	}
	s.compiled, s.model = 0, 0
	return nil
}

func words32(b worker.Block) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}

func (r rankedType) address() uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(r))) }
