package job

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"oscine.dev/oscine/internal/optimize"
	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/trial"
)

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
func (j *job) again(ctx context.Context, m *measured, what, model string) error {
	other, err := j.measure(ctx, what, model)
	if err == nil {
		m.run, m.load = min(m.run, other.run), min(m.load, other.load)
	}
	return err
}

// measure runs a model on samples, or where there are none on made-up inputs.
func (j *job) measure(ctx context.Context, what, model string) (*measured, error) {
	dir, err := os.MkdirTemp(j.dir, "w")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	w, err := startWorker(ctx, j.o.Engine, dir, model, j.request.Threads, &j.engineLog)
	if err != nil {
		return nil, err
	}
	m := &measured{}
	j.say("measuring %s", what)
	r, err := j.try(ctx, w, what, m)
	if err != nil {
		var refused *channel.ModelError
		if errors.As(err, &refused) {
			return nil, fmt.Errorf("the engine refuses %s: %w", what, err)
		}
		return nil, fmt.Errorf("measure %s: %w%s", what, err, j.engineLog.last())
	}
	m.run, m.load = r.Latency[0], r.Load
	return m, nil
}

func (j *job) try(ctx context.Context, w *worker, what string, m *measured) (*trial.Result, error) {
	if !j.given() {
		r, err := trial.Run(ctx, w, j.each)
		if err == nil && r.Problem != "" {
			err = fmt.Errorf("it does not run on made-up inputs, give --calibration: %s", r.Problem)
		}
		if err == nil {
			m.answers = append(m.answers, tensors(r.Outputs))
		}
		return r, err
	}
	return trial.RunGiven(ctx, w, trial.Given{
		Limit: j.each,
		Inputs: func(meta *channel.Metadata) ([][]trial.Input, error) {
			list, err := j.samples(meta.Inputs)
			if j.compared {
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
			if i%16 == 0 && !j.compared {
				j.say("measuring %s: %d of %d", what, i+1, n)
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
