package picture

import (
	"image"
	"slices"
)

// inkPart is how much of the shorter side the ink's longer side takes.
const inkPart = 20.0 / 28

// Ink returns a picture of a written sign as networks for signs are trained:
// grey, light ink on dark ground whatever it was, from 0 (ground) to 1 (ink),
// and the ink in the middle at a size that leaves a margin.
func Ink(img image.Image, w, h int) plane {
	p := channel(img, 3)
	ground := p.ground()
	darkest, lightest := p.quantile(0.005), p.quantile(0.995)
	peak := lightest
	if ground-darkest > lightest-ground {
		peak = darkest // dark ink on light paper
	}
	span := peak - ground
	if span > -0.02 && span < 0.02 {
		return newPlane(w, h) // an empty picture
	}
	for i, v := range p.v {
		p.v[i] = min(1, max(0, (v-ground)/span))
	}
	box := p.inkBox()
	longer := float64(max(box.Dx(), box.Dy()))
	side := longer / inkPart
	scale := side / float64(min(w, h))
	ww, hh := scale*float64(w), scale*float64(h)
	cx := float64(box.Min.X+box.Max.X) / 2
	cy := float64(box.Min.Y+box.Max.Y) / 2
	return p.window(cx-ww/2, cy-hh/2, ww, hh, w, h)
}

// ground is the median of the picture's border.
func (p plane) ground() float32 {
	var border []float32
	for x := range p.w {
		border = append(border, p.v[x], p.v[(p.h-1)*p.w+x])
	}
	for y := range p.h {
		border = append(border, p.v[y*p.w], p.v[y*p.w+p.w-1])
	}
	slices.Sort(border)
	return border[len(border)/2]
}

// quantile takes at most some ten thousand pixels into account.
func (p plane) quantile(q float64) float32 {
	step := max(1, len(p.v)/20_000)
	sample := make([]float32, 0, len(p.v)/step+1)
	for i := 0; i < len(p.v); i += step {
		sample = append(sample, p.v[i])
	}
	slices.Sort(sample)
	return sample[int(q*float64(len(sample)-1)+0.5)]
}

// inkBox returns the smallest rectangle around the ink. Specks of noise are
// left out: the plane is smoothed first, and connected areas much smaller than
// the largest do not count.
func (p plane) inkBox() image.Rectangle {
	// A coarse copy of at most 96 pixels is smooth enough and quick.
	coarse, factor := p, 1.0
	if longer := max(p.w, p.h); longer > 96 {
		factor = float64(longer) / 96
		coarse = p.scale(max(1, int(float64(p.w)/factor)), max(1, int(float64(p.h)/factor)))
	}
	areas := coarse.smooth().areas(0.4)
	largest := 0
	for _, a := range areas {
		largest = max(largest, a.pixels)
	}
	var box image.Rectangle
	for _, a := range areas {
		if a.pixels*12 >= largest {
			box = box.Union(a.box)
		}
	}
	if box.Empty() {
		return image.Rect(0, 0, p.w, p.h)
	}
	sx, sy := float64(p.w)/float64(coarse.w), float64(p.h)/float64(coarse.h)
	return image.Rect(int(float64(box.Min.X)*sx), int(float64(box.Min.Y)*sy), int(float64(box.Max.X)*sx+0.5), int(float64(box.Max.Y)*sy+0.5))
}

// smooth averages each pixel with its eight neighbours.
func (p plane) smooth() plane {
	out := newPlane(p.w, p.h)
	for y := range p.h {
		for x := range p.w {
			var sum, n float32
			for j := max(0, y-1); j <= min(p.h-1, y+1); j++ {
				for i := max(0, x-1); i <= min(p.w-1, x+1); i++ {
					sum += p.v[j*p.w+i]
					n++
				}
			}
			out.v[y*p.w+x] = sum / n
		}
	}
	return out
}

// area is a connected set of pixels.
type area struct {
	box    image.Rectangle
	pixels int
}

// areas finds the connected sets of pixels above a threshold.
func (p plane) areas(threshold float32) []area {
	seen := make([]bool, len(p.v))
	var found []area
	var stack []int
	for start, v := range p.v {
		if seen[start] || v < threshold {
			continue
		}
		var a area
		seen[start] = true
		stack = append(stack[:0], start)
		for len(stack) > 0 {
			at := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			x, y := at%p.w, at/p.w
			a.pixels++
			a.box = a.box.Union(image.Rect(x, y, x+1, y+1))
			for j := max(0, y-1); j <= min(p.h-1, y+1); j++ {
				for i := max(0, x-1); i <= min(p.w-1, x+1); i++ {
					if next := j*p.w + i; !seen[next] && p.v[next] >= threshold {
						seen[next] = true
						stack = append(stack, next)
					}
				}
			}
		}
		found = append(found, a)
	}
	return found
}
