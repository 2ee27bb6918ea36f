package render

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// box is a rectangle of the drawing with what lies in it. Boxes are measured
// from the inside out and placed from the outside in.
type box struct {
	class  string // of the style sheet
	title  string
	notes  []string // small lines under the title
	kids   []*box
	across int     // kids per row; 0: all in one row, 1: a column
	gap    float64 // between kids
	pad    float64 // around kids
	tag    string  // small label at the upper right, such as a link's speed
	tagBad bool    // the label warns

	fixed bool // a core: it keeps its size

	minW, minH float64
	x, y, w, h float64
	titleSize  float64
}

// textWidth estimates a text's width; digits and letters of the fonts in use
// take 0.56 of their size on average.
func textWidth(text string, size float64) float64 {
	return float64(len([]rune(text))) * size * 0.56
}

func (b *box) headHeight() float64 {
	h := 0.0
	if b.title != "" {
		h += b.titleSize * 1.25
	}
	h += float64(len(b.notes)) * noteSize * 1.35
	if h > 0 && len(b.kids) > 0 {
		h += 6
	}
	return h
}

const noteSize = 10.5

// measure computes the size of b and everything in it.
func (b *box) measure() {
	if b.titleSize == 0 {
		b.titleSize = 12
	}
	text := textWidth(b.title, b.titleSize) * 1.12 // titles are bold
	if b.tag != "" {
		text += textWidth(b.tag, noteSize) + 12
	}
	for _, n := range b.notes {
		text = math.Max(text, textWidth(n, noteSize))
	}
	w, h := 0.0, 0.0
	for _, row := range b.rows() {
		rw, rh := 0.0, 0.0
		for _, k := range row {
			k.measure()
			rw += k.w + b.gap
			rh = math.Max(rh, k.h)
		}
		w = math.Max(w, rw-b.gap)
		h += rh + b.gap
	}
	h = math.Max(0, h-b.gap)
	b.w = math.Max(math.Max(w, text)+2*b.pad, b.minW)
	b.h = math.Max(h+b.headHeight()+2*b.pad, b.minH)
}

func (b *box) rows() [][]*box {
	if len(b.kids) == 0 {
		return nil
	}
	across := b.across
	if across <= 0 {
		across = len(b.kids)
	}
	var rows [][]*box
	for i := 0; i < len(b.kids); i += across {
		rows = append(rows, b.kids[i:min(i+across, len(b.kids))])
	}
	return rows
}

// place gives b and everything in it a position. A row's boxes become as high
// as its highest; a column's as wide as the column.
func (b *box) place(x, y float64) {
	b.x, b.y = x, y
	top := y + b.pad + b.headHeight()
	for _, row := range b.rows() {
		left, high := x+b.pad, 0.0
		for _, k := range row {
			high = math.Max(high, k.h)
		}
		stretch := 0.0
		if room := b.cell(); room > 0 {
			stretch = room - row[0].w
		} else if b.across != 1 && len(row) > 0 && b.stretches() {
			used := -b.gap
			for _, k := range row {
				used += k.w + b.gap
			}
			stretch = math.Max(0, b.w-2*b.pad-used) / float64(len(row))
		}
		for _, k := range row {
			if b.across == 1 {
				k.w = b.w - 2*b.pad
			}
			k.w += stretch
			k.h = high
			k.place(left, top)
			left += k.w + b.gap
		}
		top += high + b.gap
	}
}

// cell is the width that each box of a grid of cores gets, so that the grid
// fills its place; 0 for what is no such grid.
func (b *box) cell() float64 {
	if len(b.kids) == 0 || !b.kids[0].fixed || b.across == 1 && len(b.kids) > 1 {
		return 0
	}
	n := float64(len(b.rows()[0]))
	own := b.kids[0].minW
	return math.Max(own, math.Min(4*own, (b.w-2*b.pad-b.gap*(n-1))/n))
}

// stretches: rows of containers fill their box, grids of cores keep their size.
func (b *box) stretches() bool {
	return b.class != "cache" && b.class != "cluster" && (len(b.kids) == 0 || !b.kids[0].fixed)
}

// draw writes b and everything in it.
func (b *box) draw(out *strings.Builder) {
	if b.class != "" {
		fmt.Fprintf(out, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="%.1f"/>`+"\n", html.EscapeString(b.class), b.x, b.y, b.w, b.h, b.radius())
	}
	y := b.y + b.pad
	if b.title != "" {
		y += b.titleSize
		drawText(out, "t "+html.EscapeString(b.class)+"-t", b.x+b.pad, y, b.titleSize, b.title)
		if b.tag != "" {
			class := "tag"
			if b.tagBad {
				class = "tag bad"
			}
			fmt.Fprintf(out, `<text class="%s" x="%.1f" y="%.1f" text-anchor="end">%s</text>`+"\n", class, b.x+b.w-b.pad, y, html.EscapeString(b.tag))
		}
		y += b.titleSize * 0.25
	}
	for _, n := range b.notes {
		y += noteSize * 1.1
		drawText(out, "n", b.x+b.pad, y, noteSize, n)
		y += noteSize * 0.25
	}
	for _, k := range b.kids {
		k.draw(out)
	}
}

func (b *box) radius() float64 { return math.Min(10, math.Max(2, b.h/6)) }

func drawText(out *strings.Builder, class string, x, y, size float64, text string) {
	fmt.Fprintf(out, `<text class="%s" x="%.1f" y="%.1f" font-size="%.1f">%s</text>`+"\n", class, x, y, size, html.EscapeString(text))
}
