package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"oscine.dev/oscine/internal/optimize"
	"oscine.dev/oscine/internal/optimize/job"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := job.Run(ctx, job.Options{
		Engine: []string{"/usr/bin/oscine-engine", "onnxruntime"}, Python: []string{"/usr/bin/python3"}, Work: optimize.WorkDir, Log: os.Stderr,
	}, os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
