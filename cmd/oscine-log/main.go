package main

import (
	"fmt"
	"os"

	"oscine.dev/oscine/internal/journal"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "hold" {
		hold()
		return
	}
	if err := journal.Sink(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "oscine-log:", err)
		os.Exit(1)
	}
}
