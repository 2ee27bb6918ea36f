package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/samples"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "gpu-check:", err)
		os.Exit(1)
	}
}

// packs are those that are needed, in the order in which they are installed.
func packs() []string {
	return []string{"onnxruntime", "onnxruntime-cuda", "llama.cpp", "llama.cpp-vulkan"}
}

func run(ctx context.Context, args []string, out, progress io.Writer) (err error) {
	flags := flag.NewFlagSet("gpu-check", flag.ContinueOnError)
	c := &check{ctx: ctx, out: out, progress: progress}
	flags.StringVar(&c.bin, "bin", "out/bin", "folder with Oscine's programs")
	flags.StringVar(&c.packs, "packs", "out/packs", "folder with the packs; those that it lacks are built")
	flags.StringVar(&c.gguf, "gguf", "", "a language model (default: SmolLM2 135M, fetched by make test-inputs)")
	limit := flags.Duration("limit", 10*time.Minute, "bound of the whole run, without the time to build packs")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if c.bin, err = filepath.Abs(c.bin); err != nil {
		return err
	}
	if err := c.step("machine", c.machine); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root, to start a node with containers: run it as root")
	}
	if err := c.prepare(ctx); err != nil {
		return err
	}
	var cancel context.CancelFunc
	c.ctx, cancel = context.WithTimeout(ctx, *limit)
	defer cancel()
	_ = c.step("devices", c.devices)
	if err := c.step("node", c.startNode); err != nil {
		return errors.Join(err, c.stop())
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	for _, name := range packs() {
		_ = c.step("pack "+name, func() error { return c.install(name) })
	}
	for _, m := range nets() {
		_ = c.step("onnx "+m.name, func() error { return c.compare(&m) })
	}
	_ = c.step("language", c.language)
	_ = c.step("afterwards", c.afterwards)
	c.notTried()
	if c.failed > 0 {
		return fmt.Errorf("%d of %d steps failed", c.failed, c.steps)
	}
	return nil
}

// prepare has the packs and the language model here.
func (c *check) prepare(ctx context.Context) error {
	for _, name := range packs() {
		if !slices.Contains(pack.Builds(), name) {
			return fmt.Errorf("there is no pack %s to build", name)
		}
		if _, err := os.Stat(c.packFile(name)); err == nil {
			continue
		}
		if _, err := pack.Build(ctx, pack.BuildOptions{Name: name, Arch: runtime.GOARCH, Out: c.packs, Source: ".", Log: c.progress}); err != nil {
			return err
		}
	}
	if c.gguf != "" {
		return nil
	}
	var err error
	c.gguf, err = samples.SmolLM2(ctx, true, c.progress)
	return err
}

func (c *check) packFile(name string) string {
	return filepath.Join(c.packs, name+"-"+runtime.GOARCH+".erofs")
}

// check is one run.
type check struct {
	ctx           context.Context
	out, progress io.Writer
	bin, packs    string
	gguf          string
	steps, failed int

	gpus []string // their names on the map
	node node
}

// step runs a step and prints how it went.
func (c *check) step(name string, f func() error) error {
	c.steps++
	begin := time.Now()
	fmt.Fprintf(c.out, "== %s\n", name)
	err := f()
	if err != nil {
		c.failed++
		fmt.Fprintf(c.out, "   FAILED: %v\n", err)
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(c.out, "   ok, %.1f s\n", time.Since(begin).Seconds())
	return nil
}

func (c *check) say(format string, args ...any) { fmt.Fprintf(c.out, "   "+format+"\n", args...) }
