package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/durable"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "compile:", err)
		os.Exit(1)
	}
}

// headers is the folder of kernel.h, from the root of the tree.
const headers = "internal/bpf"

func run(ctx context.Context, sources []string, log io.Writer) error {
	clang, err := debian.FindTool(ctx, debian.Clang)
	if err != nil {
		// Everything else can be built; the programs tell those who ask for BPF.
		fmt.Fprintln(log, "the BPF programs are left out, no sched_ext scheduler and no latency by workload:", err)
		return nil
	}
	include, err := filepath.Abs(headers)
	if err != nil {
		return err
	}
	for _, source := range sources {
		if err := compile(ctx, clang, source, include, log); err != nil {
			return fmt.Errorf("%s: %w", source, err)
		}
	}
	return nil
}

func compile(ctx context.Context, clang debian.Tool, source, include string, log io.Writer) error {
	dir, name := filepath.Split(source)
	object := strings.TrimSuffix(name, ".c") + ".o"
	if !strings.HasSuffix(name, ".bpf.c") {
		return errors.New("not the name of a BPF program: it does not end in .bpf.c")
	}
	// v3 has 32-bit jumps and atomic operations; all kernels with sched_ext and
	// typed tracepoints have it. Line information stays, for the verifier's log.
	cmd := clang.Command(ctx, "-target", "bpfel", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror",
		"-nostdinc", "-I", include, "-ffile-prefix-map="+include+"=.", "-fdebug-compilation-dir=.",
		"-c", name, "-o", object+".new")
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return err
	}
	return durable.Replace(filepath.Join(dir, object+".new"), filepath.Join(dir, object))
}
