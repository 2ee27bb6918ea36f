package pytorch

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/serve/engine/clib"
	"oscine.dev/oscine/internal/serve/engine/shim"
	"oscine.dev/oscine/internal/serve/worker"
)

// Name is the library's file name.
const Name = "liboscine_pytorch.so"

// Version is the version of PyTorch that the library is compiled for.
const Version = "2.15.0"

// Engine implements worker.Engine. It knows the options inputs and outputs of
// package shim, without which it loads nothing; method, of TorchScript the method
// and of a package the model to run; and reset, a method of TorchScript that puts
// back its state before each run.
type Engine struct {
	library string
	loaded  *shim.Library
}

// Flags implements worker.Engine.
func (e *Engine) Flags(f *flag.FlagSet) {
	f.StringVar(&e.library, "library", Name, "PyTorch `library`")
}

// Options implements worker.Engine.
func (*Engine) Options() []string { return []string{"inputs", "method", "outputs", "reset"} }

// Open implements worker.Engine.
func (e *Engine) Open(path string, o worker.Options) (worker.Session, error) {
	file, err := worker.Entry(path, ".pt", ".pth", ".ts", ".jit", ".pt2")
	if err != nil {
		return nil, err
	}
	holds, err := inspect(file)
	if err != nil {
		return nil, err
	}
	options := map[string]string{}
	maps.Copy(options, o.Values)
	if holds.kind == compiled {
		if options["method"] == "" {
			options["method"] = "model"
		}
		if !slices.Contains(holds.models, options["method"]) {
			return nil, fmt.Errorf("the package has no model %q, it has %s: name one by the option method", options["method"], strings.Join(holds.models, ", "))
		}
		if options["reset"] != "" {
			return nil, errors.New("what AOTInductor has compiled has no method that the option reset could name: leave it out")
		}
	}
	for _, kind := range []string{"input", "output"} {
		if options[kind+"s"] == "" {
			return nil, shim.Unstated(kind)
		}
	}
	if e.loaded == nil {
		if err := clib.Setenv(environment(o.Threads)); err != nil {
			return nil, err
		}
		if e.loaded, err = shim.Load(e.library); err != nil {
			return nil, err
		}
	}
	if holds.kind == compiled {
		if file, err = unpack(file); err != nil {
			return nil, err
		}
		defer os.RemoveAll(file) // what is loaded stays mapped
	}
	s, err := e.loaded.Open(shim.Model{File: file, Engine: "pytorch " + Version, Threads: o.Threads, Options: options})
	if err != nil {
		return nil, errors.New(strings.ReplaceAll(err.Error(), file, "the model"))
	}
	return s, nil
}

// environment is what the libraries read while they are loaded.
func environment(threads int) map[string]string {
	return map[string]string{
		// OpenMP would start as many threads as the host has processors, and let them
		// spin between runs.
		"OMP_NUM_THREADS": strconv.Itoa(threads), "OMP_WAIT_POLICY": "passive",
		// What AOTInductor compiles trusts the shapes of inputs otherwise.
		"AOTI_RUNTIME_CHECK_INPUTS": "1",
	}
}
