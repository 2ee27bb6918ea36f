package rows

// softmax works along one axis, or before version 13 along all from one on.
func softmax(c *call) []value {
	x := c.arg(0)
	if x == nil || x.dims == nil {
		return []value{wrong("")}
	}
	along := c.domain == "" && c.version >= 13
	otherwise := int64(-1)
	if !along {
		otherwise = 1
	}
	axis, ok := axisOf(c.integer("axis", otherwise), len(x.dims))
	if !ok || x.form == batched && (along && axis == x.axis || !along && x.axis >= axis) {
		return []value{wrong("")}
	}
	return follows(c)
}

// alongAxis is the rule of operators that work along one axis, which has a
// default, and keep the shape.
func alongAxis(otherwise int64) rule {
	return func(c *call) []value {
		x := c.arg(0)
		if x == nil || x.dims == nil {
			return []value{wrong("")}
		}
		axis, ok := axisOf(c.integer("axis", otherwise), len(x.dims))
		if !ok || x.form == batched && axis == x.axis {
			return []value{wrong("")}
		}
		return follows(c)
	}
}

// cumulate sums up along an axis that is an input.
func cumulate(c *call) []value {
	x, axes := c.arg(0), c.arg(1)
	if x == nil || axes == nil || x.dims == nil {
		return []value{wrong("")}
	}
	list, ok := axes.numbers()
	if !ok || len(list) != 1 {
		return []value{wrong("")}
	}
	axis, ok := axisOf(list[0], len(x.dims))
	if !ok || x.form == batched && axis == x.axis {
		return []value{wrong("")}
	}
	return follows(c)
}

// reduce is the rule of reductions over axes.
func reduce(c *call) []value {
	x := c.arg(0)
	axes, given, ok := c.list("axes", 1)
	if x == nil || x.dims == nil || x.form == sizes || !ok {
		return []value{wrong("")}
	}
	if !given || len(axes) == 0 {
		return []value{wrong("")} // over all axes, rows among them
	}
	return []value{without(x, axes, c.integer("keepdims", 1) != 0)}
}

// extreme is the rule of ArgMax and ArgMin.
func extreme(c *call) []value {
	x := c.arg(0)
	if x == nil || x.dims == nil || x.form == sizes {
		return []value{wrong("")}
	}
	return []value{without(x, []int64{c.integer("axis", 0)}, c.integer("keepdims", 1) != 0)}
}

// without returns what is left of x when axes are reduced.
func without(x *value, axes []int64, keep bool) value {
	gone := make([]bool, len(x.dims))
	for _, a := range axes {
		axis, ok := axisOf(a, len(x.dims))
		if !ok || gone[axis] || x.form == batched && axis == x.axis {
			return wrong("")
		}
		gone[axis] = true
	}
	dims, at := []int64{}, 0
	for i, d := range x.dims {
		if i == x.axis {
			at = len(dims)
		}
		switch {
		case !gone[i]:
			dims = append(dims, d)
		case keep:
			dims = append(dims, 1)
		}
	}
	if x.form == constant {
		return value{form: constant, dims: dims}
	}
	return inBatch(dims, at)
}

// multiply is the rule of MatMul and of those that take scales behind it.
func multiply(c *call) []value {
	if len(c.in) < 2 || !c.constants(2) {
		return []value{wrong("")}
	}
	return []value{product(c.in[0], c.in[1])}
}

// quantizedMultiply is MatMulInteger: zero points are constant, and one for each
// row of a batch there cannot be.
func quantizedMultiply(c *call) []value {
	for i := 2; i < len(c.in); i++ {
		if v := c.in[i]; v != nil && !v.single() && i != 3 {
			return []value{wrong("")}
		}
	}
	return multiply(c)
}

// quantizedProduct is QLinearMatMul: a, its scale and zero point, b and its, and
// those of the result.
func quantizedProduct(c *call) []value {
	if len(c.in) < 8 {
		return []value{wrong("")}
	}
	for i, v := range c.in {
		if i != 0 && i != 3 && (v == nil || v.form != constant || !v.single() && i != 4 && i != 5) {
			return []value{wrong("")}
		}
	}
	return []value{product(c.in[0], c.in[3])}
}

// product multiplies matrices, which may be stacked.
func product(a, b *value) value {
	if a == nil || b == nil || a.dims == nil || b.dims == nil || len(a.dims) < 2 || len(b.dims) < 2 || a.form == sizes || b.form == sizes {
		return wrong("")
	}
	rank := max(len(a.dims), len(b.dims))
	dims := open(rank)
	dims[rank-1], dims[rank-2] = b.dimFromEnd(1), a.dimFromEnd(2)
	fromEnd := 0
	switch {
	case a.form == batched && b.form == batched:
		if fromEnd = a.fromEnd(); fromEnd != b.fromEnd() || fromEnd <= 2 {
			return wrong("")
		}
	case a.form == batched:
		fromEnd = a.fromEnd()
		if fromEnd == 1 || fromEnd > 2 && b.dimFromEnd(fromEnd) != 1 {
			return wrong("")
		}
	case b.form == batched:
		fromEnd = b.fromEnd()
		if fromEnd == 2 || fromEnd > 2 && a.dimFromEnd(fromEnd) != 1 {
			return wrong("")
		}
	default:
		return value{form: constant, dims: dims}
	}
	return inBatch(dims, rank-fromEnd)
}

// gemm is a product of two matrices and a sum.
func gemm(c *call) []value {
	a, b := c.arg(0), c.arg(1)
	if a == nil || b == nil || a.form != batched || b.form != constant || len(a.dims) != 2 || len(b.dims) != 2 {
		return []value{wrong("")}
	}
	// The axis of a that is summed over is the other one.
	if transposed := c.integer("transA", 0) != 0; transposed != (a.axis == 1) {
		return []value{wrong("")}
	}
	width := b.dims[1]
	if c.integer("transB", 0) != 0 {
		width = b.dims[0]
	}
	out := inBatch([]int64{-1, width}, 0)
	if bias := c.arg(2); bias != nil {
		if out = combine([]*value{&out, bias}); out.form == batched && len(out.dims) != 2 {
			out = wrong("")
		}
	}
	return []value{out}
}

// images is the rule of operators on a stack of images, or of any tensors with
// the stack's index first and the channel second, whose other inputs are weights.
func images(c *call) []value { return []value{c.stack(), wrong("")} }

// imagesAll is as images, where all outputs are stacks.
func imagesAll(c *call) []value { return []value{c.stack()} }

func (c *call) stack() value {
	x := c.arg(0)
	if x == nil || x.form != batched || x.axis != 0 || len(x.dims) < 2 || !c.constants(1) {
		return wrong("")
	}
	return inBatch(open(len(x.dims)), 0)
}

// convolve knows how many channels come out.
func convolve(weights int) rule {
	return func(c *call) []value {
		out, w := c.stack(), c.arg(weights)
		if out.form == batched && w != nil && len(w.dims) == len(out.dims) {
			out.dims[1] = w.dims[0]
		}
		return []value{out}
	}
}

// channels is the rule of operators that keep the shape of a stack.
func channels(c *call) []value {
	out := c.stack()
	if out.form == batched {
		out.dims = c.in[0].dims
	}
	return []value{out, wrong("")}
}

// global is the rule of pooling over whole images.
func global(c *call) []value {
	out := c.stack()
	if out.form == batched {
		for i := range out.dims {
			out.dims[i] = 1
		}
		out.dims[1] = c.in[0].dims[1]
		out = inBatch(out.dims, 0)
	}
	return []value{out}
}

// normalize is batch normalisation with figures from training. Before version 14
// it trains where more than its first output is asked for.
func normalize(c *call) []value {
	if c.version < 7 || c.version < 14 && len(c.node.outputs) > 1 || c.integer("training_mode", 0) != 0 {
		return []value{wrong("")}
	}
	return channels(c)
}

// layerNormalize works along all axes from one on. Only its first output is
// followed.
func layerNormalize(c *call) []value {
	x := c.arg(0)
	if x == nil || x.dims == nil {
		return []value{wrong("")}
	}
	axis, ok := axisOf(c.integer("axis", -1), len(x.dims))
	if !ok || x.form == batched && x.axis >= axis {
		return []value{wrong("")}
	}
	for _, v := range c.in[1:] {
		if v != nil && (v.dims == nil || x.form == batched && len(v.dims) > len(x.dims)-axis) {
			return []value{wrong("")}
		}
	}
	return []value{follows(c)[0], wrong("")}
}

// recur is the rule of LSTM, GRU and RNN over [sequence, batch, input].
func recur(c *call) []value {
	x := c.arg(0)
	if x == nil || x.form != batched || len(x.dims) != 3 || x.axis != 1 || c.integer("layout", 0) != 0 {
		return []value{wrong("")}
	}
	for i, v := range c.in[1:] {
		switch {
		case v == nil:
		case i+1 >= 4 && i+1 <= 6 && v.form == batched: // where the sequences end, and what was before
			if want := min(i+1-4, 1); v.axis != want {
				return []value{wrong("")}
			}
		case v.form != constant, i+1 >= 4 && i+1 <= 6:
			return []value{wrong("")}
		}
	}
	if c.op != "LSTM" && c.arg(6) != nil {
		return []value{wrong("")}
	}
	state := inBatch(open(3), 1)
	return []value{inBatch(open(4), 2), state, state}
}

// resize scales images, but not along the batch.
func resize(c *call) []value {
	x := c.arg(0)
	if x == nil || x.form != batched || x.axis != 0 || !c.plainResize() {
		return []value{wrong("")}
	}
	scales, extent := c.arg(2), c.arg(3)
	if c.op == "Upsample" || c.version < 11 {
		scales, extent = c.arg(1), nil
	}
	if a := c.attributes["scales"]; a != nil {
		scales = &value{form: constant, reals: a.reals}
	}
	keeps := func() bool {
		switch {
		case extent != nil && len(extent.ints) > 0:
			return len(extent.ints) == len(x.dims) && extent.ints[0].batch
		case scales != nil && len(scales.reals) > 0:
			return len(scales.reals) == len(x.dims) && scales.reals[0] == 1
		}
		return false
	}
	if !keeps() {
		return []value{wrong("")}
	}
	return []value{inBatch(open(len(x.dims)), 0)}
}

// plainResize reports whether nothing but the sizes decides how it scales.
func (c *call) plainResize() bool {
	roi := c.arg(1)
	return c.attributes["axes"] == nil && c.text("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize" &&
		c.text("keep_aspect_ratio_policy", "stretch") == "stretch" && (roi == nil || roi.form == constant)
}

// table is the rule of classical models over [rows, features].
func table(ranks ...int) rule {
	return func(c *call) []value {
		x := c.arg(0)
		if x == nil || x.form != batched || x.axis != 0 || len(x.dims) != 2 || !c.constants(1) {
			return []value{wrong("")}
		}
		out := make([]value, len(ranks))
		for i, rank := range ranks {
			out[i] = inBatch(open(rank), 0)
		}
		return append(out, wrong(""))
	}
}
