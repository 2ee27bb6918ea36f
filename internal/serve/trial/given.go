package trial

import (
	"context"
	"fmt"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

// Input is a tensor that a model is given.
type Input struct {
	Shape tensor.Shape
	Data  []byte
}

// Given is what to run a model on.
type Given struct {
	// Inputs returns, for a model that has been loaded, what it is run on, each time
	// with an input for each of the model's, in their order.
	Inputs func(*channel.Metadata) ([][]Input, error)
	// Limit is how long it is run again and again after it ran on all once.
	Limit time.Duration
	// Answered gets the outputs of the first run on each, in order.
	Answered func(i, n int, outputs []Output)
}

// mostTimed bounds the inputs that are run again for the time they take.
const mostTimed = 64

// RunGiven has the worker load its model, runs it on what is given, and ends the
// worker. The result's first latency is the mean of the shortest runs on each of the
// first inputs; its error is as that of Run.
func RunGiven(ctx context.Context, w Worker, g Given) (*Result, error) {
	return attend(ctx, w, func(t *trial) error { return t.given(ctx, &g) })
}

func (t *trial) given(ctx context.Context, g *Given) error {
	inputs, err := g.Inputs(&t.result.Metadata)
	if err != nil {
		return err
	}
	shortest := make([]time.Duration, min(len(inputs), mostTimed))
	for i, in := range inputs {
		took, outputs, err := t.one(in)
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if i < len(shortest) {
			shortest[i] = took
		}
		g.Answered(i, len(inputs), outputs)
	}
	for end := time.Now().Add(g.Limit); len(shortest) > 0 && time.Now().Before(end); {
		for i := range shortest {
			took, _, err := t.one(inputs[i])
			if err != nil {
				return err
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			shortest[i] = min(shortest[i], took)
		}
	}
	for _, d := range shortest {
		t.result.Latency[0] += d / time.Duration(len(shortest))
	}
	return nil
}

// one runs the model once on an input for each of its own.
func (t *trial) one(in []Input) (time.Duration, []Output, error) {
	meta := &t.result.Metadata
	shapes, sizes := make([]tensor.Shape, len(in)), make([]int, len(in))
	for i := range in {
		shapes[i], sizes[i] = in[i].Shape, len(in[i].Data)
	}
	offsets, end, err := channel.Layout(meta.Inputs, shapes, sizes, nil)
	if err == nil && end > len(t.slot)/2 {
		err = fmt.Errorf("the inputs have %d bytes, at most %d are run", end, len(t.slot)/2)
	}
	if err != nil {
		return 0, nil, err
	}
	for i := range in {
		copy(t.slot[offsets[i]:], in[i].Data)
	}
	took, r, err := t.run(shapes, sizes)
	switch {
	case err != nil:
		return 0, nil, err
	case r.Code != channel.OK:
		return 0, nil, &channel.ModelError{Text: r.Err}
	}
	return took, t.outputs(r), nil
}
