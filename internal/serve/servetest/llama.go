package servetest

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"oscine.dev/oscine/internal/debian"
)

// LlamaServer returns a program that runs the pack's llama-server outside its
// container, or skips the test where the cache lacks it.
func LlamaServer(t testing.TB) string {
	t.Helper()
	source, err := debian.Open(os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := source.Cached("llama.cpp", runtime.GOARCH)
	if err != nil {
		t.Skipf("needs llama-server (oscine pack build llama.cpp): %v", err)
	}
	backends, err := filepath.Glob(filepath.Join(tree.Dir, "usr/lib/*/ggml/backends*"))
	if err != nil || len(backends) != 1 {
		t.Fatalf("folders of computing libraries: %v, %v", backends, err)
	}
	libs := filepath.Dir(filepath.Dir(backends[0]))
	loaders, err := filepath.Glob(filepath.Join(libs, "ld-linux-*.so.*"))
	if err != nil || len(loaders) != 1 {
		t.Fatalf("dynamic loaders: %v, %v", loaders, err)
	}
	// Its computing libraries are found in the working folder.
	script := fmt.Sprintf("#!/bin/sh\ncd '%s' && exec '%s' --library-path '%s:%s/llama' '%s/usr/bin/llama-server' \"$@\"\n", backends[0], loaders[0], libs, libs, tree.Dir)
	file := filepath.Join(t.TempDir(), "llama-server")
	if err := os.WriteFile(file, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}
