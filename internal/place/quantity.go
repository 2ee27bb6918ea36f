package place

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"k8s.io/apimachinery/pkg/api/resource"
)

// quantityLibrary gives selectors the functions of Kubernetes' quantity
// library that DRA selectors use: quantity(), compareTo, isGreaterThan,
// isLessThan and asInteger.
func quantityLibrary() cel.EnvOption {
	t := quantityType()
	return cel.Lib(celFunctions{
		cel.Function("quantity",
			cel.Overload("string_to_quantity", []*cel.Type{cel.StringType}, t, cel.UnaryBinding(parseQuantity))),
		cel.Function("compareTo",
			cel.MemberOverload("quantity_compare_to", []*cel.Type{t, t}, cel.IntType, compareBinding(func(c int) ref.Val { return types.Int(c) }))),
		cel.Function("isGreaterThan",
			cel.MemberOverload("quantity_is_greater_than", []*cel.Type{t, t}, cel.BoolType, compareBinding(func(c int) ref.Val { return types.Bool(c > 0) }))),
		cel.Function("isLessThan",
			cel.MemberOverload("quantity_is_less_than", []*cel.Type{t, t}, cel.BoolType, compareBinding(func(c int) ref.Val { return types.Bool(c < 0) }))),
		cel.Function("asInteger",
			cel.MemberOverload("quantity_as_integer", []*cel.Type{t}, cel.IntType, cel.UnaryBinding(func(v ref.Val) ref.Val {
				if q, ok := v.(quantity); ok {
					return types.Int(q.units)
				}
				return types.MaybeNoSuchOverloadErr(v)
			}))),
	})
}

type celFunctions []cel.EnvOption

// CompileOptions implements cel.Library.
func (f celFunctions) CompileOptions() []cel.EnvOption { return f }

// ProgramOptions implements cel.Library.
func (f celFunctions) ProgramOptions() []cel.ProgramOption { return nil }

// Bounds on a quantity's text: resource.ParseQuantity writes out all the digits
// of 1e-60000000, which takes minutes.
const (
	maxQuantity = 64 // characters
	maxExponent = 18
)

// ParseQuantity reads a Kubernetes resource quantity of at most 64 characters
// and with an exponent of -18 to 18, in microseconds whatever the text is.
func ParseQuantity(text string) (resource.Quantity, error) {
	if len(text) > maxQuantity {
		return resource.Quantity{}, fmt.Errorf("a quantity has at most %d characters, got %d", maxQuantity, len(text))
	}
	// 1E and 1Ei are suffixes.
	if _, exponent, ok := strings.Cut(strings.ToLower(text), "e"); ok && exponent != "" && exponent != "i" {
		if n, err := strconv.Atoi(exponent); err != nil || n < -maxExponent || n > maxExponent {
			return resource.Quantity{}, fmt.Errorf("%q: an exponent is a whole number from -%d to %d", text, maxExponent, maxExponent)
		}
	}
	return resource.ParseQuantity(text)
}

func parseQuantity(v ref.Val) ref.Val {
	s, ok := v.Value().(string)
	if !ok {
		return types.NewErr("quantity() takes text such as \"24Gi\"")
	}
	q, err := ParseQuantity(s)
	if err != nil {
		return types.NewErr("quantity() takes text such as \"24Gi\": %v", err)
	}
	return quantity{q.Value()}
}

func compareBinding(result func(int) ref.Val) cel.OverloadOpt {
	return cel.BinaryBinding(func(a, b ref.Val) ref.Val {
		x, okA := a.(quantity)
		y, okB := b.(quantity)
		if !okA || !okB {
			return types.MaybeNoSuchOverloadErr(b)
		}
		return result(cmp.Compare(x.units, y.units))
	})
}
