// Command oscine-log keeps the output of one container: its shim starts it,
// with the container's standard output and error as descriptors 3 and 4.
package main

import (
	"fmt"
	"os"

	"oscine.dev/oscine/internal/journal"
)

func main() {
	if err := journal.Sink(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "oscine-log:", err)
		os.Exit(1)
	}
}
