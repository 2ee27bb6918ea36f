package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/bench/classes"
	"oscine.dev/oscine/internal/bench/latency"
	"oscine.dev/oscine/internal/client"
)

func newBenchLatencyCommand(env *Env) *cobra.Command {
	o := classes.Options{Loads: []string{"cpu"}, Duration: 10 * time.Second}
	var output *string
	var root string
	var alone bool
	c := &cobra.Command{
		Use:   "latency",
		Short: "Measure how late a thread of each class wakes, alone and beside load",
		Long: `Measure how late a thread wakes, as cyclictest does, for each class: first
alone, then beside batch load. The class default is what stock Linux gives. It
loads the whole machine and, of a node, needs role admin and takes half an hour
at most. Nothing of what it sets stays.

With a context the machine is the node's, with its own classes and beside what
runs there. Without one, or with --root /, it is this one: run it as root on a
quiet machine without a node; without root, or without cgroup version 2, it
measures what it can and says what it could not set.

Loads: cpu computes, syscall lives in the kernel, memory maps and drops pages,
thp does so with huge pages, file writes and drops a file.`,
		Example: `  oscine bench latency --class interactive,realtime --load cpu,memory --duration 30s
  oscine bench latency --root / --scheduler stock,sched_ext --class interactive
  oscine bench latency -o svg > latency.svg`,
		Args: exactArgs(0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			if root != "" && root != "/" {
				return usageError{fmt.Errorf("--root %s: only / can be measured, this machine", root)}
			}
			if alone {
				o.Loads = nil
			}
			if err := o.Check(); err != nil {
				return err
			}
			o.Progress = func(line string) { fmt.Fprintln(env.Err, line) }
			measure, err := measuring(env, root)
			if err != nil {
				return err
			}
			report, err := measure(c.Context(), o)
			if report == nil || err != nil && len(report.Series) == 0 {
				return err
			}
			return errors.Join(err, writeLatency(env, report, *output))
		},
	}
	f := c.Flags()
	f.StringSliceVar(&o.Classes, "class", nil, "classes to measure, of default, interactive, realtime, batch (default all but batch)")
	f.StringSliceVar(&o.Schedulers, "scheduler", nil, "back ends to measure under, of stock, sched_ext (default the node's, or stock)")
	f.StringSliceVar(&o.Loads, "load", o.Loads, "kinds of load, of cpu, syscall, memory, thp, file")
	f.BoolVar(&alone, "alone", false, "measure without load only")
	f.IntVar(&o.Threads, "load-threads", 0, "threads of the load (default two for each CPU)")
	f.DurationVar(&o.Duration, "duration", o.Duration, "of each measurement")
	f.DurationVar(&o.Period, "period", latency.DefaultPeriod, "between two wake-ups")
	f.StringVar(&root, "root", "", "the machine's root; / is this machine")
	output = addReportOutput(c, "svg")
	return c
}

// latencyMeasure measures what the options say; a report may come with an error.
type latencyMeasure func(ctx context.Context, o classes.Options) (*classes.Report, error)

// measuring chooses what is measured: this machine for root /, the context's
// node, or this machine where there is no context.
func measuring(env *Env, root string) (latencyMeasure, error) {
	if root != "" {
		return measureHere, nil
	}
	node, err := env.Client()
	if env.Context == "" && errors.Is(err, client.ErrNoContext) {
		return measureHere, nil
	}
	return measureNode(node), err
}

func measureHere(ctx context.Context, o classes.Options) (*classes.Report, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	o.Command = []string{self, "bench", "latency-child"}
	return classes.Run(ctx, o)
}

func measureNode(node *client.Client) latencyMeasure {
	return func(ctx context.Context, o classes.Options) (report *classes.Report, err error) {
		stream, err := node.Bench.Latency(ctx, connect.NewRequest(&pb.BenchLatencyRequest{
			Classes: o.Classes, Schedulers: o.Schedulers, Loads: o.Loads, LoadThreads: int32(o.Threads),
			Duration: durationpb.New(o.Duration), Period: durationpb.New(o.Period),
		}))
		if err != nil {
			return nil, err
		}
		defer stream.Close()
		for stream.Receive() {
			if line := stream.Msg().Progress; line != "" {
				o.Progress(line)
			}
			if raw := stream.Msg().Json; len(raw) > 0 {
				report = &classes.Report{}
				if err := json.Unmarshal(raw, report); err != nil {
					return nil, fmt.Errorf("the node's report: %w", err)
				}
			}
		}
		return report, stream.Err()
	}
}

func writeLatency(env *Env, report *classes.Report, output string) error {
	switch output {
	case "svg":
		return report.WriteSVG(env.Out)
	case outputJSON, outputYAML:
		return writeDocument(env.Out, report, output)
	}
	return report.WriteText(env.Out)
}

// newBenchLatencyChildCommand is the measuring process that bench latency
// starts.
func newBenchLatencyChildCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "latency-child TASK", Hidden: true, Args: exactArgs(1, "TASK"),
		RunE: func(_ *cobra.Command, args []string) error {
			return latency.RunChild(args[0], env.In, env.Out)
		},
	}
}
