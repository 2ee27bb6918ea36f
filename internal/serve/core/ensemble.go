package core

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/ensemble"
	"oscine.dev/oscine/internal/tensor"
)

// Ensemble is a model that others make up: their tensors go from step to step
// inside the node. It has no worker.
type Ensemble struct {
	Steps   []ensemble.Step
	Outputs []string // tensors that clients get; none: those that no step takes
}

// errStep means that the models of an ensemble do not fit each other.
var errStep = errors.New("the steps do not fit")

// CheckEnsemble refuses an ensemble whose models are served and do not fit each
// other. What is not served yet is not looked at.
func (r *Registry) CheckEnsemble(e *Ensemble) error {
	plan, err := ensemble.Arrange(e.Steps, e.Outputs)
	if err != nil {
		return err
	}
	if _, err := r.resolve(e, plan); errors.Is(err, errStep) {
		return err
	}
	return nil
}

// resolve describes an ensemble by the models of its steps. It fails with an
// errStep where they do not fit, else where one is not served or not ready.
func (r *Registry) resolve(e *Ensemble, plan *ensemble.Plan) (*channel.Metadata, error) {
	specs := map[string]*tensor.Spec{}
	var waits error
	for _, i := range plan.Order {
		step, where := &e.Steps[i], ensemble.Name(e.Steps, i)
		s, err := r.StatusOf(context.Background(), step.Model, step.Version)
		if err == nil && s.Ensemble != nil {
			return nil, fmt.Errorf("%w: %s is an ensemble itself: name its steps instead", errStep, where)
		}
		if err == nil && s.State == Idle && len(s.Outputs) == 0 { // loaded once, to learn what it takes
			r.want(s.Name)
		}
		if err == nil && (!s.Answers() || len(s.Outputs) == 0) {
			err = fmt.Errorf("%w: %s", ErrNotReady, s.Reason())
		}
		if err != nil && waits == nil {
			waits = fmt.Errorf("%s: %w", where, err)
		}
		if len(s.Outputs) == 0 {
			continue // it has not told yet what it takes
		}
		for _, spec := range s.Inputs {
			if step.Inputs[spec.Name] == "" {
				return nil, fmt.Errorf("%w: %s: input %q of the model is not mapped", errStep, where, spec.Name)
			}
		}
		for _, side := range []struct {
			kind  string
			names map[string]string
			specs []tensor.Spec
		}{{"input", step.Inputs, s.Inputs}, {"output", step.Outputs, s.Outputs}} {
			for _, name := range slices.Sorted(maps.Keys(side.names)) {
				at := tensor.Find(side.specs, name)
				if at < 0 {
					return nil, fmt.Errorf("%w: %s: %s %q is not known (%s)", errStep, where, side.kind, name, names("the model's "+side.kind+"s are", side.specs))
				}
				if err := join(specs, side.names[name], side.specs[at]); err != nil {
					return nil, fmt.Errorf("%w: %s: %s %q: %w", errStep, where, side.kind, name, err)
				}
			}
		}
	}
	if waits != nil {
		return nil, waits
	}
	meta := &channel.Metadata{Engine: "ensemble"}
	for _, name := range plan.Inputs {
		meta.Inputs = append(meta.Inputs, *specs[name])
	}
	for _, name := range plan.Outputs {
		meta.Outputs = append(meta.Outputs, *specs[name])
	}
	return meta, nil
}

// join notes what one more model says of a tensor.
func join(specs map[string]*tensor.Spec, name string, spec tensor.Spec) error {
	known := specs[name]
	switch {
	case known == nil:
		spec.Name, spec.Shape = name, slices.Clone(spec.Shape)
		specs[name] = &spec
		return nil
	case known.Type != spec.Type:
		return fmt.Errorf("it is %s, the tensor %q is %s", spec.Type, name, known.Type)
	case spec.AnyRank:
		return nil
	case known.AnyRank:
		known.AnyRank, known.Shape = false, slices.Clone(spec.Shape)
		return nil
	case len(known.Shape) != len(spec.Shape):
		return fmt.Errorf("its shape is %s, that of the tensor %q is %s", spec.Shape, name, known.Shape)
	}
	for i, d := range spec.Shape {
		switch {
		case known.Shape[i] < 0:
			known.Shape[i] = d
		case d >= 0 && d != known.Shape[i]:
			return fmt.Errorf("its shape is %s, that of the tensor %q is %s", spec.Shape, name, known.Shape)
		}
	}
	return nil
}

// follow keeps the state of an ensemble until it is served no more.
func (m *model) follow() {
	defer close(m.done)
	for {
		changed := m.changes.wait()
		m.describe(m.resolve())
		select {
		case <-m.ctx.Done():
			m.set(Failed, "the model is served no more")
			return
		case <-changed:
		}
	}
}

// describe sets an ensemble's state by what became of its resolution.
func (m *model) describe(meta *channel.Metadata, err error) {
	state, message := Ready, ""
	if err != nil {
		if state, message = Waiting, err.Error(); errors.Is(err, errStep) {
			state = Failed
		}
	}
	m.mu.Lock()
	same := m.state == state && m.message == message && (err != nil || m.metadata.SameModel(meta))
	if err == nil {
		m.metadata, m.engine = meta, meta.Engine
		m.open.Store(true)
	}
	if state == Failed { // until its steps fit again
		m.metadata = nil
		m.open.Store(false)
	}
	m.mu.Unlock()
	if !same {
		m.set(state, message)
	}
}

// inferSteps answers a request to an ensemble by its steps, one after the other.
func (r *Registry) inferSteps(ctx context.Context, m *model, a *answer, q *Request) error {
	_, meta, err := m.ready(ctx)
	if err != nil {
		return err
	}
	var run channel.Request
	if _, err := q.bind(meta, &run, nil); err != nil {
		return err
	}
	stateful, err := r.stateful(m, q)
	if err != nil {
		return err
	}
	tensors := map[string]Input{}
	for _, in := range q.Inputs {
		tensors[in.Name] = in
	}
	var responses []Response
	defer func() {
		for i := range responses {
			responses[i].Free()
		}
	}()
	for _, i := range m.plan.Order {
		step := &m.Ensemble.Steps[i]
		ask := Request{Model: step.Model, Version: step.Version, Arrived: q.Arrived, Priority: q.Priority, Timeout: q.Timeout, step: true, holds: len(responses) > 0}
		if ask.Timeout == 0 {
			ask.Timeout = m.DefaultTimeout
		}
		if stateful[i] {
			ask.Sequence = q.Sequence
			if q.Sequence.ID != "" { // a state of its own, which no other step or request has
				ask.Sequence.ID = fmt.Sprintf("%s/%d/%s", m.Name, i, q.Sequence.ID)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(step.Inputs)) {
			in := tensors[step.Inputs[name]]
			in.Name = name
			ask.Inputs = append(ask.Inputs, in)
		}
		ask.Outputs = slices.Sorted(maps.Keys(step.Outputs))
		response, err := r.inferAdmitted(ctx, ask)
		if err != nil {
			return fmt.Errorf("%s: %w", ensemble.Name(m.Ensemble.Steps, i), err)
		}
		responses = append(responses, response)
		for _, out := range response.Outputs {
			tensors[step.Outputs[out.Name]] = Input{out.Name, out.Type, out.Shape, Bytes(out.Data)}
		}
	}
	wanted := q.Outputs
	if len(wanted) == 0 {
		wanted = m.plan.Outputs
	}
	a.holds = true
	return a.gather(ctx, wanted, tensors)
}

// stateful says which steps have state; a request to others has no sequence.
func (r *Registry) stateful(m *model, q *Request) ([]bool, error) {
	stateful, any := make([]bool, len(m.Ensemble.Steps)), false
	for i := range m.Ensemble.Steps {
		step := &m.Ensemble.Steps[i]
		if s, err := r.asked(step.Model, step.Version); err == nil && len(s.Sequencing.States) > 0 {
			stateful[i], any = true, true
		}
	}
	if !any && q.Sequence != (Sequence{}) {
		return nil, fmt.Errorf("%w: no step of %s keeps state: leave out sequence_id", ErrInvalid, m.Name)
	}
	return stateful, nil
}

// gather copies the tensors that are wanted into the answer.
func (a *answer) gather(ctx context.Context, wanted []string, tensors map[string]Input) error {
	total := 0
	for _, name := range wanted {
		total += len(tensors[name].Data.(Bytes))
	}
	if err := a.hold(ctx, total); err != nil {
		return err
	}
	for _, name := range wanted {
		from := tensors[name]
		a.add(name, from.Type, from.Shape, from.Data.(Bytes))
	}
	return nil
}
