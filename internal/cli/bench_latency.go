package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/bench/classes"
	"oscine.dev/oscine/internal/bench/latency"
)

func newBenchLatencyCommand(env *Env) *cobra.Command {
	o := classes.Options{Loads: []string{"cpu"}, Duration: 10 * time.Second}
	var output string
	var alone bool
	c := &cobra.Command{
		Use:   "latency",
		Short: "Measure how late a thread of each class wakes, alone and beside load",
		Long: `Measure on this machine how late a thread wakes, as cyclictest does, for each
class: first alone, then beside batch load. The class default is what stock
Linux gives. Run it as root on a quiet machine; without root, or without cgroup
version 2, it measures what it can and says what it could not set. Nothing of
what it sets stays.

Loads: cpu computes, syscall lives in the kernel, memory maps and drops pages,
thp does so with huge pages, file writes and drops a file.`,
		Example: `  oscine bench latency --class interactive,realtime --load cpu,memory --duration 30s
  oscine bench latency --scheduler stock,sched_ext --class interactive
  oscine bench latency -o svg > latency.svg`,
		Args: exactArgs(0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkOutput(output, "text", "json", "svg"); err != nil {
				return err
			}
			if alone {
				o.Loads = nil
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			o.Command = []string{self, "bench", "latency-child"}
			o.Progress = func(line string) { fmt.Fprintln(env.Err, line) }
			report, err := classes.Run(c.Context(), o)
			if report == nil {
				return err
			}
			if err != nil {
				fmt.Fprintln(env.Err, "oscine:", err)
			}
			return writeLatency(env, report, output)
		},
	}
	f := c.Flags()
	f.StringSliceVar(&o.Classes, "class", nil, "classes to measure, of default, interactive, realtime, batch (default all but batch)")
	f.StringSliceVar(&o.Schedulers, "scheduler", []string{classes.Stock}, "back ends to measure under, of stock, sched_ext")
	f.StringSliceVar(&o.Loads, "load", o.Loads, "kinds of load, of cpu, syscall, memory, thp, file")
	f.BoolVar(&alone, "alone", false, "measure without load only")
	f.IntVar(&o.Threads, "load-threads", 0, "threads of the load (default two for each CPU)")
	f.DurationVar(&o.Duration, "duration", o.Duration, "of each measurement")
	f.DurationVar(&o.Period, "period", latency.DefaultPeriod, "between two wake-ups")
	f.StringVarP(&output, "output", "o", "text", "text, json or svg")
	return c
}

func writeLatency(env *Env, report *classes.Report, output string) error {
	switch output {
	case "svg":
		return report.WriteSVG(env.Out)
	case "json":
		encoder := json.NewEncoder(env.Out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
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
