package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/encryption"
	"oscine.dev/oscine/internal/release"
)

// benchChild is the first argument of a process that measures for the daemon.
const benchChild = "latency-child"

func main() {
	if len(os.Args) == 3 && os.Args[1] == benchChild {
		if err := latency.RunChild(os.Args[2], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintf(os.Stderr, "oscined: %v\n", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 3 && os.Args[1] == release.OpenData {
		node, err := encryption.Open(os.Args[2])
		if err != nil {
			fmt.Println(strings.ReplaceAll(err.Error(), "\n", ": "))
			os.Exit(1)
		}
		fmt.Println(node)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "oscined: %v\n", err)
		os.Exit(1)
	}
}
