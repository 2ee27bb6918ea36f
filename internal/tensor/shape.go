package tensor

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxRank is the largest number of dimensions that Oscine accepts.
const MaxRank = 16

// MaxBytes is the largest tensor that Oscine accepts, in bytes.
const MaxBytes = 1 << 30

// Shape is a tensor's dimensions; -1 in a model's metadata is a dimension
// that each request chooses.
type Shape []int64

// String writes the shape as the protocol does: [-1,1,28,28].
func (s Shape) String() string {
	var b strings.Builder
	b.WriteByte('[')
	for i, d := range s {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(d, 10))
	}
	b.WriteByte(']')
	return b.String()
}

// ErrShape is wrapped by every refusal of a shape.
var ErrShape = errors.New("wrong shape")

// Bytes returns the size of a tensor of this concrete shape. It fails with
// ErrShape for a negative dimension, more than MaxRank dimensions, more than
// MaxBytes bytes, and a type whose elements have no fixed size.
func (s Shape) Bytes(d DataType) (int, error) {
	if len(s) > MaxRank {
		return 0, fmt.Errorf("%w: %d dimensions, at most %d are accepted", ErrShape, len(s), MaxRank)
	}
	if d.Size() == 0 {
		return 0, fmt.Errorf("%w: the size of %s does not follow from the shape", ErrShape, d)
	}
	n, empty := int64(d.Size()), false
	for _, dim := range s {
		switch {
		case dim < 0:
			return 0, fmt.Errorf("%w: %s has a negative dimension", ErrShape, s)
		case dim == 0:
			empty = true
		case dim > MaxBytes/n:
			return 0, fmt.Errorf("%w: %s of %s is more than %d bytes", ErrShape, s, d, MaxBytes)
		default:
			n *= dim
		}
	}
	if empty {
		return 0, nil
	}
	return int(n), nil
}

// Elements returns how many elements a tensor of this concrete shape has. It
// fails with ErrShape as Bytes does.
func (s Shape) Elements() (int, error) { return s.Bytes(Uint8) }

// Accepts checks a concrete shape against the model's shape s. Dimensions of
// -1 in s accept anything but negative numbers.
func (s Shape) Accepts(got Shape) error {
	if len(got) != len(s) {
		return fmt.Errorf("%w: got %s, want %s", ErrShape, got, s)
	}
	for i, want := range s {
		if got[i] < 0 || (want >= 0 && got[i] != want) {
			return fmt.Errorf("%w: got %s, want %s", ErrShape, got, s)
		}
	}
	return nil
}

// Matches reports whether a concrete shape can be of both; -1 is any number in either.
func (s Shape) Matches(other Shape) bool {
	return slices.EqualFunc(s, other, func(a, b int64) bool { return a < 0 || b < 0 || a == b })
}

// SameElements reports whether s and another shape can be of the same elements: both
// have as many dimensions of -1, and as many elements in the others.
func (s Shape) SameElements(other Shape) bool {
	concrete := func(s Shape) Shape { return slices.DeleteFunc(slices.Clone(s), func(d int64) bool { return d == -1 }) }
	a, b := concrete(s), concrete(other)
	m, err := a.Elements()
	n, err2 := b.Elements()
	return err == nil && err2 == nil && m == n && len(s)-len(a) == len(other)-len(b)
}

// Spec is the name, type and shape of one input or output of a model.
type Spec struct {
	Name    string
	Type    DataType
	Shape   Shape
	AnyRank bool // the model does not say how many dimensions there are; Shape is empty
}

// Find is the index of the spec of a name, or -1.
func Find(specs []Spec, name string) int {
	return slices.IndexFunc(specs, func(s Spec) bool { return s.Name == name })
}

// Accepts checks a concrete shape against what the model says.
func (s *Spec) Accepts(got Shape) error {
	if !s.AnyRank {
		return s.Shape.Accepts(got)
	}
	_, err := got.Elements()
	return err
}

// Dimensions are those that a client is told, of which -1 are any number. One
// alone stands for any rank, for no protocol has a word for that.
func (s *Spec) Dimensions() []int64 {
	if s.AnyRank {
		return []int64{-1}
	}
	return append([]int64{}, s.Shape...)
}

// Equal reports whether two inputs or outputs are the same to a client.
func (s Spec) Equal(other Spec) bool {
	return s.Name == other.Name && s.Type == other.Type && s.AnyRank == other.AnyRank && slices.Equal(s.Shape, other.Shape)
}

// Concrete returns a shape that the model accepts: first stands for an open first
// dimension, open for each other one. Of any rank it is one dimension.
func (s *Spec) Concrete(first, open int64) Shape {
	shape := slices.Clone(s.Shape)
	if s.AnyRank {
		shape = Shape{-1}
	}
	for i, d := range shape {
		if d < 0 {
			shape[i] = open
			if i == 0 {
				shape[i] = first
			}
		}
	}
	return shape
}

// LeastBytes returns how many bytes a tensor of this concrete shape has at least:
// strings may have none but their lengths. It fails with ErrShape as Shape.Bytes
// does.
func (s *Spec) LeastBytes(shape Shape) (int, error) {
	if s.Type == Bytes {
		return shape.Bytes(Uint32)
	}
	return shape.Bytes(s.Type)
}
