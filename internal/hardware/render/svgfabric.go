package render

import (
	"cmp"
	"fmt"
	"html"
	"math"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/hardware"
)

// fabricDrawing is the links between accelerators below the sheet.
type fabricDrawing struct {
	drawn  string
	height float64
}

// fabric draws the links. Where all of a kind are joined alike, one bar says
// so; otherwise each pair gets an arc, wider for more links.
func (d *drawing) fabric(sheet *box) fabricDrawing {
	var ends []string
	kinds := map[string]bool{}
	alike := true
	for i, l := range d.m.Links {
		for _, end := range []string{l.A, l.B} {
			if !slices.Contains(ends, end) && sheet.find(end) != nil {
				ends = append(ends, end)
			}
		}
		kinds[l.Kind] = true
		alike = alike && (i == 0 || l.Count == d.m.Links[0].Count && l.BytesPerSecond == d.m.Links[0].BytesPerSecond)
	}
	if len(ends) < 2 {
		return fabricDrawing{}
	}
	if alike && len(kinds) == 1 && len(d.m.Links) == len(ends)*(len(ends)-1)/2 && len(ends) > 2 {
		return d.bar(sheet, ends)
	}
	return d.arcs(sheet)
}

// bar joins all ends by one bar.
func (d *drawing) bar(sheet *box, ends []string) fabricDrawing {
	var out strings.Builder
	top := sheet.y + sheet.h + 26
	left, right := math.Inf(1), math.Inf(-1)
	for _, end := range ends {
		b := sheet.find(end)
		x := b.x + b.w/2
		left, right = math.Min(left, b.x), math.Max(right, b.x+b.w)
		fmt.Fprintf(&out, `<path class="link" stroke-width="2.5" d="M%.1f %.1fV%.1f"/>`+"\n", x, b.y+b.h, top)
		fmt.Fprintf(&out, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="#9be07c"/>`+"\n", x, b.y+b.h)
	}
	l := d.m.Links[0]
	text := fmt.Sprintf("%s, all to all", l.Kind)
	if l.BytesPerSecond > 0 {
		text += fmt.Sprintf(": %.3g GB/s between any two", l.BytesPerSecond/1e9)
	}
	fmt.Fprintf(&out, `<rect class="fabric" x="%.1f" y="%.1f" width="%.1f" height="30" rx="8"/>`+"\n", left, top, right-left)
	drawText(&out, "t fabric-t", left+14, top+20, 13, text)
	return fabricDrawing{out.String(), 66}
}

// strand is a set of links that are alike.
type strand struct {
	kind  string
	count int
	bytes float64 // per second
	pairs []string
}

// strands sorts the links by what they carry, the widest first.
func strands(links []hardware.Link) []strand {
	var all []strand
	for _, l := range links {
		i := slices.IndexFunc(all, func(s strand) bool {
			return s.kind == l.Kind && s.count == max(1, l.Count) && s.bytes == l.BytesPerSecond
		})
		if i < 0 {
			i = len(all)
			all = append(all, strand{kind: l.Kind, count: max(1, l.Count), bytes: l.BytesPerSecond})
		}
		all[i].pairs = append(all[i].pairs, l.A+"–"+l.B)
	}
	slices.SortStableFunc(all, func(a, b strand) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(b.count, a.count), strings.Compare(a.kind, b.kind))
	})
	return all
}

// look is how a strand is drawn: wider and lighter the more it carries.
func (s strand) look(rank int) (width float64, color string) {
	colors := []string{"#c6f6a5", "#7fd45f", "#4fb6e6", "#a98be6", "#8593ab"}
	return math.Min(7, 1.2+float64(s.count)*0.8), colors[min(rank, len(colors)-1)]
}

func (s strand) String() string {
	text := fmt.Sprintf("%d × %s", s.count, s.kind)
	if s.bytes > 0 {
		text += fmt.Sprintf(", %.3g GB/s", s.bytes/1e9)
	}
	return text
}

// arcs joins each linked pair by an arc and tells below what each kind of arc
// carries.
func (d *drawing) arcs(sheet *box) fabricDrawing {
	var out strings.Builder
	base := sheet.y + sheet.h + 8
	depth := 0.0
	kinds := strands(slices.DeleteFunc(slices.Clone(d.m.Links), func(l hardware.Link) bool { return sheet.find(l.A) == nil || sheet.find(l.B) == nil }))
	for rank, s := range kinds {
		width, color := s.look(rank)
		for _, l := range d.m.Links {
			if l.Kind != s.kind || max(1, l.Count) != s.count || l.BytesPerSecond != s.bytes {
				continue
			}
			a, b := sheet.find(l.A), sheet.find(l.B)
			if a == nil || b == nil {
				continue
			}
			x1, x2 := a.x+a.w/2, b.x+b.w/2
			dip := 24 + math.Abs(x2-x1)/10
			depth = math.Max(depth, dip)
			fmt.Fprintf(&out, `<path class="link" style="stroke:%s" stroke-width="%.1f" d="M%.1f %.1fV%.1fC%.1f %.1f %.1f %.1f %.1f %.1fV%.1f"><title>%s</title></path>`+"\n",
				color, width, x1, a.y+a.h, base, x1, base+dip*1.3, x2, base+dip*1.3, x2, base, b.y+b.h, html.EscapeString(l.A+" – "+l.B+": "+s.String()))
		}
	}
	y := base + depth + 14
	for rank, s := range kinds {
		width, color := s.look(rank)
		fmt.Fprintf(&out, `<path class="link" style="stroke:%s" stroke-width="%.1f" d="M%.1f %.1fh36"/>`+"\n", color, width, sheet.x, y-4)
		pairs := strings.Join(s.pairs, ", ")
		if room := int((sheet.w - 230) / (noteSize * 0.56)); len([]rune(pairs)) > room && room > 20 {
			pairs = fmt.Sprintf("%s… (%d pairs)", string([]rune(pairs)[:room-14]), len(s.pairs))
		}
		drawText(&out, "t fabric-t", sheet.x+46, y, 12, s.String())
		drawText(&out, "n", sheet.x+226, y, noteSize, pairs)
		y += 19
	}
	return fabricDrawing{out.String(), y - sheet.y - sheet.h}
}
