package place

import (
	"cmp"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	units "oscine.dev/oscine/internal/quantity"
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

func parseQuantity(v ref.Val) ref.Val {
	s, ok := v.Value().(string)
	if !ok {
		return types.NewErr("quantity() takes text such as \"24Gi\"")
	}
	q, err := units.Parse(s)
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
