package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/serve/engine"
	"oscine.dev/oscine/internal/serve/worker"
)

func main() { os.Exit(runProgram(os.Args[1:], os.Stderr)) }

// runProgram runs the engine that the first argument names until the daemon kills it,
// and returns the exit status.
func runProgram(args []string, log io.Writer) int {
	all := engine.All()
	if len(args) > 0 && all[args[0]].Engine != nil {
		return worker.Main("oscine-engine "+args[0], all[args[0]].Engine, args[1:], log)
	}
	fmt.Fprintf(log, "oscine-engine: the first argument must name an engine: %s\n", strings.Join(slices.Sorted(maps.Keys(all)), ", "))
	return worker.ExitUsage
}
