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

// strand is a set of links that are alike.
type strand struct {
	kind  string
	count int
	bytes float64 // per second
	pairs []pair
}

// pair is two ends of a link.
type pair struct{ a, b string }

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
		all[i].pairs = append(all[i].pairs, pair{l.A, l.B})
	}
	slices.SortStableFunc(all, func(a, b strand) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(b.count, a.count), strings.Compare(a.kind, b.kind))
	})
	return all
}

func (s strand) String() string {
	text := fmt.Sprintf("%d × %s", s.count, s.kind)
	if s.bytes > 0 {
		text += fmt.Sprintf(", %.3g GB/s", s.bytes/1e9)
	}
	return text
}

// ends are the devices of pairs, in the order of the map, then by name.
func (d *drawing) ends(pairs []pair) []string {
	var names []string
	for _, p := range pairs {
		for _, name := range []string{p.a, p.b} {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	rank := func(name string) int {
		i := slices.IndexFunc(d.m.Accelerators, func(a hardware.Accelerator) bool { return a.ID == name })
		if i < 0 {
			return len(d.m.Accelerators)
		}
		return i
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(d.natural(rank(a), rank(b)), strings.Compare(a, b)) })
	return names
}

// natural orders devices by kind and number: gpu2 before gpu10.
func (d *drawing) natural(a, b int) int {
	if a >= len(d.m.Accelerators) || b >= len(d.m.Accelerators) {
		return cmp.Compare(a, b)
	}
	x, y := d.m.Accelerators[a].ID, d.m.Accelerators[b].ID
	return cmp.Or(strings.Compare(d.m.Accelerators[a].Kind, d.m.Accelerators[b].Kind), cmp.Compare(len(x), len(y)), strings.Compare(x, y))
}

// groups are the pairs of a strand by what is connected.
func (d *drawing) groups(s strand) [][]pair {
	of := map[string]string{}
	var root func(string) string
	root = func(name string) string {
		if up, ok := of[name]; ok && up != name {
			of[name] = root(up)
			return of[name]
		}
		of[name] = name
		return name
	}
	for _, p := range s.pairs {
		of[root(p.a)] = root(p.b)
	}
	var order []string
	byRoot := map[string][]pair{}
	for _, name := range d.ends(s.pairs) {
		if r := root(name); !slices.Contains(order, r) {
			order = append(order, r)
		}
	}
	for _, p := range s.pairs {
		byRoot[root(p.a)] = append(byRoot[root(p.a)], p)
	}
	var all [][]pair
	for _, r := range order {
		all = append(all, byRoot[r])
	}
	return all
}

// maxArcs bounds the ends between which arcs can still be followed by eye;
// more are drawn as a matrix.
const maxArcs = 12

// picture is a part of the drawing that is no box: it lies in one.
type picture struct {
	place *box
	draw  func(out *strings.Builder, place *box)
}

// links draws what joins the devices, in a panel of its own that names them
// once more, so that no line crosses a box: a box for each group of which all
// are joined alike; arcs between few that are not; a matrix of many.
func (d *drawing) links() *box {
	all := strands(d.m.Links)
	if len(all) == 0 {
		return nil
	}
	panel := &box{class: "package", title: "Links between devices", titleSize: 15, gap: 10, pad: 14, across: 1}
	for _, s := range all {
		groups := d.groups(s)
		whole := !slices.ContainsFunc(groups, func(g []pair) bool {
			n := len(d.ends(g))
			return len(g) != n*(n-1)/2
		})
		if whole {
			panel.kids = append(panel.kids, d.meshes(s, groups))
			continue
		}
		panel.kids = append(panel.kids, d.partial(s))
	}
	return panel
}

// meshes is a box for each group of which all are joined to all.
func (d *drawing) meshes(s strand, groups [][]pair) *box {
	b := &box{class: "fabric", title: s.String(), titleSize: 12, gap: 8, pad: 10, across: 4}
	if len(d.ends(groups[0])) > 2 {
		b.title += " between any two, all to all"
	}
	if len(groups) == 1 {
		b.kids, b.across = d.chips(d.ends(groups[0])), 16
		return b
	}
	b.title += fmt.Sprintf(", in %d groups", len(groups))
	for _, g := range groups {
		chips := d.chips(d.ends(g))
		b.kids = append(b.kids, &box{class: "switch", gap: 6, pad: 6, kids: chips, across: min(len(chips), 8)})
	}
	return b
}

func (d *drawing) chips(names []string) []*box {
	var kids []*box
	for _, name := range names {
		class := "net"
		if a := d.m.Accelerator(name); a != nil {
			class = a.Kind
		}
		kids = append(kids, &box{class: class, title: name, titleSize: 11, pad: 5})
	}
	return kids
}

const (
	chipWidth = 64.0
	chipHigh  = 24.0
	cellSize  = 16.0
)

// partial is a strand of which not all are joined.
func (d *drawing) partial(s strand) *box {
	names := d.ends(s.pairs)
	b := &box{class: "fabric", title: fmt.Sprintf("%s, %d pairs", s, len(s.pairs)), titleSize: 12, pad: 10}
	if len(names) <= maxArcs {
		b.minW, b.minH = float64(len(names))*chipWidth+2*b.pad, 50+chipHigh+float64(len(names))*7
		d.pictures = append(d.pictures, picture{b, func(out *strings.Builder, place *box) { d.arcs(out, place, names, s) }})
		return b
	}
	side := float64(len(names)) * cellSize
	b.minW, b.minH = 90+side, 50+chipHigh+side
	d.pictures = append(d.pictures, picture{b, func(out *strings.Builder, place *box) { d.matrix(out, place, names, s) }})
	return b
}

// arcs joins a row of chips.
func (d *drawing) arcs(out *strings.Builder, place *box, names []string, s strand) {
	step := (place.w - 2*place.pad) / float64(len(names))
	top := place.y + place.pad + place.titleSize + 10
	at := map[string]float64{}
	for i, chip := range d.chips(names) {
		chip.titleSize = 11
		chip.x, chip.y, chip.w, chip.h = place.x+place.pad+step*(float64(i)+0.5)-chipWidth/2+3, top, chipWidth-6, chipHigh
		at[names[i]] = chip.x + chip.w/2
		chip.draw(out)
	}
	base := top + chipHigh
	for _, p := range s.pairs {
		x1, x2 := at[p.a], at[p.b]
		dip := 8 + math.Abs(x2-x1)/step*7
		fmt.Fprintf(out, `<path class="link" stroke-width="%.1f" d="M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f"><title>%s</title></path>`+"\n",
			math.Min(6, 1+float64(s.count)*0.6), x1, base, x1, base+dip*1.3, x2, base+dip*1.3, x2, base, html.EscapeString(p.a+" – "+p.b+": "+s.String()))
	}
}

// matrix marks each pair in a grid of all ends.
func (d *drawing) matrix(out *strings.Builder, place *box, names []string, s strand) {
	index := map[string]int{}
	for i, name := range names {
		index[name] = i
	}
	left, top := place.x+place.pad+64, place.y+place.pad+place.titleSize+26
	for i, name := range names {
		y := top + float64(i)*cellSize
		fmt.Fprintf(out, `<text class="n" x="%.1f" y="%.1f" font-size="9.5" text-anchor="end">%s</text>`+"\n", left-6, y+cellSize-4, html.EscapeString(name))
		fmt.Fprintf(out, `<text class="n" x="%.1f" y="%.1f" font-size="9.5" text-anchor="middle">%s</text>`+"\n", left+(float64(i)+0.5)*cellSize, top-5, html.EscapeString(strings.TrimLeft(name, "abcdefghijklmnopqrstuvwxyz")))
		fmt.Fprintf(out, `<rect class="cell" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`+"\n", left, y, float64(len(names))*cellSize, cellSize-1)
	}
	for _, p := range s.pairs {
		for _, cell := range [][2]int{{index[p.a], index[p.b]}, {index[p.b], index[p.a]}} {
			fmt.Fprintf(out, `<rect class="joined" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%s</title></rect>`+"\n",
				left+float64(cell[0])*cellSize, top+float64(cell[1])*cellSize, cellSize-1, cellSize-1, html.EscapeString(p.a+" – "+p.b+": "+s.String()))
		}
	}
}
