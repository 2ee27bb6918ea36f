package job

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"oscine.dev/oscine/internal/optimize"
	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/trial"
	"oscine.dev/oscine/internal/tensor"
)

// bench measures original and result in Oscine's own engine worker.
type bench struct {
	j         *job
	engine    []string // command of the worker, without its socket
	log       tail
	inputs    []tensor.Spec     // of the original, where there is data
	data      *optimize.Data    // what the models are measured with; nil: none was given, or none was read yet
	calibrate []optimize.Sample // with which the result is made
	each      time.Duration     // that a model is run for its speed in a pass
	compared  bool              // the answers to all samples are here
}

// newBench returns one with an engine of the pack.
func newBench(j *job, engine string) *bench {
	return &bench{j: j, engine: []string{"/usr/bin/oscine-engine", engine}}
}

// compare measures the original, has the result made, measures that, and then both in
// turn. It fills in the report's accuracy and speed.
func (b *bench) compare(ctx context.Context, create func() error) error {
	var n int
	n, b.each = passes(b.j.request.Method)
	original, err := b.measure(ctx, "the original", b.j.original())
	if err != nil {
		return err
	}
	if err := create(); err != nil {
		return err
	}
	result, err := b.measure(ctx, "the result", b.j.result())
	if err != nil {
		return err
	}
	b.compared = true
	for range n - 1 {
		if err := b.again(ctx, original, "the original again", b.j.original()); err != nil {
			return err
		}
		if err := b.again(ctx, result, "the result again", b.j.result()); err != nil {
			return err
		}
	}
	return b.report(original, result)
}

func (b *bench) report(original, result *measured) error {
	r := &b.j.report
	r.Speed = optimize.Speed{Inputs: len(original.answers), OriginalRun: original.run, ResultRun: result.run, OriginalLoad: original.load, ResultLoad: result.load}
	var labels []int
	measure := b.j.request.Measure
	if b.data != nil {
		labels = b.data.Labels
	} else if measure == optimize.Auto {
		measure = optimize.Difference // the highest score of noise says nothing
	}
	var err error
	r.Accuracy, err = optimize.Compare(original.answers, result.answers, labels, measure)
	r.Accuracy.MadeUp = b.data == nil
	return err
}

// samples are what the model with these inputs is measured with. The first call reads
// them, and holds back those that it is calibrated with.
func (b *bench) samples(inputs []tensor.Spec) ([]optimize.Sample, error) {
	if b.data != nil {
		if !slices.EqualFunc(b.inputs, inputs, tensor.Spec.Equal) {
			return nil, errors.New("the result has other inputs than the original")
		}
		return b.data.Samples, nil
	}
	b.j.say("reading the data")
	data, err := optimize.ReadData(b.j.data(), inputs)
	if err != nil {
		return nil, err
	}
	b.inputs, b.data = inputs, data
	if b.j.request.Method == optimize.Static {
		if b.calibrate, b.data, err = data.Divide(); err != nil {
			return nil, err
		}
	}
	b.j.report.Calibration = &optimize.Calibration{Files: data.Files, Calibrated: len(b.calibrate), HeldOut: len(b.data.Samples)}
	return b.data.Samples, nil
}

// passes are how often original and result are measured in turn, and for how long each
// time: what else the machine does comes and goes. Loading, by which a graph is judged
// too, is done but once in each.
func passes(m optimize.Method) (n int, each time.Duration) {
	if m == optimize.Graph {
		return 8, 500 * time.Millisecond
	}
	return 3, time.Second
}

// mostTimed bounds the samples of all passes but the first, which compares answers.
const mostTimed = 64

// measured is what a model did.
type measured struct {
	run, load time.Duration
	answers   optimize.Answers
}

// again measures once more, and keeps the shorter times.
func (b *bench) again(ctx context.Context, m *measured, what, model string) error {
	other, err := b.measure(ctx, what, model)
	if err == nil {
		m.run, m.load = min(m.run, other.run), min(m.load, other.load)
	}
	return err
}

// measure runs a model on samples, or where there are none on made-up inputs.
func (b *bench) measure(ctx context.Context, what, model string) (*measured, error) {
	dir, err := os.MkdirTemp(b.j.dir, "w")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	w, err := startWorker(ctx, b.engine, dir, loaded(model), b.j.request.Threads, &b.log)
	if err != nil {
		return nil, err
	}
	m := &measured{}
	b.j.say("measuring %s", what)
	r, err := b.try(ctx, w, what, m)
	if err != nil {
		var refused *channel.ModelError
		if errors.As(err, &refused) {
			return nil, fmt.Errorf("the engine refuses %s: %w", what, err)
		}
		return nil, fmt.Errorf("measure %s: %w%s", what, err, b.log.last())
	}
	m.run, m.load = r.Latency[0], r.Load
	return m, nil
}

// loaded is what the engine is given of a model: of OpenVINO's the folder, in which its
// weights are too.
func loaded(model string) string {
	if strings.EqualFold(filepath.Ext(model), ".xml") {
		return filepath.Dir(model)
	}
	return model
}

func (b *bench) try(ctx context.Context, w *worker, what string, m *measured) (*trial.Result, error) {
	if !b.j.given() {
		r, err := trial.Run(ctx, w, b.each)
		if err == nil && r.Problem != "" {
			err = fmt.Errorf("it does not run on made-up inputs, give --calibration: %s", r.Problem)
		}
		if err == nil {
			m.answers = append(m.answers, tensors(r.Outputs))
		}
		return r, err
	}
	return trial.RunGiven(ctx, w, trial.Given{
		Limit: b.each,
		Inputs: func(meta *channel.Metadata) ([][]trial.Input, error) {
			list, err := b.samples(meta.Inputs)
			if b.compared {
				list = list[:min(len(list), mostTimed)]
			}
			var inputs [][]trial.Input
			for _, s := range list {
				var in []trial.Input
				for _, t := range s {
					in = append(in, trial.Input{Shape: t.Shape, Data: t.Data})
				}
				inputs = append(inputs, in)
			}
			return inputs, err
		},
		Answered: func(i, n int, outputs []trial.Output) {
			m.answers = append(m.answers, tensors(outputs))
			if i%16 == 0 && !b.compared {
				b.j.say("measuring %s: %d of %d", what, i+1, n)
			}
		},
	})
}

func tensors(outputs []trial.Output) []optimize.Tensor {
	var list []optimize.Tensor
	for _, o := range outputs {
		list = append(list, optimize.Tensor{Type: o.Type, Shape: o.Shape, Data: o.Data})
	}
	return list
}
