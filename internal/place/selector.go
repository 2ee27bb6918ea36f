package place

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
)

// Selector is a compiled CEL expression over one device, in the language of
// Kubernetes DRA: device.driver, device.attributes["domain"].name and
// device.capacity["domain"].name, where capacities are quantities:
//
//	device.driver == "gpu.nvidia.com" &&
//	device.capacity["gpu.nvidia.com"].memory.compareTo(quantity("24Gi")) >= 0
type Selector struct {
	source  string
	program cel.Program
}

// CompileSelector checks an expression and returns its Selector. The error
// names the place of the mistake, or the bound that the expression exceeds.
func CompileSelector(source string) (*Selector, error) {
	if len(source) > maxSelectorBytes {
		return nil, fmt.Errorf("selector of %d bytes is longer than %d", len(source), maxSelectorBytes)
	}
	program, err := selectorProgram(source)
	if err != nil {
		return nil, err
	}
	return &Selector{source: source, program: program}, nil
}

// String returns the expression as it was written.
func (s *Selector) String() string {
	if s == nil {
		return ""
	}
	return s.source
}

// MarshalText returns the expression.
func (s *Selector) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText compiles the expression.
func (s *Selector) UnmarshalText(text []byte) error {
	compiled, err := CompileSelector(string(text))
	if err == nil {
		*s = *compiled
	}
	return err
}

// errNoAttribute marks a device that lacks what the selector reads; errCost an
// expression that costs too much to go on with.
var (
	errNoAttribute = errors.New("no such attribute")
	errCost        = errors.New("the expression costs too much")
)

// maxMatchingTime ends the evaluations over all devices of a machine, should
// the bounds on cost not do so. What they allow takes a tenth of it.
const maxMatchingTime = time.Second

// Match reports whether the device satisfies the expression. An expression
// that reads an attribute which the device lacks fails, as in Kubernetes; so
// does one that exceeds its bounds or outlives ctx.
func (s *Selector) Match(ctx context.Context, d *Device) (bool, error) {
	budget := uint64(maxSelectorCost)
	return s.match(ctx, d, &budget)
}

// match takes what the evaluation costs from a budget.
func (s *Selector) match(ctx context.Context, d *Device, budget *uint64) (bool, error) {
	if s == nil || s.source == "" {
		return true, nil
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if *budget == 0 {
		return false, fmt.Errorf("%w: more than %d steps over all devices", errCost, maxMatchingCost)
	}
	out, details, err := s.program.ContextEval(ctx, map[string]any{"device": d.celValue()})
	if details != nil && details.ActualCost() != nil {
		*budget -= min(*details.ActualCost(), *budget)
	}
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return false, ctx.Err()
	case strings.Contains(err.Error(), "no such key: "):
		_, key, _ := strings.Cut(err.Error(), "no such key: ")
		return false, fmt.Errorf("%w %q", errNoAttribute, key)
	case strings.Contains(err.Error(), "cost limit"):
		return false, fmt.Errorf("%w: more than %d steps", errCost, maxSelectorCost)
	case strings.Contains(err.Error(), "memory limit"):
		return false, fmt.Errorf("%w: a value on the way is larger than %d elements", errCost, maxSelectorValues)
	default:
		return false, err
	}
	match, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("yields %v instead of true or false", out.Value())
	}
	return match, nil
}
