package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/serve/engine/executorch"
	"oscine.dev/oscine/internal/serve/engine/litert"
	"oscine.dev/oscine/internal/serve/engine/onnx"
	"oscine.dev/oscine/internal/serve/engine/openvino"
	"oscine.dev/oscine/internal/serve/engine/pytorch"
	"oscine.dev/oscine/internal/serve/engine/tensorflow"
	"oscine.dev/oscine/internal/serve/worker"
)

// engines are the engines by the names that packs give them.
func engines() map[string]worker.Engine {
	return map[string]worker.Engine{
		"executorch":  new(executorch.Engine),
		"litert":      new(litert.Engine),
		"onnxruntime": new(onnx.Engine),
		"openvino":    new(openvino.Engine),
		"pytorch":     new(pytorch.Engine),
		"tensorflow":  new(tensorflow.Engine),
	}
}

func main() { os.Exit(runProgram(os.Args[1:], os.Stderr)) }

// runProgram runs the engine that the first argument names until the daemon kills it,
// and returns the exit status.
func runProgram(args []string, log io.Writer) int {
	all := engines()
	if len(args) > 0 && all[args[0]] != nil {
		return worker.Main("oscine-engine "+args[0], all[args[0]], args[1:], log)
	}
	fmt.Fprintf(log, "oscine-engine: the first argument must name an engine: %s\n", strings.Join(slices.Sorted(maps.Keys(all)), ", "))
	return worker.ExitUsage
}
