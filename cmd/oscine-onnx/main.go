package main

import (
	"os"

	"oscine.dev/oscine/internal/serve/engine/onnx"
	"oscine.dev/oscine/internal/serve/worker"
)

func main() { os.Exit(worker.Main("oscine-onnx", new(onnx.Engine), os.Args[1:], os.Stderr)) }
