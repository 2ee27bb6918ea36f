package rows

import (
	"math"
	"slices"
)

// constantOf returns the tensor that a node holds.
func constantOf(c *call) []value {
	if a := c.attributes["value"]; a != nil && a.tensor != nil {
		return []value{*a.tensor}
	}
	if a := c.attributes["value_int"]; a != nil {
		return []value{ofElements([]element{{known: true, n: a.number}}, 0)}
	}
	if a := c.attributes["value_ints"]; a != nil {
		list := make([]element, len(a.ints))
		for i, n := range a.ints {
			list[i] = element{known: true, n: n}
		}
		return []value{ofElements(list, 1)}
	}
	if a := c.attributes["value_float"]; a != nil {
		return []value{{form: constant, dims: []int64{}, reals: []float64{a.real}}}
	}
	return []value{{form: constant}}
}

// shapeOf returns the dimensions as elements.
func shapeOf(c *call) []value {
	x := c.arg(0)
	if x == nil || x.dims == nil {
		return []value{wrong("")}
	}
	list := make([]element, len(x.dims))
	for i, d := range x.dims {
		switch {
		case x.form == batched && i == x.axis:
			list[i] = element{batch: true}
		case d >= 0:
			list[i] = element{known: true, n: d}
		}
	}
	n := int64(len(list))
	from, to := c.integer("start", 0), c.integer("end", n)
	list = cut(list, from, to)
	return []value{ofElements(list, 1)}
}

// cut is a slice as ONNX counts: from the end where negative, and never beyond.
func cut(list []element, from, to int64) []element {
	n := int64(len(list))
	at := func(i int64) int64 {
		if i < 0 {
			i += n
		}
		return min(max(i, 0), n)
	}
	from, to = at(from), at(to)
	return list[from:max(from, to)]
}

// gather picks along an axis, or looks rows' indices up in a table.
func gather(c *call) []value {
	x, at := c.arg(0), c.arg(1)
	if x == nil || at == nil || x.dims == nil || at.dims == nil || at.form == sizes {
		return []value{wrong("")}
	}
	axis, ok := axisOf(c.integer("axis", 0), len(x.dims))
	if !ok {
		return []value{wrong("")}
	}
	if x.ints != nil && len(x.dims) == 1 && len(at.dims) <= 1 {
		if picks, ok := at.numbers(); ok {
			list := make([]element, len(picks))
			for i, p := range picks {
				k, ok := axisOf(p, len(x.ints))
				if !ok {
					return []value{wrong("")}
				}
				list[i] = x.ints[k]
			}
			return []value{ofElements(list, len(at.dims))}
		}
	}
	dims := slices.Concat(x.dims[:axis], at.dims, x.dims[axis+1:])
	switch {
	case x.form == sizes || x.form == batched && (at.form == batched || axis == x.axis):
		return []value{wrong("")}
	case x.form == batched && x.axis < axis:
		return []value{inBatch(dims, x.axis)}
	case x.form == batched:
		return []value{inBatch(dims, x.axis-1+len(at.dims))}
	case at.form == batched:
		return []value{inBatch(dims, axis+at.axis)}
	}
	return []value{{form: constant, dims: dims}}
}

// gatherElements picks along an axis that is not the batch's.
func gatherElements(c *call) []value {
	x, at := c.arg(0), c.arg(1)
	if x == nil || at == nil || x.form != batched || at.form != batched || x.axis != at.axis || len(x.dims) != len(at.dims) {
		return []value{wrong("")}
	}
	if axis, ok := axisOf(c.integer("axis", 0), len(x.dims)); !ok || axis == x.axis {
		return []value{wrong("")}
	}
	return []value{inBatch(at.dims, at.axis)}
}

// concat joins along an axis that is not the batch's, or vectors of sizes.
func concat(c *call) []value {
	var list []element
	listed := len(c.in) > 0
	for _, v := range c.in {
		if v == nil || v.dims == nil {
			return []value{wrong("")}
		}
		if listed = listed && v.ints != nil && len(v.dims) == 1; listed {
			list = append(list, v.ints...)
		}
	}
	if listed && len(list) <= maxValues {
		return []value{ofElements(list, 1)}
	}
	first := c.in[0]
	axis, ok := axisOf(c.integer("axis", 1), len(first.dims))
	if !ok {
		return []value{wrong("")}
	}
	dims := slices.Clone(first.dims)
	for _, v := range c.in[1:] {
		if v.form != first.form || len(v.dims) != len(dims) || v.form == sizes || v.form == batched && v.axis != first.axis {
			return []value{wrong("")}
		}
		if dims[axis] < 0 || v.dims[axis] < 0 {
			dims[axis] = -1
		} else {
			dims[axis] += v.dims[axis]
		}
	}
	switch {
	case first.form == constant:
		return []value{{form: constant, dims: dims}}
	case first.form != batched || axis == first.axis:
		return []value{wrong("")}
	}
	return []value{inBatch(dims, first.axis)}
}

// split cuts along an axis that is not the batch's.
func split(c *call) []value {
	x := c.arg(0)
	if x == nil || x.dims == nil || x.form == sizes || !c.constants(1) {
		return []value{wrong("")}
	}
	axis, ok := axisOf(c.integer("axis", 0), len(x.dims))
	if !ok || x.form == batched && axis == x.axis {
		return []value{wrong("")}
	}
	v := value{form: x.form, dims: slices.Clone(x.dims), axis: x.axis}
	v.dims[axis] = -1
	return []value{v}
}

// manyRows is an end beyond all rows that a batch can have, as exporters write it.
const manyRows = 1_000_000_000

// slice cuts along axes; of the batch's only what leaves it whole.
func slice(c *call) []value {
	x := c.arg(0)
	if x == nil || x.dims == nil {
		return []value{wrong("")}
	}
	from, okFrom := c.given("starts", 1)
	to, okTo := c.given("ends", 2)
	axes, given, okAxes := c.list("axes", 3)
	steps, stepped, okSteps := c.list("steps", 4)
	if !okAxes || !okSteps || from == nil || to == nil || len(from) != len(to) {
		return []value{wrong("")}
	}
	if !given {
		for i := range from {
			axes = append(axes, int64(i))
		}
	}
	if len(axes) != len(from) || stepped && len(steps) != len(from) {
		return []value{wrong("")}
	}
	if x.ints != nil && len(x.dims) == 1 && len(from) == 1 && (!stepped || steps[0] == 1) && okFrom && okTo && (axes[0] == 0 || axes[0] == -1) {
		return []value{ofElements(cut(x.ints, from[0].n, to[0].n), 1)}
	}
	v := value{form: x.form, dims: slices.Clone(x.dims), axis: x.axis}
	for i, a := range axes {
		axis, ok := axisOf(a, len(x.dims))
		whole := from[i].known && from[i].n == 0 && (to[i].batch || to[i].known && to[i].n >= manyRows) && (!stepped || steps[i] == 1)
		switch {
		case !ok || x.form == sizes:
			return []value{wrong("")}
		case x.form == batched && axis == x.axis && !whole:
			return []value{wrong("")}
		case x.form == batched && axis == x.axis:
		case from[i].varies || from[i].batch || to[i].varies || to[i].batch:
			return []value{wrong("")} // as long as there are rows
		default:
			v.dims[axis] = -1
		}
	}
	return []value{v}
}

// given returns the elements of a setting or of an input, and whether all are
// known.
func (c *call) given(name string, input int) (list []element, known bool) {
	if a := c.attributes[name]; a != nil {
		for _, n := range a.ints {
			list = append(list, element{known: true, n: n})
		}
		return list, true
	}
	if v := c.arg(input); v != nil {
		list = v.ints
	}
	return list, !slices.ContainsFunc(list, func(e element) bool { return !e.known })
}

// squeeze takes dimensions of 1 away, which must be named: that of a batch may
// be 1 too.
func squeeze(c *call) []value {
	x := c.arg(0)
	axes, given, ok := c.list("axes", 1)
	if x == nil || x.dims == nil || !ok {
		return []value{wrong("")}
	}
	if x.ints != nil && len(x.dims) <= 1 && len(x.ints) == 1 && (!given || len(axes) == len(x.dims)) {
		return []value{ofElements(x.ints, 0)}
	}
	if !given || x.form == sizes {
		return []value{wrong("")}
	}
	return []value{without(x, axes, false)}
}

// unsqueeze adds dimensions of 1.
func unsqueeze(c *call) []value {
	x := c.arg(0)
	axes, given, ok := c.list("axes", 1)
	if x == nil || x.dims == nil || !ok || !given || len(x.dims)+len(axes) > maxRank {
		return []value{wrong("")}
	}
	if x.ints != nil && len(x.dims) == 0 && len(axes) == 1 {
		return []value{ofElements(x.ints, 1)}
	}
	if x.form == sizes {
		return []value{wrong("")}
	}
	added := make([]bool, len(x.dims)+len(axes))
	for _, a := range axes {
		axis, ok := axisOf(a, len(added))
		if !ok || added[axis] {
			return []value{wrong("")}
		}
		added[axis] = true
	}
	dims, from, at := make([]int64, len(added)), 0, 0
	for i := range dims {
		if dims[i] = 1; added[i] {
			continue
		}
		if dims[i] = x.dims[from]; from == x.axis {
			at = i
		}
		from++
	}
	if x.form == constant {
		return []value{{form: constant, dims: dims}}
	}
	return []value{inBatch(dims, at)}
}

// transpose moves the batch's axis along.
func transpose(c *call) []value {
	x := c.arg(0)
	if x == nil || x.dims == nil || x.form == sizes {
		return []value{wrong("")}
	}
	n := len(x.dims)
	var perm []int64
	if a := c.attributes["perm"]; a != nil {
		perm = a.ints
	} else {
		for i := range n {
			perm = append(perm, int64(n-1-i))
		}
	}
	seen, dims, at := make([]bool, n), make([]int64, n), 0
	if len(perm) != n {
		return []value{wrong("")}
	}
	for i, p := range perm {
		if p < 0 || p >= int64(n) || seen[p] {
			return []value{wrong("")}
		}
		if seen[p], dims[i] = true, x.dims[p]; int(p) == x.axis {
			at = i
		}
	}
	if x.form == constant {
		return []value{{form: constant, dims: dims}}
	}
	return []value{inBatch(dims, at)}
}

// flatten keeps the rows where they are all that is in front.
func flatten(c *call) []value {
	x := c.arg(0)
	if x == nil || x.form != batched || x.axis != 0 || len(x.dims) == 0 {
		return []value{wrong("")}
	}
	axis := c.integer("axis", 1)
	if axis < 0 {
		axis += int64(len(x.dims))
	}
	if axis != 1 {
		return []value{wrong("")}
	}
	return []value{inBatch([]int64{-1, volume(x.dims[1:])}, 0)}
}

// volume multiplies dimensions; -1 where one is open.
func volume(dims []int64) int64 {
	n := int64(1)
	for _, d := range dims {
		if d < 0 || d > math.MaxInt32 || n > math.MaxInt32 {
			return -1
		}
		n *= d
	}
	return n
}

// best is TopK.
func best(c *call) []value {
	x := c.arg(0)
	if x == nil || x.form != batched || !c.constants(1) {
		return []value{wrong("")}
	}
	axis, ok := axisOf(c.integer("axis", -1), len(x.dims))
	if !ok || axis == x.axis {
		return []value{wrong("")}
	}
	dims := slices.Clone(x.dims)
	dims[axis] = -1
	return []value{inBatch(dims, x.axis)}
}

// oneHot adds an axis.
func oneHot(c *call) []value {
	x := c.arg(0)
	if x == nil || x.form != batched || !c.constants(1) {
		return []value{wrong("")}
	}
	axis, ok := axisOf(c.integer("axis", -1), len(x.dims)+1)
	if !ok {
		return []value{wrong("")}
	}
	at := x.axis
	if axis <= at {
		at++
	}
	return []value{inBatch(slices.Insert(slices.Clone(x.dims), axis, -1), at)}
}

// pad adds to other axes than the batch's.
func pad(c *call) []value {
	x := c.arg(0)
	pads, _, ok := c.list("pads", 1)
	if x == nil || x.form != batched || !ok || c.arg(3) != nil || !c.constants(1) || len(pads) != 2*len(x.dims) {
		return []value{wrong("")}
	}
	if pads[x.axis] != 0 || pads[x.axis+len(x.dims)] != 0 {
		return []value{wrong("")}
	}
	dims := slices.Clone(x.dims)
	for i, d := range dims {
		if more := pads[i] + pads[i+len(dims)]; more != 0 && d >= 0 {
			dims[i] = -1
		}
	}
	return []value{inBatch(dims, x.axis)}
}

// countUp is Range, which depends on nothing but its limits.
func countUp(c *call) []value {
	if !c.constants(0) {
		return []value{wrong("")}
	}
	return []value{{form: constant, dims: []int64{-1}}}
}
