package executorch

import (
	"errors"
	"flag"
	"io"
	"os"

	"oscine.dev/oscine/internal/serve/engine/shim"
	"oscine.dev/oscine/internal/serve/worker"
)

// Name is the library's file name.
const Name = "liboscine_executorch.so"

// Version is the version of ExecuTorch that the library is compiled for.
const Version = "1.5.1"

// Engine implements worker.Engine. It knows the options inputs, outputs and method
// of package shim; a program says itself what it takes and gives, but which of its
// dimensions are open.
type Engine struct {
	library string
	loaded  *shim.Library
}

// Flags implements worker.Engine.
func (e *Engine) Flags(f *flag.FlagSet) {
	f.StringVar(&e.library, "library", Name, "ExecuTorch `library`")
}

// Options implements worker.Engine.
func (*Engine) Options() []string { return []string{"inputs", "method", "outputs"} }

// Open implements worker.Engine.
func (e *Engine) Open(path string, o worker.Options) (worker.Session, error) {
	file, err := worker.Entry(path, ".pte")
	if err == nil {
		err = inspect(file)
	}
	if err != nil {
		return nil, err
	}
	if e.loaded == nil {
		if e.loaded, err = shim.Load(e.library); err != nil {
			return nil, err
		}
	}
	return e.loaded.Open(shim.Model{File: file, Engine: "executorch " + Version, Threads: o.Threads, Options: o.Values})
}

// inspect refuses what is no program: a FlatBuffer whose file identifier is ET12
// (executorch/schema/program.fbs).
func inspect(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, 8)
	if _, err := io.ReadFull(f, head); err != nil || string(head[4:]) != "ET12" {
		return errors.New("not a model that ExecuTorch can load: it is no program of ExecuTorch (.pte)")
	}
	return nil
}
