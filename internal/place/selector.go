package place

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
)

// Bounds on a selector, those of Kubernetes DRA (resource.k8s.io/v1).
const (
	maxSelectorBytes = 10 << 10
	maxSelectorCost  = 1_000_000 // CEL cost units of one evaluation
	maxMatchingCost  = 5_000_000 // of the evaluations over all devices, or CPUs, of a machine
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
// names the place of the mistake.
func CompileSelector(source string) (*Selector, error) {
	if len(source) > maxSelectorBytes {
		return nil, fmt.Errorf("selector of %d bytes is longer than %d", len(source), maxSelectorBytes)
	}
	env, err := selectorEnv()
	if err != nil {
		return nil, fmt.Errorf("prepare CEL: %w", err)
	}
	ast, issues := env.Compile(source)
	if issues.Err() != nil {
		return nil, fmt.Errorf("selector: %s", firstLine(issues.Err().Error()))
	}
	if t := ast.OutputType(); t != cel.BoolType && t != cel.DynType {
		return nil, fmt.Errorf("selector must be true or false for each device, but yields %s", t)
	}
	program, err := env.Program(ast, cel.CostLimit(maxSelectorCost), cel.EvalOptions(cel.OptTrackCost))
	if err != nil {
		return nil, fmt.Errorf("selector: %w", err)
	}
	return &Selector{source: source, program: program}, nil
}

func selectorEnv() (*cel.Env, error) {
	return cel.NewEnv(
		cel.ParserExpressionSizeLimit(maxSelectorBytes),
		cel.OptionalTypes(),
		ext.Strings(ext.StringsVersion(2)),
		quantityLibrary(),
		cel.Variable("device", cel.MapType(cel.StringType, cel.DynType)),
	)
}

// firstLine drops the drawing that CEL puts under a message.
func firstLine(s string) string {
	s = strings.TrimPrefix(s, "ERROR: <input>:")
	first, _, _ := strings.Cut(s, "\n")
	return first
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

// Match reports whether the device satisfies the expression. An expression
// that reads an attribute which the device lacks fails, as in Kubernetes.
func (s *Selector) Match(d *Device) (bool, error) {
	budget := uint64(maxSelectorCost)
	return s.match(d, &budget)
}

// match takes what the evaluation costs from a budget.
func (s *Selector) match(d *Device, budget *uint64) (bool, error) {
	if s == nil || s.source == "" {
		return true, nil
	}
	if *budget == 0 {
		return false, errCost
	}
	out, details, err := s.program.Eval(map[string]any{"device": d.celValue()})
	if details != nil && details.ActualCost() != nil {
		*budget -= min(*details.ActualCost(), *budget)
	}
	if err != nil {
		if _, key, ok := strings.Cut(err.Error(), "no such key: "); ok {
			return false, fmt.Errorf("%w %q", errNoAttribute, key)
		}
		if strings.Contains(err.Error(), "cost limit") {
			*budget = 0
			return false, fmt.Errorf("%w: more than %d steps", errCost, maxSelectorCost)
		}
		return false, err
	}
	match, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("yields %v instead of true or false", out.Value())
	}
	return match, nil
}

// celValue is the device as expressions see it. Names without a domain belong
// to the driver's own domain, as in Kubernetes.
func (d *Device) celValue() map[string]any {
	attributes, capacity := domains{}, domains{}
	for name, v := range d.Attributes {
		attributes.set(d.Driver, name, v)
	}
	for name, v := range d.Capacity {
		capacity.set(d.Driver, name, quantity{v})
	}
	return map[string]any{"driver": d.Driver, "attributes": attributes.value(), "capacity": capacity.value()}
}

type domains map[string]map[string]any

func (m domains) set(driver, name string, v any) {
	domain, short, ok := strings.Cut(name, "/")
	if !ok {
		domain, short = driver, name
	}
	if m[domain] == nil {
		m[domain] = map[string]any{}
	}
	m[domain][short] = v
}

func (m domains) value() map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// quantity is a Kubernetes quantity inside CEL, in whole units.
type quantity struct{ units int64 }

func quantityType() *cel.Type { return cel.ObjectType("kubernetes.Quantity") }

// ConvertToNative implements ref.Val.
func (q quantity) ConvertToNative(t reflect.Type) (any, error) {
	if t == reflect.TypeFor[int64]() {
		return q.units, nil
	}
	return nil, fmt.Errorf("a quantity is no %v", t)
}

// ConvertToType implements ref.Val.
func (q quantity) ConvertToType(t ref.Type) ref.Val {
	switch t.TypeName() {
	case "int":
		return types.Int(q.units)
	case "kubernetes.Quantity":
		return q
	}
	return types.NewErr("a quantity is no %s", t.TypeName())
}

// Equal implements ref.Val.
func (q quantity) Equal(other ref.Val) ref.Val {
	o, ok := other.(quantity)
	return types.Bool(ok && o == q)
}

// Type implements ref.Val.
func (q quantity) Type() ref.Type { return quantityType() }

// Value implements ref.Val.
func (q quantity) Value() any { return q.units }
