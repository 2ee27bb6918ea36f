package ensemble

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// MaxSteps bounds an ensemble.
const MaxSteps = 64

// Step is one model of an ensemble. The maps go from the names that the model has
// for its tensors to those that the ensemble has.
type Step struct {
	Model, Version  string // Version "" means whichever is served
	Inputs, Outputs map[string]string
}

// Plan is how an ensemble is computed.
type Plan struct {
	Order   []int    // of the steps
	Inputs  []string // tensors that come from the client, sorted
	Outputs []string // tensors that go to the client
}

// Name is how messages name a step, counted from 0.
func Name(steps []Step, i int) string { return fmt.Sprintf("step %d (%s)", i+1, steps[i].Model) }

// Arrange orders the steps so that each comes behind those whose outputs it takes.
// The client gets the outputs that are wanted; none: those that no step takes. Its
// error names the step that is wrong.
func Arrange(steps []Step, wanted []string) (*Plan, error) {
	if len(steps) == 0 || len(steps) > MaxSteps {
		return nil, fmt.Errorf("needs 1 to %d steps, got %d", MaxSteps, len(steps))
	}
	from, err := producers(steps)
	if err != nil {
		return nil, err
	}
	p := &Plan{}
	taken := map[string]bool{}
	for i := range steps {
		for _, tensor := range steps[i].Inputs {
			if _, made := from[tensor]; !made && !taken[tensor] {
				p.Inputs = append(p.Inputs, tensor)
			}
			taken[tensor] = true
		}
	}
	slices.Sort(p.Inputs)
	if err := p.arrange(steps, from); err != nil {
		return nil, err
	}
	for _, tensor := range wanted {
		if _, made := from[tensor]; !made || slices.Contains(p.Outputs, tensor) {
			return nil, fmt.Errorf("output %q is no step's output, or given twice", tensor)
		}
		p.Outputs = append(p.Outputs, tensor)
	}
	if len(wanted) == 0 {
		for _, tensor := range slices.Sorted(maps.Keys(from)) {
			if !taken[tensor] {
				p.Outputs = append(p.Outputs, tensor)
			}
		}
	}
	return p, nil
}

// producers says which step each tensor comes from.
func producers(steps []Step) (map[string]int, error) {
	from := map[string]int{}
	for i := range steps {
		s := &steps[i]
		switch {
		case s.Model == "":
			return nil, fmt.Errorf("step %d names no model", i+1)
		case len(s.Inputs) == 0 || len(s.Outputs) == 0:
			return nil, fmt.Errorf("%s needs at least one input and one output", Name(steps, i))
		}
		for _, m := range []map[string]string{s.Inputs, s.Outputs} {
			for name, tensor := range m {
				if name == "" || tensor == "" {
					return nil, fmt.Errorf("%s: %q: %q: both names are needed", Name(steps, i), name, tensor)
				}
			}
		}
		for _, tensor := range s.Outputs {
			if other, made := from[tensor]; made {
				return nil, fmt.Errorf("%s: tensor %q comes from %s already", Name(steps, i), tensor, Name(steps, other))
			}
			from[tensor] = i
		}
	}
	return from, nil
}

// arrange finds the order. What is left when no step can go next is a cycle, or
// waits for one.
func (p *Plan) arrange(steps []Step, from map[string]int) error {
	done := make([]bool, len(steps))
	ready := func(i int) bool {
		for _, tensor := range steps[i].Inputs {
			if other, made := from[tensor]; made && !done[other] {
				return false
			}
		}
		return !done[i]
	}
	for len(p.Order) < len(steps) {
		next := -1
		for i := range steps {
			if ready(i) {
				next = i
				break
			}
		}
		if next < 0 {
			var left []string
			for i := range steps {
				if !done[i] {
					left = append(left, Name(steps, i))
				}
			}
			return fmt.Errorf("%s: each waits for an output of another one, or of itself: a cycle", strings.Join(left, ", "))
		}
		done[next] = true
		p.Order = append(p.Order, next)
	}
	return nil
}
