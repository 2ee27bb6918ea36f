package main

import (
	"context"
	"errors"
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
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: oscine-optimize TOOL")
	}
	return job.Run(ctx, job.Options{Tool: args[0], Work: optimize.WorkDir, Log: os.Stderr}, os.Stdin, os.Stdout)
}
