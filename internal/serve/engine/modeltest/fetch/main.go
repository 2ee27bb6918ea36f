package main

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/engine/modeltest"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "fetch:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, large []string) error {
	for _, engine := range append([]string{"onnxruntime", "openvino", "litert", "executorch"}, large...) {
		if _, err := pack.Libraries(ctx, engine, runtime.GOARCH, true, os.Stderr); err != nil {
			return err
		}
	}
	return modeltest.Fetch(ctx, os.Stderr)
}
