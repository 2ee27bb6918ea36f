package engine

import (
	"flag"
	"io"

	"oscine.dev/oscine/internal/serve/engine/executorch"
	"oscine.dev/oscine/internal/serve/engine/litert"
	"oscine.dev/oscine/internal/serve/engine/onnx"
	"oscine.dev/oscine/internal/serve/engine/openvino"
	"oscine.dev/oscine/internal/serve/engine/pytorch"
	"oscine.dev/oscine/internal/serve/engine/tensorflow"
	"oscine.dev/oscine/internal/serve/worker"
)

// Engine is one of the worker program's.
type Engine struct {
	worker.Engine
	Library string // file name of its library
}

// All returns the engines by the names that packs give them, each to be used once.
func All() map[string]Engine {
	return map[string]Engine{
		"executorch":         {new(executorch.Engine), executorch.Name},
		"litert":             {new(litert.Engine), litert.Name},
		"onnxruntime":        {new(onnx.Engine), onnx.Name},
		"onnxruntime-cuda":   {onnx.NewCUDA(13), onnx.Name},
		"onnxruntime-cuda12": {onnx.NewCUDA(12), onnx.Name},
		"openvino":           {new(openvino.Engine), openvino.Name},
		"pytorch":            {new(pytorch.Engine), pytorch.Name},
		"tensorflow":         {new(tensorflow.Engine), tensorflow.Name},
	}
}

// Open loads a model in this process, with the engine's library at a path.
func (e Engine) Open(library, model string, o worker.Options) (worker.Session, error) {
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	e.Flags(flags)
	if err := flags.Parse([]string{"--library", library}); err != nil {
		return nil, err
	}
	return e.Engine.Open(model, o)
}
