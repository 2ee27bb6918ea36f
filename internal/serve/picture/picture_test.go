package picture

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/color"
	"image/png"
	"math"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/tensor"
)

// bar paints an upright bar of 10 × 40 pixels at (x, y).
func bar(w, h, x, y int, ground, ink color.Color) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for j := range h {
		for i := range w {
			img.Set(i, j, ground)
			if i >= x && i < x+10 && j >= y && j < y+40 {
				img.Set(i, j, ink)
			}
		}
	}
	return img
}

func TestInk(t *testing.T) {
	want := Ink(bar(100, 100, 45, 30, color.Black, color.White), 28, 28)
	if want.v[14*28+14] < 0.95 || want.v[14*28+4] > 0.05 || want.v[1*28+14] > 0.05 || want.v[6*28+14] < 0.7 {
		t.Fatalf("a bar of 20 rows should be in the middle: %v", want.v)
	}
	transparent := bar(100, 100, 45, 30, color.Transparent, color.Black)
	speck := bar(100, 100, 45, 30, color.Black, color.White)
	for i := range 3 {
		speck.Set(5+i, 5, color.White)
	}
	for name, img := range map[string]image.Image{
		"dark on light":  bar(100, 100, 45, 30, color.White, color.Black),
		"grey on grey":   bar(100, 100, 45, 30, color.Gray{90}, color.Gray{160}),
		"in a corner":    bar(300, 90, 7, 45, color.Black, color.White),
		"transparent":    transparent,
		"speck of noise": speck,
	} {
		got := Ink(img, 28, 28)
		var off float64
		for i := range got.v {
			off += math.Abs(float64(got.v[i] - want.v[i]))
		}
		if off/784 > 0.04 {
			t.Errorf("%s: differs by %.3f a pixel from white on black", name, off/784)
		}
	}
	if empty := Ink(image.NewGray(image.Rect(0, 0, 9, 9)), 28, 28); empty.v[0] != 0 || empty.v[400] != 0 {
		t.Error("an empty picture should stay empty")
	}
}

func TestTensor(t *testing.T) {
	img := bar(64, 64, 27, 12, color.NRGBA{255, 0, 0, 255}, color.NRGBA{0, 255, 0, 255})
	for _, test := range []struct {
		spec  tensor.Spec
		shape string // or the error
		bytes int
	}{
		{tensor.Spec{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{-1, 1, 28, 28}}, "[1,1,28,28]", 4 * 784},
		{tensor.Spec{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{1, 3, 8, 16}}, "[1,3,8,16]", 4 * 3 * 8 * 16},
		{tensor.Spec{Name: "x", Type: tensor.Uint8, Shape: tensor.Shape{8, 16, 3}}, "[8,16,3]", 3 * 8 * 16},
		{tensor.Spec{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{-1, 3, -1, -1}}, "[1,3,224,224]", 4 * 3 * 224 * 224},
		{tensor.Spec{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{1, 784}}, "is no picture", 0},
		{tensor.Spec{Name: "x", Type: tensor.Int64, Shape: tensor.Shape{1, 1, 28, 28}}, "holds INT64", 0},
		{tensor.Spec{Name: "x", Type: tensor.FP32, Shape: tensor.Shape{1, 3, 1 << 29, 1 << 29}}, "is no picture", 0},
	} {
		data, shape, err := Tensor(img, test.spec)
		if err != nil {
			if !strings.Contains(err.Error(), test.shape) {
				t.Errorf("%s: %v", test.spec.Shape, err)
			}
			continue
		}
		if shape.String() != test.shape || len(data) != test.bytes {
			t.Errorf("%s: got %s with %d bytes, want %s with %d", test.spec.Shape, shape, len(data), test.shape, test.bytes)
		}
	}
	data, _, err := Tensor(img, tensor.Spec{Type: tensor.FP32, Shape: tensor.Shape{1, 3, 8, 8}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []float32{1, 0, 0} { // the red corner, plane after plane
		if got := math.Float32frombits(binary.LittleEndian.Uint32(data[4*64*i:])); got != want {
			t.Errorf("corner, channel %d: got %g, want %g", i, got, want)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	var good bytes.Buffer
	if err := png.Encode(&good, bar(20, 20, 5, 5, color.Black, color.White)); err != nil {
		t.Fatal(err)
	}
	huge := bytes.Clone(good.Bytes())
	copy(huge[16:], []byte{0x7f, 0, 0, 0, 0x7f, 0, 0, 0})
	for name, test := range map[string]struct {
		raw  []byte
		want string
	}{
		"good":    {good.Bytes(), ""},
		"text":    {[]byte("hello"), "not a PNG"},
		"cut off": {good.Bytes()[:40], "damaged"},
		"huge":    {huge, ""},
	} {
		_, err := Decode(bytes.NewReader(test.raw))
		if (err == nil) != (name == "good") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}
