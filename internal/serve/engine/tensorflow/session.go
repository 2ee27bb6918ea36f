package tensorflow

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ebitengine/purego"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/engine/clib"
	"oscine.dev/oscine/internal/serve/worker"
)

// Name is the library's file name.
const Name = "libtensorflow_cc.so.2"

// Engine implements worker.Engine. Its option signature is the key of the
// model's signature to run; the default is serving_default.
type Engine struct {
	library string
	loaded  *Library
}

// Flags implements worker.Engine.
func (e *Engine) Flags(f *flag.FlagSet) {
	f.StringVar(&e.library, "library", Name, "TensorFlow `library`")
}

// Options implements worker.Engine.
func (*Engine) Options() []string { return []string{"signature"} }

// Open implements worker.Engine.
func (e *Engine) Open(path string, o worker.Options) (worker.Session, error) {
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return nil, errors.Join(err, errors.New("not a model that TensorFlow can load: a SavedModel is a folder: serve that"))
	}
	if _, err := os.Stat(filepath.Join(path, "saved_model.pb")); err != nil {
		return nil, fmt.Errorf("not a model that TensorFlow can load: %w", err)
	}
	if e.loaded == nil {
		var err error
		if e.loaded, err = Load(e.library); err != nil {
			return nil, err
		}
	}
	return e.loaded.Open(path, o.Threads, o.Values["signature"])
}

// Library is a loaded TensorFlow.
type Library struct {
	keep    uintptr // a function that destroys nothing
	version string

	newStatus, code, message, newBuffer, deleteBuffer              clib.Func
	newGraph, deleteGraph, newOptions, deleteOptions, setConfig    clib.Func
	load, closeSession, deleteSession, operation, outputs, run     clib.Func
	newTensor, deleteTensor, data, byteSize, dimensions, dimension clib.Func
	versionText                                                    clib.Func
}

// Load loads the library from a path, or by name from the system's paths.
func Load(path string) (*Library, error) {
	// Its own log says at every start what processor it was built for.
	if err := clib.Setenv(map[string]string{"TF_CPP_MIN_LOG_LEVEL": "1"}); err != nil {
		return nil, err
	}
	lib, err := clib.Load(path)
	if err != nil {
		return nil, err
	}
	l := &Library{keep: purego.NewCallback(func(_, _, _ uintptr) uintptr { return 0 })}
	if err := lib.Bind(map[string]*clib.Func{
		"TF_NewStatus": &l.newStatus, "TF_GetCode": &l.code, "TF_Message": &l.message, "TF_NewBuffer": &l.newBuffer, "TF_DeleteBuffer": &l.deleteBuffer,
		"TF_NewGraph": &l.newGraph, "TF_DeleteGraph": &l.deleteGraph, "TF_NewSessionOptions": &l.newOptions, "TF_DeleteSessionOptions": &l.deleteOptions,
		"TF_SetConfig": &l.setConfig, "TF_LoadSessionFromSavedModel": &l.load, "TF_CloseSession": &l.closeSession, "TF_DeleteSession": &l.deleteSession,
		"TF_GraphOperationByName": &l.operation, "TF_OperationNumOutputs": &l.outputs, "TF_SessionRun": &l.run,
		"TF_NewTensor": &l.newTensor, "TF_DeleteTensor": &l.deleteTensor, "TF_TensorData": &l.data, "TF_TensorByteSize": &l.byteSize,
		"TF_NumDims": &l.dimensions, "TF_Dim": &l.dimension, "TF_Version": &l.versionText,
	}); err != nil {
		return nil, err
	}
	l.version = clib.Text(l.versionText.Call())
	return l, nil
}

// Session is a loaded model. It implements worker.Session. It is not safe for
// concurrent use.
type Session struct {
	lib                    *Library
	status, graph, session uintptr
	sig                    *signature
	meta                   channel.Metadata
	ins, outs              clib.Words // TF_Output: an operation and the number of its output
	inTensors, outTensors  clib.Words
	wanted, dims           clib.Words
}

// Open loads the SavedModel in a folder with the given number of threads, and the
// signature of a key.
func (l *Library) Open(path string, threads int, key string) (*Session, error) {
	s := &Session{lib: l, status: l.newStatus.Call(), graph: l.newGraph.Call()}
	s.meta.Engine = "tensorflow " + l.version
	if err := s.open(path, threads, key); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Session) open(path string, threads int, key string) error {
	l := s.lib
	options := l.newOptions.Call()
	defer l.deleteOptions.Call(options)
	config := worker.NewBlock(64)
	defer config.Free()
	// ConfigProto: intra_op_parallelism_threads, inter_op_parallelism_threads, and
	// threads of the session's own.
	text := append(append([]byte{2 << 3, byte(min(threads, 127))}, 5<<3, 1), 9<<3, 1)
	copy(config, text)
	l.setConfig.Call(options, config.Address(), uintptr(len(text)), s.status)
	if err := s.failed(); err != nil {
		return fmt.Errorf("set the number of threads: %w", err)
	}
	tags := clib.NewWords(1)
	tags[0] = clib.String("serve")
	buffer := l.newBuffer.Call() // TF_Buffer: address, length
	defer l.deleteBuffer.Call(buffer)
	s.session = l.load.Call(options, 0, clib.String(path), tags.Address(), 1, s.graph, buffer, s.status)
	if err := s.failed(); err != nil {
		return fmt.Errorf("not a model that TensorFlow %s can load: %s", l.version, strings.ReplaceAll(err.Error(), path, "the model"))
	}
	described := clib.Int64s(buffer, 2)
	var err error
	if s.sig, err = findSignature(clib.Bytes(uintptr(described[0]), int(described[1])), key); err != nil {
		return err
	}
	return s.bind()
}

// bind finds inputs and outputs in the graph.
func (s *Session) bind() error {
	var err error
	if s.ins, err = s.find(s.sig.inputs); err != nil {
		return fmt.Errorf("input %w", err)
	}
	if s.outs, err = s.find(s.sig.outputs); err != nil {
		return fmt.Errorf("output %w", err)
	}
	for _, e := range s.sig.inputs {
		s.meta.Inputs = append(s.meta.Inputs, e.Spec)
	}
	for _, e := range s.sig.outputs {
		s.meta.Outputs = append(s.meta.Outputs, e.Spec)
	}
	s.inTensors, s.outTensors = clib.NewWords(len(s.sig.inputs)), clib.NewWords(len(s.sig.outputs))
	s.wanted, s.dims = clib.NewWords(2*len(s.sig.outputs)), clib.NewWords(maxDims)
	return nil
}

func (s *Session) find(list []endpoint) (clib.Words, error) {
	words := clib.NewWords(2 * len(list))
	for i, e := range list {
		operation := s.lib.operation.Call(s.graph, clib.String(e.operation))
		if operation == 0 || e.index >= int(int32(s.lib.outputs.Call(operation))) {
			return nil, fmt.Errorf("%q: the graph has no %s:%d", e.Name, e.operation, e.index)
		}
		words[2*i], words[2*i+1] = operation, uintptr(e.index)
	}
	return words, nil
}

// failed returns what the status says of the last call, or nil.
func (s *Session) failed() error {
	code := uint32(s.lib.code.Call(s.status))
	if code == 0 {
		return nil
	}
	text, _, _ := strings.Cut(clib.Text(s.lib.message.Call(s.status)), "\n")
	const invalidArgument = 3
	if code == invalidArgument {
		return errors.New(text)
	}
	return fmt.Errorf("%w: %s", worker.ErrEngine, text)
}

// Metadata implements worker.Session.
func (s *Session) Metadata() channel.Metadata { return s.meta }

// Close implements worker.Session.
func (s *Session) Close() error {
	if s.session != 0 {
		s.lib.closeSession.Call(s.session, s.status)
		s.lib.deleteSession.Call(s.session, s.status)
	}
	if s.graph != 0 {
		s.lib.deleteGraph.Call(s.graph)
	}
	s.session, s.graph = 0, 0
	return nil
}
