package main

import (
	"os"

	"oscine.dev/oscine/internal/serve/engine/enginetest"
	"oscine.dev/oscine/internal/serve/worker"
)

func main() {
	os.Exit(worker.Main("oscine-engine-test", new(enginetest.Engine), os.Args[1:], os.Stderr))
}
