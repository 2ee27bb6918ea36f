package tensor

import (
	"slices"
	"testing"
)

func TestConcrete(t *testing.T) {
	for name, test := range map[string]struct {
		spec  Spec
		want  Shape
		bytes int
	}{
		"fixed":    {Spec{Type: FP32, Shape: Shape{2, 3}}, Shape{2, 3}, 24},
		"open":     {Spec{Type: FP32, Shape: Shape{-1, -1, 3}}, Shape{4, 5, 3}, 240},
		"a scalar": {Spec{Type: Int64, Shape: Shape{}}, Shape{}, 8},
		"any rank": {Spec{Type: Uint8, AnyRank: true}, Shape{4}, 4},
		"strings":  {Spec{Type: Bytes, Shape: Shape{-1}}, Shape{4}, 16},
	} {
		got := test.spec.Concrete(4, 5)
		n, err := test.spec.LeastBytes(got)
		if !slices.Equal(got, test.want) || n != test.bytes || err != nil {
			t.Errorf("%s: got %s of %d bytes, %v; want %s of %d", name, got, n, err, test.want, test.bytes)
		}
		if err := test.spec.Accepts(got); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if a, b := (Spec{AnyRank: true}), (Spec{}); a.Equal(b) || !a.Equal(a) {
		t.Error("any rank and a scalar are taken for one")
	}
}

func TestOpenShapes(t *testing.T) {
	for _, test := range []struct {
		a, b                  Shape
		matches, sameElements bool
	}{
		{Shape{}, Shape{1, 1}, false, true},
		{Shape{-1, 3}, Shape{-1, 3}, true, true},
		{Shape{-1, 3}, Shape{2, -1}, true, false},
		{Shape{-1, 3}, Shape{-1, 1, 3}, false, true},
		{Shape{-1, 3}, Shape{3, 3}, true, false},
		{Shape{2, 3}, Shape{3, 2}, false, true},
		{Shape{-2}, Shape{-2}, true, false},
		{Shape{MaxBytes, 2}, Shape{MaxBytes, 2}, true, false}, // larger than any tensor
	} {
		if got := test.a.Matches(test.b); got != test.matches {
			t.Errorf("%s matches %s: %v", test.a, test.b, got)
		}
		if got := test.a.SameElements(test.b); got != test.sameElements {
			t.Errorf("%s has the same elements as %s: %v", test.a, test.b, got)
		}
	}
}
