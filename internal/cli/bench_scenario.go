package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/bench/loadgen"
	"oscine.dev/oscine/internal/bench/serving"
)

// benchScenarioOptions are the flags of bench serve for MLPerf's scenarios.
type benchScenarioOptions struct {
	name, mode string
	latency    time.Duration
	percentile float64
	logs       string
}

func (o *benchScenarioOptions) addFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.name, "scenario", "", "of MLPerf Inference: single-stream, multi-stream, server or offline")
	f.StringVar(&o.mode, "mode", string(loadgen.Performance), "of the scenario: performance, accuracy (every input once, answers in --logs) or find-peak (the highest rate of scenario server)")
	f.DurationVar(&o.latency, "latency", 100*time.Millisecond, "that scenario server keeps")
	f.Float64Var(&o.percentile, "percentile", 0, "of queries that keep the latency (default 0.9 for single-stream, else 0.99)")
	f.StringVar(&o.logs, "logs", "", "folder for the log files of MLPerf's load generator")
	completeValues(c, "scenario", loadgen.Scenarios()...)
	completeValues(c, "mode", loadgen.Modes()...)
}

// check says which flags do not go together.
func (o *benchScenarioOptions) check(c *cobra.Command) error {
	set := c.Flags().Changed
	if o.name == "" {
		for _, flag := range []string{"mode", "latency", "percentile", "logs"} {
			if set(flag) {
				return fmt.Errorf("--%s needs --scenario", flag)
			}
		}
		return nil
	}
	stream := o.name == string(loadgen.SingleStream) || o.name == string(loadgen.MultiStream)
	switch {
	case stream && (set("clients") || set("rate")):
		return fmt.Errorf("scenario %s sends one query after the other: leave out --clients and --rate", o.name)
	case set("latency") && o.name != string(loadgen.Server):
		return fmt.Errorf("--latency is what scenario server keeps: scenario %s measures it; leave it out", o.name)
	case o.mode == string(loadgen.Accuracy) && o.logs == "":
		return errors.New("--mode accuracy needs --logs FOLDER, where the answers go")
	}
	return nil
}

// clients is how many requests there are at a time unless the person says so.
func (o *benchScenarioOptions) clients() int {
	switch loadgen.Scenario(o.name) {
	case loadgen.Server:
		return 1024
	case loadgen.Offline:
		return 64
	case loadgen.MultiStream:
		return 8
	}
	return 1
}

// settings are those of the scenario, from its flags and those of the load.
func (o *benchScenarioOptions) settings(all *benchServeOptions) loadgen.Settings {
	library := all.samples
	if len(all.inputs) > 0 {
		library = len(all.inputs)
	}
	return loadgen.Settings{
		Scenario: loadgen.Scenario(o.name), Mode: loadgen.Mode(o.mode), QPS: all.load.Rate, Latency: o.latency, Percentile: o.percentile,
		MinDuration: all.load.Duration, MinQueries: all.load.Count, Library: library, Seed: all.load.Seed,
	}.WithDefaults()
}

// run runs the scenario, judges it, and writes the log files.
func (o *benchScenarioOptions) run(ctx context.Context, env *Env, all *benchServeOptions, requests []serving.Prepared, report *serving.Report) (*serving.Measured, error) {
	s := o.settings(all)
	log := &loadgen.Log{Settings: s, System: fmt.Sprintf("%s at %s", report.Model, report.Server), Began: time.Now()}
	send := func(ctx context.Context, sample uint64) error { return requests[sample].Send(ctx) }
	var m *serving.Measured
	var err error
	switch s.Mode {
	case loadgen.Accuracy:
		m, log.Answers, err = serving.RunAccuracy(ctx, requests, all.load)
	case loadgen.FindPeak:
		_, err = loadgen.Peak(ctx, s, func(ctx context.Context, s loadgen.Settings) (*loadgen.Verdict, error) {
			measured, v, err := serving.RunScenario(ctx, send, s, all.load)
			if err == nil && v == nil {
				err = context.Cause(ctx)
			}
			if err == nil && (v.PerformanceMet || m == nil) {
				m, log.Settings, log.Verdict = measured, s, v
			}
			return v, err
		}, func(line string) {
			if all.load.Progress != nil {
				fmt.Fprint(env.Err, "\r\033[K")
			}
			fmt.Fprintln(env.Err, line)
		})
		if m != nil && ctx.Err() != nil {
			m.Interrupted, err = true, nil // earlier rates are reported
		}
	default:
		m, log.Verdict, err = serving.RunScenario(ctx, send, s, all.load)
	}
	report.Verdict = log.Verdict
	report.Rate = 0 // the loop is open in no other scenario
	if s.Scenario == loadgen.Server && s.Mode != loadgen.Accuracy {
		report.Rate = log.Settings.QPS
	}
	if err != nil || o.logs == "" || m.Interrupted {
		return m, err
	}
	return m, log.Write(o.logs)
}
