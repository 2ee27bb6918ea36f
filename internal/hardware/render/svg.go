package render

import (
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/hardware"
)

// maxDrawn bounds the drawing: beyond it, cores become one box a cache.
const maxDrawn = 4096

// SVG draws the machine: packages side by side with their memory, caches
// and cores, below them the PCI trees with each device on its side and the
// bandwidth of its link, at the bottom what joins the accelerators. Its colours
// follow the viewer's, dark or light.
func SVG(w io.Writer, m *hardware.Machine) error {
	d := &drawing{m: m, drawn: map[string]bool{}}
	sheet := d.sheet()
	sheet.measure()
	const margin, header = 36.0, 86.0
	items, row := legendOf(sheet)
	words := math.Max(textWidth(Title(m), 26)*1.1, math.Max(textWidth(d.subtitle(), 13), textWidth(legend, 11)))
	sheet.w = math.Max(sheet.w, math.Max(words, row))
	sheet.place(margin, header)
	width := sheet.w + 2*margin
	height := header + sheet.h + 76
	var out strings.Builder
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f">`+"\n", width, height, width, height)
	fmt.Fprintf(&out, "<title>%s</title>\n<style>%s</style>\n", html.EscapeString(Title(m)), style)
	out.WriteString(`<defs><linearGradient id="sky" x1="0" y1="0" x2="0" y2="1"><stop class="sky0" offset="0"/><stop class="sky1" offset="1"/></linearGradient></defs>` + "\n")
	fmt.Fprintf(&out, `<rect width="%.0f" height="%.0f" class="sky"/>`+"\n", width, height)
	drawText(&out, "h1", margin, 44, 26, Title(m))
	drawText(&out, "h2", margin, 66, 13, d.subtitle())
	sheet.draw(&out)
	for _, p := range d.pictures {
		p.draw(&out, p.place)
	}
	drawLegend(&out, items, margin, height-42)
	drawText(&out, "h2", margin, height-18, 11, legend)
	out.WriteString("</svg>\n")
	_, err := io.WriteString(w, out.String())
	return err
}

// drawing is the making of one SVG.
type drawing struct {
	m     *hardware.Machine
	drawn map[string]bool // accelerators, interfaces and disks on the sheet
	// pictures are drawn over the boxes that were left for them.
	pictures []picture
}

func (d *drawing) subtitle() string {
	m := d.m
	parts := []string{strings.TrimSpace(processorName(m.System)),
		fmt.Sprintf("%d cores, %d threads", len(m.Cores), len(m.CPUs))}
	if m.System.Kernel != "" {
		parts = append(parts, "Linux "+m.System.Kernel)
	}
	if !m.Allowed.Equal(m.Online) {
		parts = append(parts, fmt.Sprintf("%d threads allowed", m.Allowed.Len()))
	}
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), "  ·  ")
}

const legend = "in a core: its CPUs  ·  PCIe in one direction after line coding  ·  a link in red runs below what both ends can do  ·  dashed: not allowed or lost"

func (d *drawing) sheet() *box {
	sheet := &box{across: 1, gap: 22}
	row := &box{gap: 22}
	for _, p := range everyPackage(d.m) {
		row.kids = append(row.kids, d.pack(p))
	}
	if len(row.kids) > 0 {
		switch n := len(row.kids); {
		case n > 4:
			row.across = 4
		case n > 2:
			row.across = 2
		}
		sheet.kids = append(sheet.kids, row)
	}
	if rest := d.elsewhere(); rest != nil {
		sheet.kids = append(sheet.kids, rest)
	}
	if links := d.links(); links != nil {
		sheet.kids = append(sheet.kids, links)
	}
	return sheet
}

// everyPackage lists the packages, and as one more the CPUs of which the kernel
// does not say in which package they are.
func everyPackage(m *hardware.Machine) []hardware.Package {
	rest := m.Online
	for _, p := range m.Packages {
		rest = rest.Minus(p.CPUs)
	}
	if rest.Empty() || len(m.Packages) == 0 {
		return m.Packages
	}
	var nodes []int
	for _, n := range m.Nodes {
		if !n.Own.Empty() && n.Own.In(rest) {
			nodes = append(nodes, n.ID)
		}
	}
	return append(slices.Clone(m.Packages), hardware.Package{ID: -1, CPUs: rest, Nodes: hardware.NewSet(nodes...)})
}

// pack draws one package.
func (d *drawing) pack(p hardware.Package) *box {
	cores := 0
	for _, c := range d.m.Cores {
		if c.CPUs.In(p.CPUs) {
			cores++
		}
	}
	b := &box{class: "package", title: packageTitle(p), tag: fmt.Sprintf("%d cores, %d threads", cores, p.CPUs.Len()),
		titleSize: 15, across: 1, gap: 12, pad: 14}
	if far := d.distances(p); far != "" {
		b.notes = append(b.notes, far)
	}
	if memory := d.memory(func(n hardware.Node) bool { return p.Nodes.Has(n.ID) }); memory != nil {
		b.kids = append(b.kids, memory)
	}
	roots := d.roots(func(dev *hardware.PCIDevice) bool { return d.belongs(dev, p) })
	width := 0.0
	if roots != nil {
		roots.measure()
		width = roots.w
	}
	b.kids = append(b.kids, d.processors(p.CPUs, width))
	if roots != nil {
		b.kids = append(b.kids, roots)
	}
	return b
}

func packageTitle(p hardware.Package) string {
	if p.ID < 0 { // the kernel prints -1, or the CPUs disagree
		return "Package, number unknown"
	}
	return fmt.Sprintf("Package %d", p.ID)
}

// distances tells how far the memory of the other packages is, by the
// firmware's SLIT, where the packages are few.
func (d *drawing) distances(p hardware.Package) string {
	if len(d.m.Packages) < 2 || len(d.m.Packages) > 4 || p.ID < 0 {
		return ""
	}
	index := map[int]int{}
	for i, n := range d.m.Nodes {
		index[n.ID] = i
	}
	nearest := func(from, to hardware.Package) int {
		least := 0
		for _, a := range from.Nodes.IDs() {
			for _, b := range to.Nodes.IDs() {
				n := d.m.Nodes[index[a]]
				if i := index[b]; i < len(n.Distance) && (least == 0 || n.Distance[i] < least) {
					least = n.Distance[i]
				}
			}
		}
		return least
	}
	var parts []string
	for _, other := range d.m.Packages {
		if far := nearest(p, other); other.ID != p.ID && far > 0 {
			parts = append(parts, fmt.Sprintf("%d in package %d", far, other.ID))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "distance of memory: 10 here, " + strings.Join(parts, ", ")
}

// belongs: the device's nearest CPUs lie in this package and no other.
func (d *drawing) belongs(dev *hardware.PCIDevice, p hardware.Package) bool {
	if len(everyPackage(d.m)) == 1 {
		return true
	}
	return !dev.LocalCPUs.Empty() && dev.LocalCPUs.In(p.CPUs)
}

// memory draws the nodes with memory that are not inside a GPU.
func (d *drawing) memory(mine func(hardware.Node) bool) *box {
	row := &box{gap: 8, across: 4}
	for _, n := range d.m.Nodes {
		if !mine(n) || n.Memory == "GPUMemory" || n.Bytes == 0 && n.Own.Empty() {
			continue
		}
		class := "dram"
		switch {
		case !n.Allowed:
			class = "off"
		case strings.Contains(n.Memory, "HBM") || n.Memory == "MCDRAM":
			class = "hbm"
		case n.Memory == "NVM" || strings.HasPrefix(n.Memory, "CXL") || n.Memory == "SPM":
			class = "nvm"
		}
		k := &box{class: class, title: fmt.Sprintf("Node %d", n.ID), pad: 8, minW: 130}
		if n.Bytes > 0 {
			k.title += " · " + n.Bytes.String()
		}
		if note := strings.TrimSpace(n.Memory + attributes(&n)); note != "" {
			k.notes = append(k.notes, note)
		}
		if pages := strings.TrimSpace(pages(&n)); pages != "" {
			k.notes = append(k.notes, pages)
		}
		for _, c := range d.m.Caches {
			if c.Kind == hardware.MemorySide && c.Node != nil && *c.Node == n.ID {
				k.notes = append(k.notes, fmt.Sprintf("memory cache %s", c.Size))
			}
		}
		row.kids = append(row.kids, k)
	}
	if len(row.kids) == 0 {
		return nil
	}
	return row
}

// processors draws the cores of a set of CPUs below the largest cache that
// they share, L3 side by side, as wide as the devices of the package if those
// are wider.
func (d *drawing) processors(cpus hardware.Set, width float64) *box {
	all := &box{gap: 10, across: 4}
	var covered hardware.Set
	for _, c := range d.m.Caches {
		if c.Kind == hardware.MemorySide || !c.CPUs.In(cpus) || covered.Meets(c.CPUs) || d.coresOf(c.CPUs) < 2 || c.Level < 3 {
			continue
		}
		covered = covered.Or(c.CPUs)
		all.kids = append(all.kids, &box{class: "cache", title: fmt.Sprintf("L%d · %s", c.Level, cacheSize(c)), tag: d.eachCore(c.CPUs), gap: 5, pad: 8, across: 1, kids: d.clusters(c.CPUs)})
	}
	if rest := cpus.Minus(covered); !rest.Empty() {
		b := &box{class: "cache", tag: d.eachCore(rest), gap: 5, pad: 8, across: 1, kids: d.clusters(rest)}
		if b.tag != "" || !covered.Empty() {
			b.title = "no shared cache"
			if len(b.kids) > 0 && len(b.kids[0].kids) > 0 && b.kids[0].kids[0].class == "cluster" {
				b.title = "no L3"
			}
		}
		all.kids = append(all.kids, b)
	}
	all.across = min(4, len(all.kids))
	each := width/float64(max(1, all.across)) - all.gap - 16
	for _, cache := range all.kids {
		for _, grid := range cache.kids {
			if grid.class == "" && len(grid.kids) > 0 && grid.kids[0].fixed {
				widen(grid, each)
			}
		}
	}
	return all
}

// eachCore names the caches that every core has to itself, where the cores are
// too many to tell it in each.
func (d *drawing) eachCore(cpus hardware.Set) string {
	if !d.many() {
		return ""
	}
	said := ""
	for i, c := range d.m.Cores {
		if !c.CPUs.In(cpus) || c.CPUs.Empty() {
			continue
		}
		one := strings.Join(d.coreCaches(i), ", ")
		if said != "" && one != said {
			return ""
		}
		said = one
	}
	if said == "" {
		return ""
	}
	return "each core " + said
}

// many: the cores are too many to tell something in each.
func (d *drawing) many() bool { return len(d.m.Cores) > 48 }

// widen gives a grid of like boxes as many columns as a width holds, and rows
// of like length.
func widen(grid *box, width float64) {
	grid.measure()
	if cell := grid.kids[0].w; cell > 0 {
		grid.across = max(grid.across, int((width+grid.gap)/(cell+grid.gap)))
		rows := (len(grid.kids) + grid.across - 1) / grid.across
		grid.across = (len(grid.kids) + rows - 1) / rows
	}
}

func (d *drawing) coresOf(cpus hardware.Set) int { return (&treePrinter{m: d.m}).coresOf(cpus) }

// columns makes a grid a little wider than high.
func columns(kids []*box) int {
	if len(kids) <= 4 {
		return max(1, len(kids))
	}
	return max(1, int(math.Ceil(math.Sqrt(float64(len(kids))*1.6))))
}

// clusters draws cores as a grid; those that share an L2 stand in one box, in
// a row below.
func (d *drawing) clusters(cpus hardware.Set) []*box {
	row := &box{gap: 6}
	var covered hardware.Set
	for _, c := range d.m.Caches {
		if c.Level != 2 || c.Kind == hardware.Instruction || !c.CPUs.In(cpus) || d.coresOf(c.CPUs) < 2 || covered.Meets(c.CPUs) {
			continue
		}
		covered = covered.Or(c.CPUs)
		b := &box{class: "cluster", title: "L2 · " + cacheSize(c), titleSize: 10.5, gap: 4, pad: 5, kids: d.cores(c.CPUs)}
		b.across = max(1, (len(b.kids)+1)/2)
		row.kids = append(row.kids, b)
	}
	var kids []*box
	if alone := d.cores(cpus.Minus(covered)); len(alone) > 0 {
		kids = append(kids, &box{gap: 5, kids: alone, across: columns(alone)})
	}
	if len(row.kids) > 0 {
		row.across = columns(row.kids)
		kids = append(kids, row)
	}
	return kids
}

func (d *drawing) cores(cpus hardware.Set) []*box {
	var kids []*box
	if len(d.m.Cores) > maxDrawn {
		return []*box{{class: "core", title: fmt.Sprintf("cpus %s", clip(cpus.String())), pad: 6}}
	}
	for i, c := range d.m.Cores {
		if !c.CPUs.In(cpus) || c.CPUs.Empty() {
			continue
		}
		b := &box{class: "core", fixed: true, pad: 4, titleSize: 9.5, title: strings.Join(strings.Fields(strings.ReplaceAll(c.CPUs.String(), ",", " ")), " "), minW: 38, minH: 20}
		if c.Kind >= 0 && c.Kind < len(d.m.Kinds) && d.m.Kinds[c.Kind].Name != "" {
			b.class = d.m.Kinds[c.Kind].Name
		}
		if !c.CPUs.Meets(d.m.Allowed) {
			b.class = "off"
		}
		if !d.many() {
			b.notes = d.coreCaches(i)
		}
		kids = append(kids, b)
	}
	wide := 0.0
	for _, k := range kids {
		k.measure()
		wide = math.Max(wide, k.w)
	}
	for _, k := range kids {
		k.minW = wide
	}
	return kids
}

// coreCaches names the caches that a core has to itself.
func (d *drawing) coreCaches(core int) []string {
	var notes []string
	l1 := ""
	for _, c := range d.m.Caches {
		if c.Kind == hardware.MemorySide || !c.CPUs.Equal(d.m.Cores[core].CPUs) {
			continue
		}
		switch {
		case c.Level == 1 && c.Kind != hardware.Instruction:
			l1 = cacheSize(c)
		case c.Level == 2:
			notes = append(notes, "L2 "+cacheSize(c))
		}
	}
	if l1 != "" {
		notes = append(notes, "L1 "+l1)
	}
	return notes
}
