package servetest

import (
	"fmt"
	"os"
	"os/exec"
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

// Llama returns a Starter of the real worker of language models with the real
// server, or skips the test.
func Llama(t testing.TB, model, name string, options map[string]string) *Exec {
	t.Helper()
	server := LlamaServer(t)
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	worker := filepath.Join(dir, "oscine-llama")
	cmd := exec.CommandContext(t.Context(), goTool, "build", "-o", worker, "oscine.dev/oscine/cmd/oscine-llama")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the worker: %v\n%s", err, out)
	}
	sockets, err := os.MkdirTemp("", "o") // short, and it goes when the test has ended
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sockets) })
	return &Exec{
		Command: []string{worker, "--server", server, "--dir", sockets}, Model: model, Threads: 1,
		Dir: filepath.Join(dir, "s"), Log: os.Stderr, Name: name, Options: options,
	}
}
