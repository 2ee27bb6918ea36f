package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/bench/guest"
	"oscine.dev/oscine/internal/bench/isolation/figure"
)

// method is written into the report.
const method = "QEMU TCG, one thread, -icount shift=%d,sleep=off: one instruction is %d ns of virtual time; " +
	"a worker wakes every 5.0137 ms and computes for 1 ms, beside two batch spinners for each CPU; two virtual CPUs share the clock in short turns, " +
	"so unloaded means that the worker's CPU is idle while the other computes, and the worker stays on one CPU in both"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "isolation:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("isolation", flag.ContinueOnError)
	seconds := flags.Int("seconds", 5, "virtual seconds for each figure")
	cpus := flags.String("cpus", "1,2", "numbers of virtual CPUs")
	kernel := flags.String("kernel", "cloud", "flavour of the kernel: cloud or rt")
	turn := flags.Int("turn", 4, "thousands of instructions of both CPUs' turns together")
	shift := flags.Int("shift", 0, "let each instruction take 2 to this power nanoseconds: long measurements of a slower machine")
	stall := flags.Bool("stall", false, "measure only how long a real-time worker is stalled by memory management")
	served := flags.Bool("served", false, "measure only the serving path, with and without urgency, and sched_ext")
	cost := flags.Bool("cost", false, "measure only what measuring wake-ups by BPF costs")
	file := flags.String("o", "", "write the figures to this file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *seconds < 1 {
		return fmt.Errorf("-seconds must be at least 1, got %d", *seconds)
	}
	if *shift < 0 || *shift > 10 {
		return fmt.Errorf("-shift must be from 0 to 10, got %d", *shift)
	}
	dir, err := os.MkdirTemp("", "oscine-isolation-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	init := filepath.Join(dir, "init")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", init, "oscine.dev/oscine/internal/bench/isolation/inside")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = progress
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the guest's program: %w", err)
	}
	report := figure.Report{Kernel: *kernel, Method: fmt.Sprintf(method, *shift, 1<<*shift), Seconds: *seconds}
	for _, n := range strings.Split(*cpus, ",") {
		o := guest.Options{Init: init, CPUs: n, Kernel: *kernel, ICount: true, Shift: *shift, Turn: *turn << *shift,
			Env: map[string]string{"ISOLATION_SECONDS": strconv.Itoa(*seconds)}}
		if *stall {
			o.Env["ISOLATION_STALL"] = "1"
		}
		if *served {
			o.Env["ISOLATION_SERVED"] = "1"
		}
		if *cost {
			o.Env["ISOLATION_COST"] = "1"
		}
		lines := &collector{report: &report, progress: progress}
		if err := guest.Run(ctx, o, lines); err != nil {
			return fmt.Errorf("guest with %s CPUs: %w\n%s", n, err, lines.rest.String())
		}
	}
	if *cost {
		return nil
	}
	report.Ratios = figure.Judge(report.Figures)
	if err := report.WriteTables(out); err != nil {
		return err
	}
	fmt.Fprintln(out)
	if err := report.WriteRatios(out); err != nil {
		return err
	}
	if *file == "" {
		return nil
	}
	raw, err := json.MarshalIndent(report, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(*file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(*file, append(raw, '\n'), 0o644)
}

// collector takes figures out of a guest's console.
type collector struct {
	report   *figure.Report
	progress io.Writer
	rest     bytes.Buffer // what else it printed
}

func (c *collector) Write(line []byte) (int, error) {
	raw, ok := bytes.CutPrefix(line, []byte(figure.Mark))
	if !ok {
		if text, ok := bytes.CutPrefix(line, []byte("cost: ")); ok {
			_, _ = c.progress.Write(text)
		}
		c.rest.Write(line)
		return len(line), nil
	}
	var f figure.Figure
	if err := json.Unmarshal(raw, &f); err != nil {
		return 0, fmt.Errorf("a figure of the guest: %w", err)
	}
	c.report.Figures = append(c.report.Figures, f)
	if f.Worker != nil {
		h := &f.Worker.Histogram
		fmt.Fprintf(c.progress, "%d vCPU, %s: p50 %v, p99 %v, max %v of %d\n", f.CPUs, f.Name, h.Quantile(.5), h.Quantile(.99), h.Max(), h.Count())
	} else {
		tight := &f.Requests.Kinds[0]
		fmt.Fprintf(c.progress, "%d vCPU, %s: %.1f %% of tight requests missed; they took p50 %v, p99 %v\n",
			f.CPUs, f.Name, 100*tight.MissRate(), tight.Took.Quantile(.5), tight.Took.Quantile(.99))
	}
	return len(line), nil
}
