package picture

import (
	"image"
	"math"
)

// plane is one channel of a picture, values from 0 to 1, row by row.
type plane struct {
	w, h int
	v    []float32
}

func newPlane(w, h int) plane { return plane{w, h, make([]float32, w*h)} }

// over puts a colour on white paper where it is transparent; c is 0 for red, 1
// green, 2 blue, 3 for grey (Rec. 601 luma).
func over(img image.Image, x, y, c int) float32 {
	r, g, b, a := img.At(x, y).RGBA() // 16 bits, multiplied by alpha
	white := float32(0xffff - a)
	rgb := [3]float32{float32(r) + white, float32(g) + white, float32(b) + white}
	if c < 3 {
		return rgb[c] / 0xffff
	}
	return (0.299*rgb[0] + 0.587*rgb[1] + 0.114*rgb[2]) / 0xffff
}

func channel(img image.Image, c int) plane {
	bounds := img.Bounds()
	p := newPlane(bounds.Dx(), bounds.Dy())
	i := 0
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			p.v[i] = min(1, max(0, over(img, x, y, c)))
			i++
		}
	}
	return p
}

// scale fits the whole plane to w × h.
func (p plane) scale(w, h int) plane {
	return p.window(0, 0, float64(p.w), float64(p.h), w, h)
}

// window fits the part of the plane from (x, y), w0 × h0 large, to w × h by
// averaging over areas, or between pixels where it grows. What lies outside
// the plane is 0.
func (p plane) window(x, y, w0, h0 float64, w, h int) plane {
	out := newPlane(w, h)
	columns := weights(x, w0, w, p.w)
	rows := weights(y, h0, h, p.h)
	for j, row := range rows {
		for i, column := range columns {
			var sum float64
			for _, a := range row {
				line := p.v[a.at*p.w:]
				for _, b := range column {
					sum += a.weight * b.weight * float64(line[b.at])
				}
			}
			out.v[j*w+i] = float32(sum)
		}
	}
	return out
}

// share is how much of a pixel goes into another.
type share struct {
	at     int
	weight float64
}

// weights divides [from, from+length) into n parts and says which of the
// pixels 0…limit-1 each part covers. Parts smaller than a pixel are widened to
// one, which blends neighbours.
func weights(from, length float64, n, limit int) [][]share {
	parts := make([][]share, n)
	step := length / float64(n)
	wide := max(step, 1)
	for i := range parts {
		middle := from + (float64(i)+0.5)*step
		begin, end := middle-wide/2, middle+wide/2
		for at := max(0, int(math.Floor(begin))); at < limit && float64(at) < end; at++ {
			overlap := min(end, float64(at+1)) - max(begin, float64(at))
			if overlap > 0 {
				parts[i] = append(parts[i], share{at, overlap / wide})
			}
		}
	}
	return parts
}
