package render

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/hardware"
)

// Tree writes the machine as an indented tree for a terminal. With wide
// every core and every PCI device is listed; otherwise like cores are counted
// and only accelerators, networks and disks are shown.
func Tree(w io.Writer, m *hardware.Machine, wide bool) error {
	p := &treePrinter{m: m, wide: wide}
	p.machine()
	_, err := io.WriteString(w, p.out.String())
	return err
}

type treePrinter struct {
	m    *hardware.Machine
	wide bool
	out  strings.Builder
}

func (p *treePrinter) line(depth int, format string, args ...any) {
	p.out.WriteString(strings.Repeat("  ", depth))
	fmt.Fprintf(&p.out, format, args...)
	p.out.WriteByte('\n')
}

func (p *treePrinter) machine() {
	m := p.m
	p.line(0, "%s", Title(m))
	if y := m.System; y.CPUModel != "" || y.CPUVendor != "" {
		p.line(1, "processor: %s", strings.TrimSpace(processorName(y)))
	}
	if m.Online.Empty() {
		p.line(1, "cpus: unknown")
	} else {
		p.line(1, "cpus: %d online%s%s", m.Online.Len(), p.unlessSame(" of %s present", m.Present), p.unlessSame(", %s allowed", m.Allowed))
	}
	if !m.Isolated.Empty() {
		p.line(1, "isolated: %s%s", m.Isolated, when(!m.Tickless.Empty(), "  tickless: "+m.Tickless.String()))
	}
	if len(m.System.Instructions) > 0 && p.wide {
		p.line(1, "instructions: %s", strings.Join(m.System.Instructions, " "))
	}
	p.kinds()
	var placed, packed hardware.Set
	for _, pkg := range m.Packages {
		placed, packed = placed.Or(pkg.Nodes), packed.Or(pkg.CPUs)
		p.pack(pkg)
	}
	if rest := m.Online.Minus(packed); !rest.Empty() {
		p.pack(hardware.Package{ID: -1, CPUs: rest})
	}
	for _, n := range m.Nodes {
		if !placed.Has(n.ID) {
			p.node(1, n)
		}
	}
	p.devices()
	for _, g := range m.Gaps {
		p.line(1, "gap: %s: %s", g.Path, g.Reason)
	}
}

// processorName is vendor and model, the vendor once.
func processorName(y hardware.System) string {
	if y.CPUModel == "" || strings.HasPrefix(y.CPUModel, y.CPUVendor) || !strings.HasPrefix(y.Architecture, "aarch64") {
		return cmp.Or(y.CPUModel, y.CPUVendor)
	}
	return y.CPUVendor + " " + y.CPUModel
}

// Title is one line that names the machine.
func Title(m *hardware.Machine) string {
	y := m.System
	name := strings.TrimSpace(y.Product)
	if vendor := strings.TrimSpace(y.Vendor); !strings.HasPrefix(strings.ToLower(name), strings.ToLower(vendor)) {
		name = strings.TrimSpace(vendor + " " + name)
	}
	parts := []string{cmp.Or(y.Model, name, "machine")}
	if y.Architecture != "" {
		parts = append(parts, y.Architecture)
	}
	if total := m.Memory(); total > 0 {
		parts = append(parts, total.String())
	}
	return strings.Join(parts, " · ")
}

func (p *treePrinter) unlessSame(format string, set hardware.Set) string {
	if set.Equal(p.m.Online) {
		return ""
	}
	return fmt.Sprintf(format, set)
}

func (p *treePrinter) kinds() {
	if len(p.m.Kinds) < 2 {
		return
	}
	for _, k := range p.m.Kinds {
		var facts []string
		if k.CoreType != "" {
			facts = append(facts, k.CoreType)
		}
		if k.Capacity > 0 {
			facts = append(facts, fmt.Sprintf("capacity %d", k.Capacity))
		}
		if k.MaxMHz > 0 {
			facts = append(facts, fmt.Sprintf("up to %d MHz", k.MaxMHz))
		}
		if k.BaseMHz > 0 {
			facts = append(facts, fmt.Sprintf("base %d MHz", k.BaseMHz))
		}
		p.line(1, "%s cores: cpus %s  %s", k.Name, k.CPUs, strings.Join(facts, ", "))
	}
}

func (p *treePrinter) pack(pkg hardware.Package) {
	name := "package, number unknown" // the kernel prints -1, or nothing
	if pkg.ID >= 0 {
		name = "package " + strconv.Itoa(pkg.ID)
	}
	p.line(1, "%s  cpus %s", name, p.span(pkg.CPUs))
	for _, n := range p.m.Nodes {
		if pkg.Nodes.Has(n.ID) {
			p.node(2, n)
		}
	}
	for _, d := range p.m.Dies {
		if d.CPUs.In(pkg.CPUs) {
			p.line(2, "die %d  cpus %s", d.ID, p.span(d.CPUs))
		}
	}
	p.cachesAndCores(2, pkg.CPUs)
}

func (p *treePrinter) node(depth int, n hardware.Node) {
	if !p.wide && n.Bytes == 0 && n.Own.Empty() {
		return // a place where memory could be: GPUs that can be divided have many
	}
	kind := ""
	if n.Memory != "" {
		kind = " " + n.Memory
	}
	state := ""
	if !n.Allowed {
		state = "  (not allowed)"
	}
	p.line(depth, "node %d%s%s  cpus %s%s%s%s", n.ID, when(n.Bytes > 0, "  "+n.Bytes.String()), kind, p.span(n.Own), attributes(&n), pages(&n), state)
}

// span is a set of CPUs for reading: "0-78 step 2" for a long even list.
func (p *treePrinter) span(s hardware.Set) string {
	ids := s.IDs()
	if len(ids) == 0 {
		return "none"
	}
	list := s.String()
	if p.wide || len(list) <= 24 {
		return list
	}
	step := ids[1] - ids[0]
	for i := range ids[1:] {
		if ids[i+1]-ids[i] != step {
			return fmt.Sprintf("%d of %d-%d", len(ids), ids[0], ids[len(ids)-1])
		}
	}
	return fmt.Sprintf("%d-%d step %d", ids[0], ids[len(ids)-1], step)
}

func attributes(n *hardware.Node) string {
	var b strings.Builder
	if bw := max(n.ReadBandwidth, n.WriteBandwidth); bw > 0 {
		fmt.Fprintf(&b, "  %.1f GB/s", float64(bw)/1000)
	}
	if l := max(n.ReadLatency, n.WriteLatency); l > 0 {
		fmt.Fprintf(&b, "  %d ns", l)
	}
	return b.String()
}

func pages(n *hardware.Node) string {
	var b strings.Builder
	for _, h := range n.HugePages {
		if h.Total > 0 {
			fmt.Fprintf(&b, "  %d × %s pages (%d free)", h.Total, h.Size, h.Free)
		}
	}
	return b.String()
}

// cachesAndCores lists the largest caches that several cores of a package
// share, and the cores below them. What else there is of caches stands beside
// the cores.
func (p *treePrinter) cachesAndCores(depth int, cpus hardware.Set) {
	var shared []hardware.Cache
	top := 0
	for _, c := range p.m.Caches {
		switch {
		case c.Kind == hardware.MemorySide && !c.CPUs.Empty() && c.CPUs.In(cpus):
			p.line(depth, "memory cache of node %d  %s", *c.Node, c.Size)
		case c.Kind != hardware.MemorySide && c.CPUs.In(cpus) && p.coresOf(c.CPUs) > 1:
			shared = append(shared, c)
			top = max(top, c.Level)
		}
	}
	var covered hardware.Set
	for _, c := range shared {
		if c.Level == top && !covered.Meets(c.CPUs) {
			covered = covered.Or(c.CPUs)
			p.line(depth, "%s %s  cpus %s", c.Name(), cacheSize(c), p.span(c.CPUs))
			p.cores(depth+1, c.CPUs, &c)
		}
	}
	if rest := cpus.Minus(covered); !rest.Empty() {
		p.cores(depth, rest, nil)
	}
}

// cacheSize is a cache's size for reading.
func cacheSize(c hardware.Cache) string {
	if c.Size == 0 {
		return "of unknown size"
	}
	return c.Size.String()
}

func (p *treePrinter) coresOf(cpus hardware.Set) int {
	n := 0
	for _, c := range p.m.Cores {
		if c.CPUs.Meets(cpus) {
			n++
		}
	}
	return n
}

// cores lists cores one by one, or runs of like ones as a count; under is the
// cache that they stand below, nil for none.
func (p *treePrinter) cores(depth int, cpus hardware.Set, under *hardware.Cache) {
	var order []string
	count, sets := map[string]int{}, map[string]hardware.Set{}
	for _, c := range p.m.Cores {
		if !c.CPUs.In(cpus) {
			continue
		}
		if p.wide {
			p.line(depth, "core %d  cpus %s%s%s", c.ID, c.CPUs, p.cachesOf(c, under), p.kindOf(c))
			continue
		}
		key := fmt.Sprintf("%d thread%s%s%s", c.CPUs.Len(), plural(c.CPUs.Len()), p.cachesOf(c, under), p.kindOf(c))
		if count[key]++; count[key] == 1 {
			order = append(order, key)
		}
		sets[key] = sets[key].Or(c.CPUs)
	}
	for _, key := range order {
		p.line(depth, "%d core%s  cpus %s  each %s", count[key], plural(count[key]), p.span(sets[key]), key)
	}
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

func (p *treePrinter) kindOf(c hardware.Core) string {
	if c.Kind < 0 || c.Kind >= len(p.m.Kinds) || p.m.Kinds[c.Kind].Name == "" {
		return ""
	}
	return "  " + p.m.Kinds[c.Kind].Name
}

// cachesOf names the caches around a core, each with two blanks before it, but
// not the one that the core stands below already.
func (p *treePrinter) cachesOf(core hardware.Core, under *hardware.Cache) string {
	var parts []string
	for _, c := range p.m.Caches {
		if c.Kind == hardware.MemorySide || !core.CPUs.In(c.CPUs) && !c.CPUs.In(core.CPUs) || !c.CPUs.Meets(core.CPUs) {
			continue
		}
		if under != nil && c.Level == under.Level && c.Kind == under.Kind && c.CPUs.Equal(under.CPUs) {
			continue
		}
		if c.Size == 0 && p.coresOf(c.CPUs) == 1 {
			continue // every core has one: it adds nothing
		}
		part := "  " + c.Name() + " " + cacheSize(c)
		if cores := p.coresOf(c.CPUs); cores > 1 {
			part += fmt.Sprintf(" of %d cores", cores)
		}
		if !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "")
}

// clip keeps a text short enough for its place.
func clip(text string) string {
	if r := []rune(text); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return text
}
