package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"oscine.dev/oscine/internal/samples"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	path, err := samples.SmolLM2(ctx, true, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "fetch:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}
