package rows

import "slices"

// reshape keeps the rows where the new first dimension is their number, because then
// each row's elements stay together and in their place.
func reshape(c *call) []value {
	x, to := c.arg(0), c.arg(1)
	if a := c.attributes["shape"]; a != nil {
		list := make([]element, len(a.ints))
		for i, n := range a.ints {
			list[i] = element{known: true, n: n}
		}
		to = &value{form: constant, ints: list}
	}
	if x != nil && to != nil && x.ints != nil && len(to.ints) <= 1 && to.dims != nil {
		if list, ok := to.numbers(); ok && len(list) == 0 && len(x.ints) == 1 {
			return []value{ofElements(x.ints, 0)}
		} else if ok && len(list) == 1 && (list[0] == -1 || list[0] == int64(len(x.ints))) {
			return []value{ofElements(x.ints, 1)}
		}
	}
	if x == nil || to == nil || to.ints == nil || x.form == sizes || len(to.ints) > maxRank {
		return []value{wrong("")}
	}
	dims, ok := asShape(to.ints)
	if x.form == constant {
		if !ok || slices.ContainsFunc(to.ints, func(e element) bool { return e.batch || e.varies || e.known && e.n <= 0 }) {
			return []value{wrong("")}
		}
		return []value{{form: constant, dims: dims}}
	}
	if !ok || x.axis != 0 || len(x.dims) == 0 || len(dims) == 0 || c.integer("allowzero", 0) != 0 {
		return []value{wrong("")}
	}
	// A zero copies the dimension of x at that place.
	for i, e := range to.ints {
		if i > 0 && e.known && e.n == 0 {
			if i >= len(x.dims) {
				return []value{wrong("")}
			}
			dims[i] = x.dims[i]
		}
	}
	rest, had := volume(dims[1:]), volume(x.dims[1:])
	switch first := to.ints[0]; {
	case first.batch, first.known && first.n == 0:
	case first.known && first.n == -1 && rest > 0 && rest == had:
	default:
		return []value{wrong("")}
	}
	for _, e := range to.ints[1:] {
		if e.batch || e.varies {
			return []value{wrong("")} // the rows twice
		}
	}
	infer(dims, to.ints, had)
	return []value{inBatch(dims, 0)}
}

// infer finds the dimension that -1 stands for, where all others of a row are
// known and a row has had elements.
func infer(dims []int64, asked []element, had int64) {
	at, others := -1, slices.Clone(dims)
	for i, e := range asked {
		if i > 0 && e.known && e.n == -1 {
			at, others[i] = i, 1
		}
	}
	if at < 0 {
		return
	}
	if known := volume(others[1:]); known > 0 && had > 0 && had%known == 0 {
		dims[at] = had / known
	}
}

// asShape makes elements dimensions, open where they are not known.
func asShape(list []element) ([]int64, bool) {
	dims := make([]int64, len(list))
	for i, e := range list {
		if dims[i] = -1; e.known {
			dims[i] = max(e.n, -1)
			if e.n < -1 {
				return nil, false
			}
		}
	}
	return dims, true
}

// expand spreads a tensor over a shape, in which the rows are where they were,
// or where there was one.
func expand(c *call) []value {
	x, to := c.arg(0), c.arg(1)
	if x == nil || to == nil || x.dims == nil || to.ints == nil || x.form == sizes {
		return []value{wrong("")}
	}
	shape, ok := shaped(to.ints)
	if !ok {
		return []value{wrong("")}
	}
	return []value{combine([]*value{x, &shape})}
}

// shaped returns a tensor of a shape that is the same for all rows.
func shaped(list []element) (value, bool) {
	dims, ok := asShape(list)
	at := -1
	for i, e := range list {
		switch {
		case e.varies, e.batch && at >= 0, e.known && e.n < 0:
			return value{}, false
		case e.batch:
			at = i
		}
	}
	if !ok || len(list) > maxRank {
		return value{}, false
	}
	if at >= 0 {
		return inBatch(dims, at), true
	}
	return value{form: constant, dims: dims}, true
}

// fill is ConstantOfShape.
func fill(c *call) []value {
	to := c.arg(0)
	if to == nil || to.ints == nil {
		return []value{wrong("")}
	}
	// A vector that other shapes are computed from.
	if list, ok := to.numbers(); ok && len(list) == 1 && list[0] >= 0 && list[0] <= maxValues {
		if a := c.attributes["value"]; a != nil && a.tensor != nil && len(a.tensor.ints) == 1 {
			return []value{ofElements(slices.Repeat(a.tensor.ints, int(list[0])), 1)}
		}
	}
	v, ok := shaped(to.ints)
	if !ok {
		return []value{wrong("")}
	}
	return []value{v}
}

// tile repeats each row's own data.
func tile(c *call) []value {
	x, times := c.arg(0), c.arg(1)
	if x == nil || times == nil || x.form != batched {
		return []value{wrong("")}
	}
	list, ok := times.numbers()
	if !ok || len(list) != len(x.dims) || list[x.axis] != 1 {
		return []value{wrong("")}
	}
	return []value{inBatch(open(len(list)), x.axis)}
}
