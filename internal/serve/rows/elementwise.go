package rows

import "math/bits"

// follows is the rule of an operator whose every element comes of the same
// element of its first input; the others are settings that must be constant.
func follows(c *call) []value {
	x := c.arg(0)
	if x == nil || !c.constants(1) || x.form == sizes {
		return []value{wrong("")}
	}
	v := *x
	v.ints, v.reals = nil, nil
	return []value{v}
}

// scalars is as follows, where the other inputs must be one number each: more
// would be spread over the rows.
func scalars(c *call) []value {
	for _, v := range c.in[min(1, len(c.in)):] {
		if v != nil && !v.single() {
			return []value{wrong("")}
		}
	}
	return follows(c)
}

// single reports whether a tensor has one element.
func (v *value) single() bool {
	if v.dims == nil {
		return false
	}
	for _, d := range v.dims {
		if d != 1 {
			return false
		}
	}
	return true
}

// same is the rule of operators that hand on their first input.
func same(c *call) []value {
	if x := c.arg(0); x != nil && c.constants(1) {
		return []value{*x}
	}
	return []value{wrong("")}
}

// cast keeps whole numbers what they are; those of shapes fit every type that
// counts them.
func cast(c *call) []value {
	x := c.arg(0)
	if x == nil {
		return []value{wrong("")}
	}
	v := *x
	v.reals = nil
	to := c.integer("to", 0)
	if v.ints != nil && to != typeInt32 && to != typeInt64 {
		if v.ints = nil; v.form == sizes {
			return []value{wrong("")}
		}
	}
	return []value{v}
}

// dropout is identity outside training.
func dropout(c *call) []value {
	if c.version >= 12 && c.arg(2) != nil || c.version < 7 {
		return []value{wrong("")} // it may train
	}
	return scalars(c)
}

// broadcast is the rule of operators that combine elements at the same place
// after broadcasting all their inputs.
func broadcast(c *call) []value {
	if c.attributes["broadcast"] != nil || c.attributes["axis"] != nil || c.domain == "" && c.version < 7 {
		return []value{wrong("")} // as it was before version 7
	}
	return []value{combine(c.in)}
}

// combine broadcasts tensors against each other.
func combine(in []*value) value {
	rank, fromEnd := 0, 0
	for _, v := range in {
		if v == nil || v.dims == nil || v.form == sizes || v.form == bad {
			return wrong("")
		}
		rank = max(rank, len(v.dims))
		if v.form == batched {
			if fromEnd != 0 && v.fromEnd() != fromEnd {
				return wrong("") // rows against something else of another tensor
			}
			fromEnd = v.fromEnd()
		}
	}
	dims := make([]int64, rank)
	for i := 1; i <= rank; i++ {
		d := int64(1)
		for _, v := range in {
			switch other := v.dimFromEnd(i); {
			case i == fromEnd && v.form != batched && other != 1:
				return wrong("") // of one row it would make several
			case i == fromEnd && v.form != batched:
			case other > 1 && d < 0, other != 1 && d == 1, other == 0:
				d = other
			}
		}
		// An open dimension that is 1 takes the other's size; no more is known.
		dims[rank-i] = d
	}
	if fromEnd == 0 {
		return value{form: constant, dims: dims}
	}
	return inBatch(dims, rank-fromEnd)
}

// arithmetic is broadcast, which also computes with the numbers of shapes.
func arithmetic(c *call) []value {
	a, b := c.arg(0), c.arg(1)
	if len(c.in) != 2 || a == nil || b == nil || a.ints == nil || b.ints == nil || len(a.dims) > 1 || len(b.dims) > 1 {
		return broadcast(c)
	}
	n := max(len(a.ints), len(b.ints))
	if len(a.ints) != n && len(a.ints) != 1 || len(b.ints) != n && len(b.ints) != 1 {
		return []value{wrong("")}
	}
	list := make([]element, n)
	for i := range list {
		list[i] = compute(c.op, a.ints[min(i, len(a.ints)-1)], b.ints[min(i, len(b.ints)-1)])
	}
	return []value{ofElements(list, max(len(a.dims), len(b.dims)))}
}

func compute(op string, a, b element) element {
	unknown := element{varies: a.varies || a.batch || b.varies || b.batch}
	one := func(e element) bool { return e.known && e.n == 1 }
	switch {
	case op == "Equal":
		return equal(a, b)
	case op == "Mul" && one(a):
		return b
	case (op == "Mul" || op == "Div") && one(b):
		return a
	case !a.known || !b.known:
		return unknown
	}
	small := func(n int64) bool { return n == int64(int32(n)) }
	if !small(a.n) || !small(b.n) {
		return unknown
	}
	switch op {
	case "Add":
		return element{known: true, n: a.n + b.n}
	case "Sub":
		return element{known: true, n: a.n - b.n}
	case "Mul":
		if _, lo := bits.Mul64(uint64(a.n), uint64(b.n)); small(int64(lo)) {
			return element{known: true, n: int64(lo)}
		}
	case "Div":
		if b.n > 0 && a.n >= 0 {
			return element{known: true, n: a.n / b.n}
		}
	}
	return unknown
}

// equal compares elements of shapes; the number of rows is never negative.
func equal(a, b element) element {
	if b.batch {
		a, b = b, a
	}
	switch {
	case a.known && b.known && a.n == b.n:
		return element{known: true, n: 1}
	case a.known && b.known, a.batch && b.known && b.n < 0:
		return element{known: true}
	}
	return element{varies: a.varies || a.batch || b.varies || b.batch}
}

// choose is Where, which also picks among the numbers of shapes.
func choose(c *call) []value {
	if len(c.in) != 3 || c.in[0] == nil || c.in[1] == nil || c.in[2] == nil || c.in[1].ints == nil || c.in[2].ints == nil {
		return broadcast(c)
	}
	which, ok := c.in[0].numbers()
	if !ok || len(c.in[0].dims) != 1 || len(c.in[1].ints) != len(which) || len(c.in[2].ints) != len(which) {
		return broadcast(c)
	}
	list := make([]element, len(which))
	for i, w := range which {
		if list[i] = c.in[2].ints[i]; w != 0 {
			list[i] = c.in[1].ints[i]
		}
	}
	return []value{ofElements(list, 1)}
}

// quantize is the rule of QuantizeLinear and its reverse: scale and zero point
// are constant and not one for each row.
func quantize(c *call) []value {
	x, scale := c.arg(0), c.arg(1)
	if x == nil || scale == nil || !c.constants(1) || x.dims == nil || scale.dims == nil || x.form == sizes {
		return []value{wrong("")}
	}
	if x.form == batched && !scale.single() {
		axis, ok := axisOf(c.integer("axis", 1), len(x.dims))
		if !ok || axis == x.axis || len(scale.dims) != 1 {
			return []value{wrong("")}
		}
	}
	return follows(c)
}

// quantizedPair is the rule of operators on two quantised tensors, each followed
// by its scale and zero point, as those of the result are.
func quantizedPair(c *call) []value {
	if len(c.in) < 7 {
		return []value{wrong("")}
	}
	for i, v := range c.in {
		if i != 0 && i != 3 && v != nil && (v.form != constant || !v.single()) {
			return []value{wrong("")}
		}
	}
	return []value{combine([]*value{c.in[0], c.in[3]})}
}
