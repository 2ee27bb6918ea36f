package demo

import (
	"fmt"
	"image"
	"image/color"
	"math"
	"math/rand/v2"
	"strconv"

	"golang.org/x/image/draw"
	"golang.org/x/image/font"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/f64"
	"golang.org/x/image/math/fixed"
)

// Picture is one picture of a digit with what it shows.
type Picture struct {
	Image image.Image
	Digit int
	Font  string
}

// Draw draws n pictures, all digits in turn, each in a font, place, size,
// slant, light and noise of its own. A seed always gives the same pictures.
func Draw(n int, fonts []Font, seed uint64) ([]Picture, error) {
	random := rand.New(rand.NewPCG(seed, 0))
	pictures := make([]Picture, 0, n)
	for i := range n {
		face := fonts[random.IntN(len(fonts))]
		img, err := drawDigit(i%10, face, random)
		if err != nil {
			return nil, fmt.Errorf("draw a %d with %s: %w", i%10, face.Name, err)
		}
		pictures = append(pictures, Picture{Image: img, Digit: i % 10, Font: face.Name})
	}
	return pictures, nil
}

// between is a random number of [low, high).
func between(r *rand.Rand, low, high float64) float64 { return low + (high-low)*r.Float64() }

func drawDigit(digit int, face Font, r *rand.Rand) (image.Image, error) {
	glyph, err := mask(digit, face)
	if err != nil {
		return nil, err
	}
	w, h := 64+r.IntN(96), 64+r.IntN(96)
	side := float64(min(w, h))
	ink := image.NewAlpha(image.Rect(0, 0, w, h))
	// The digit is 45 to 75 % of the picture's shorter side, and anywhere that
	// leaves it whole.
	size := glyph.Bounds().Size()
	scale := side * between(r, 0.45, 0.75) / float64(max(size.X, size.Y))
	angle, shear, wide := between(r, -0.2, 0.2), between(r, -0.2, 0.2), between(r, 0.85, 1.15)
	sin, cos := math.Sin(angle), math.Cos(angle)
	a, b := cos*scale*wide, (cos*shear-sin)*scale
	c, d := sin*scale*wide, (sin*shear+cos)*scale
	room := side * 0.08
	cx, cy := float64(w)/2+between(r, -room, room), float64(h)/2+between(r, -room, room)
	gx, gy := float64(size.X)/2, float64(size.Y)/2
	draw.BiLinear.Transform(ink, f64.Aff3{a, b, cx - a*gx - b*gy, c, d, cy - c*gx - d*gy}, glyph, glyph.Bounds(), draw.Src, nil)
	return develop(ink, r), nil
}

// mask draws a digit large and cuts its margins off.
func mask(digit int, face Font) (*image.Alpha, error) {
	const large = 160
	f, err := opentype.NewFace(face.font, &opentype.FaceOptions{Size: large, DPI: 72, Hinting: font.HintingNone})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	canvas := image.NewAlpha(image.Rect(0, 0, 3*large, 3*large))
	drawer := font.Drawer{Dst: canvas, Src: image.Opaque, Face: f, Dot: fixed.P(large, 2*large)}
	drawer.DrawString(strconv.Itoa(digit))
	var box image.Rectangle
	for y := range 3 * large {
		for x := range 3 * large {
			if canvas.AlphaAt(x, y).A > 0 {
				box = box.Union(image.Rect(x, y, x+1, y+1))
			}
		}
	}
	if box.Empty() {
		return nil, fmt.Errorf("the font has no %d", digit)
	}
	cut := image.NewAlpha(image.Rectangle{Max: box.Size()})
	draw.Draw(cut, cut.Bounds(), canvas, box.Min, draw.Src)
	return cut, nil
}

// develop gives the picture paper, ink, uneven light and a camera's noise.
func develop(ink *image.Alpha, r *rand.Rand) image.Image {
	paper, pen := between(r, 0.65, 1), between(r, 0, 0.3)
	if r.IntN(3) == 0 {
		paper, pen = pen, paper // chalk on a board
	}
	tint := [3]float64{between(r, 0.9, 1), between(r, 0.9, 1), between(r, 0.9, 1)}
	slopeX, slopeY := between(r, -0.08, 0.08), between(r, -0.08, 0.08)
	noise, specks := between(r, 0, 0.06), between(r, 0, 0.002)
	bounds := ink.Bounds()
	out := image.NewRGBA(bounds)
	for y := range bounds.Dy() {
		for x := range bounds.Dx() {
			alpha := float64(ink.AlphaAt(x, y).A) / 255
			v := paper + alpha*(pen-paper)
			v += slopeX*(2*float64(x)/float64(bounds.Dx())-1) + slopeY*(2*float64(y)/float64(bounds.Dy())-1)
			v += noise * r.NormFloat64()
			if r.Float64() < specks {
				v = r.Float64()
			}
			out.SetRGBA(x, y, color.RGBA{level(v * tint[0]), level(v * tint[1]), level(v * tint[2]), 255})
		}
	}
	return out
}

func level(v float64) uint8 { return uint8(255*min(1, max(0, v)) + 0.5) }
