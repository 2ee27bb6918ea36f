package main

import (
	"os"

	"oscine.dev/oscine/internal/serve/engine/llama"
	"oscine.dev/oscine/internal/serve/worker"
)

func main() { os.Exit(worker.Main("oscine-llama", new(llama.Engine), os.Args[1:], os.Stderr)) }
