package worker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"testing"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

func TestNear(t *testing.T) {
	fp32 := func(list ...float32) (b []byte) {
		for _, f := range list {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
		}
		return b
	}
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for name, test := range map[string]struct {
		a, b []byte
		kind tensor.DataType
		want bool
	}{
		"the same":             {fp32(1, nan), fp32(1, nan), tensor.FP32, true},
		"rounding":             {fp32(1000, 0.5), fp32(1000, 0.6), tensor.FP32, true},
		"more":                 {fp32(1000, 0.5), fp32(1000, 2), tensor.FP32, false},
		"infinity is a number": {fp32(inf, 1), fp32(1, 1), tensor.FP32, false},
		"no number":            {fp32(nan, 1), fp32(1, 1), tensor.FP32, false},
		"integers":             {[]byte{1}, []byte{2}, tensor.Uint8, false},
		"halves":               {[]byte{0x00, 0x3c}, []byte{0x01, 0x3c}, tensor.FP16, true},
		"other halves":         {[]byte{0x00, 0x3c}, []byte{0x00, 0x3d}, tensor.FP16, false},
		"lengths":              {fp32(1), fp32(1, 1), tensor.FP32, false},
	} {
		if got := near(test.a, test.b, test.kind); got != test.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
	for bits, want := range map[uint16]float64{0x3c00: 1, 0xc000: -2, 0x0001: math.Ldexp(1, -24), 0x7c00: math.Inf(1), 0x3555: 0.333251953125} {
		if got := half(bits); got != want {
			t.Errorf("%04x is %g, want %g", bits, got, want)
		}
	}
}

func TestWhichRunsAreChecked(t *testing.T) {
	var got []int64
	for n := range int64(600) {
		if checked(n) {
			got = append(got, n)
		}
	}
	want := []int64{8, 16, 32, 64, 128, 256, 512}
	if len(got) != len(want) || got[0] != want[0] || got[6] != want[6] {
		t.Errorf("got %v, want %v", got, want)
	}
}

// small fails at runs where a dimension is one, as engines do at pictures of one pixel.
type small struct{ runs int }

func (s *small) Metadata() channel.Metadata { return channel.Metadata{} }

func (s *small) Close() error { return nil }

func (s *small) Run(_ context.Context, in []Tensor, _ *Output) error {
	if s.runs++; in[0].Shape[2] == 1 && s.runs > 1 {
		return fmt.Errorf("%w: too small", ErrEngine)
	}
	return nil
}

func TestSelfTestOfLargerInputs(t *testing.T) {
	for open, refused := range map[int64]bool{-1: false, 1: true} {
		meta := channel.Metadata{Inputs: []tensor.Spec{{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{-1, 3, open, open}}}}
		err := SelfTest(&small{}, &meta, t.Logf)
		if (err != nil) != refused {
			t.Errorf("dimensions of %d: got %v", open, err)
		}
	}
}

// several refuses runs of one row.
type several struct{ small }

func (s *several) Run(_ context.Context, in []Tensor, _ *Output) error {
	if in[0].Shape[0] == 1 {
		return fmt.Errorf("%w: too few", ErrEngine)
	}
	return nil
}

func TestSelfTestOfTwoRows(t *testing.T) {
	for rows, refused := range map[int64]bool{-1: false, 1: true} {
		meta := channel.Metadata{Inputs: []tensor.Spec{{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{rows, 3}}}}
		err := SelfTest(&several{}, &meta, t.Logf)
		if (err != nil) != refused {
			t.Errorf("%d rows: got %v", rows, err)
		}
	}
}

// counter answers with how often it ran.
type counter struct {
	runs  byte
	small float32 // what a run adds instead, as rounding does
}

func (c *counter) Metadata() channel.Metadata {
	return channel.Metadata{Inputs: []tensor.Spec{{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{1}}}, Outputs: []tensor.Spec{{Name: "y", Type: tensor.FP32, Shape: tensor.Shape{1}}}}
}

func (c *counter) Close() error { return nil }

func (c *counter) Run(_ context.Context, _ []Tensor, out *Output) error {
	c.runs++
	y := float32(c.runs)
	if c.small != 0 {
		y = 1 + float32(c.runs)*c.small
	}
	return out.Put(tensor.Shape{1}, binary.LittleEndian.AppendUint32(nil, math.Float32bits(y)))
}

type random struct{ counter }

func (*random) Stateless() {}

// A model that keeps a state would answer one client with what another sent.
func TestSelfTestOfAState(t *testing.T) {
	for name, test := range map[string]struct {
		session Session
		refused bool
	}{"a state": {&counter{}, true}, "rounding": {&counter{small: 1e-6}, false}, "a random answer": {&random{}, false}} {
		meta := test.session.Metadata()
		if err := SelfTest(test.session, &meta, t.Logf); errors.Is(err, ErrDiffers) != test.refused || !test.refused && err != nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
