package picture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	_ "image/gif"  // formats that Decode reads
	_ "image/jpeg" // likewise
	_ "image/png"  // likewise
	"io"
	"math"

	"oscine.dev/oscine/internal/tensor"
)

// Bounds of a picture.
const (
	maxBytes  = 64 << 20
	maxPixels = 64 << 20
)

// Decode reads a PNG, JPEG or GIF picture of at most 64 MiB and 64 million
// pixels.
func Decode(r io.ReadSeeker) (image.Image, error) {
	config, format, err := image.DecodeConfig(io.LimitReader(r, maxBytes))
	switch {
	case errors.Is(err, image.ErrFormat):
		return nil, errors.New("not a PNG, JPEG or GIF picture")
	case err != nil:
		return nil, fmt.Errorf("a damaged picture: %w", err)
	case config.Width <= 0 || config.Height <= 0 || config.Width > maxPixels/config.Height:
		return nil, fmt.Errorf("a picture of %d × %d pixels; at most %d are accepted", config.Width, config.Height, maxPixels)
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	img, _, err := image.Decode(io.LimitReader(r, maxBytes))
	if err != nil {
		return nil, fmt.Errorf("a damaged %s picture: %w", format, err)
	}
	return img, nil
}

// layout is where a model's input has its dimensions.
type layout struct {
	channels, height, width int
	last                    bool // channels come last (NHWC)
	shape                   tensor.Shape
}

// defaultSide is used where a model leaves its size open.
const defaultSide = 224

// layoutOf reads a model's input shape as one picture: [N,C,H,W], [N,H,W,C],
// or the same without N. C is 1 or 3.
func layoutOf(spec tensor.Spec) (layout, error) {
	dims := spec.Shape
	if len(dims) == 4 && (dims[0] == 1 || dims[0] == -1) {
		dims = dims[1:]
	}
	colour := func(d int64) bool { return d == 1 || d == 3 }
	if len(dims) != 3 || !colour(dims[0]) && !colour(dims[2]) {
		return layout{}, fmt.Errorf("input %q of shape %s is no picture: [N,C,H,W] or [N,H,W,C] with 1 or 3 channels is", spec.Name, spec.Shape)
	}
	l := layout{last: !colour(dims[0])}
	size := func(d int64) int {
		if d < 0 {
			return defaultSide
		}
		return int(d)
	}
	if l.last {
		l.height, l.width, l.channels = size(dims[0]), size(dims[1]), int(dims[2])
		l.shape = tensor.Shape{int64(l.height), int64(l.width), int64(l.channels)}
	} else {
		l.channels, l.height, l.width = int(dims[0]), size(dims[1]), size(dims[2])
		l.shape = tensor.Shape{int64(l.channels), int64(l.height), int64(l.width)}
	}
	if len(spec.Shape) == 4 {
		l.shape = append(tensor.Shape{1}, l.shape...)
	}
	if l.height <= 0 || l.width <= 0 || l.height > maxPixels/l.width {
		return layout{}, fmt.Errorf("input %q of shape %s is no picture", spec.Name, spec.Shape)
	}
	return l, nil
}

// Is reports whether an input of a model takes a picture.
func Is(spec tensor.Spec) bool {
	_, err := layoutOf(spec)
	return err == nil && takes(spec.Type)
}

// takes reports whether elements of the type hold a picture.
func takes(kind tensor.DataType) bool {
	return kind == tensor.FP32 || kind == tensor.FP64 || kind == tensor.Uint8
}

// Tensor returns the picture as one input of the model: elements row-major,
// from 0 to 1 for floating point and to 255 for UINT8, and its concrete shape.
// One channel means a written sign: see Ink. Three channels are scaled to the
// model's size as they are.
func Tensor(img image.Image, spec tensor.Spec) ([]byte, tensor.Shape, error) {
	l, err := layoutOf(spec)
	if err != nil {
		return nil, nil, err
	}
	if !takes(spec.Type) {
		return nil, nil, fmt.Errorf("input %q holds %s; a picture is sent as FP32, FP64 or UINT8", spec.Name, spec.Type)
	}
	var planes []plane
	if l.channels == 1 {
		planes = []plane{Ink(img, l.width, l.height)}
	} else {
		for c := range 3 {
			planes = append(planes, channel(img, c).scale(l.width, l.height))
		}
	}
	data := make([]byte, 0, l.width*l.height*l.channels*spec.Type.Size())
	if l.last {
		for i := range planes[0].v {
			for _, p := range planes {
				data = appendValue(data, spec.Type, p.v[i])
			}
		}
	} else {
		for _, p := range planes {
			for _, v := range p.v {
				data = appendValue(data, spec.Type, v)
			}
		}
	}
	return data, l.shape, nil
}

func appendValue(b []byte, kind tensor.DataType, v float32) []byte {
	switch kind {
	case tensor.FP64:
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(v)))
	case tensor.Uint8:
		return append(b, byte(v*255+0.5))
	}
	return binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
}
