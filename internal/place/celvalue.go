package place

import (
	"fmt"
	"reflect"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

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
