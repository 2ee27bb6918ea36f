package rows

import "slices"

// form is what is known of how a tensor depends on the batch.
type form int

const (
	bad      form = iota // it may hold one row's data in another's place
	constant             // neither the rows nor their number change it
	sizes                // integers; the number of rows may change them, the rows' data do not
	batched              // slice i along the axis depends on row i alone, and there are as many as rows
)

// value is what is known of a tensor.
type value struct {
	form form
	dims []int64   // -1: open, but the same for all requests of a batch; nil: not even the rank is known
	axis int       // of the batch, when batched; its dimension counts as open
	ints []element // the elements of a scalar or vector of integers; nil: not known
	// reals are the elements of a small constant vector of floats.
	reals []float64
	why   string // it is bad
}

// element is an integer of a shape. It is a number, the number of rows, or
// neither.
type element struct {
	known bool
	n     int64
	batch bool
	// varies means that the number of rows may change it. Without it, and not
	// known, it is one that all requests of a batch have in common.
	varies bool
}

func wrong(why string) value { return value{form: bad, why: why} }

// ofElements returns a scalar or a vector of integers.
func ofElements(list []element, rank int) value {
	v := value{form: constant, ints: list, dims: []int64{}}
	if rank == 1 {
		v.dims = []int64{int64(len(list))}
	}
	if slices.ContainsFunc(list, func(e element) bool { return e.batch || e.varies }) {
		v.form = sizes
	}
	return v
}

// fromEnd is how far the batch's axis is from the last, counted from 1.
func (v *value) fromEnd() int { return len(v.dims) - v.axis }

// dimFromEnd is a dimension counted from the last, 1, and 1 where broadcasting
// adds it.
func (v *value) dimFromEnd(i int) int64 {
	if i > len(v.dims) {
		return 1
	}
	return v.dims[len(v.dims)-i]
}

// inBatch returns a batched tensor.
func inBatch(dims []int64, axis int) value {
	dims = slices.Clone(dims)
	dims[axis] = -1
	return value{form: batched, dims: dims, axis: axis}
}

// open returns dimensions of which only the number is known.
func open(rank int) []int64 {
	dims := make([]int64, rank)
	for i := range dims {
		dims[i] = -1
	}
	return dims
}

// numbers returns the elements where all are known.
func (v *value) numbers() ([]int64, bool) {
	if v.form != constant || v.ints == nil {
		return nil, false
	}
	list := make([]int64, len(v.ints))
	for i, e := range v.ints {
		if !e.known {
			return nil, false
		}
		list[i] = e.n
	}
	return list, true
}

// axisOf makes an axis count from the first.
func axisOf(axis int64, rank int) (int, bool) {
	if axis < 0 {
		axis += int64(rank)
	}
	return int(axis), axis >= 0 && axis < int64(rank)
}
