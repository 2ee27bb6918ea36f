package render

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"oscine.dev/oscine/internal/hardware"
)

// TopOptions say what room Top has.
type TopOptions struct {
	Width  int  // characters a line; less than 40 is taken for 40
	Height int  // lines; 0: as many as it takes
	Color  bool // with the colours of a terminal (ECMA-48)
	// Busy is what share of all CPUs was busy, oldest first, one value for each
	// picture so far: drawn below the rest where there is room.
	Busy []float64
}

// Busy is what share of all CPUs a load keeps busy.
func Busy(l hardware.Load) float64 {
	busy := 0.0
	for _, share := range l.CPUs {
		busy += share
	}
	return busy / float64(max(1, len(l.CPUs)))
}

// Top writes one picture of a machine under load: each CPU as a bar,
// memory of the nodes, accelerators. Where there are more lines than room,
// what says least is summed up; where there are fewer, CPUs get lines of their
// own and what was busy is drawn over time.
func Top(w io.Writer, m *hardware.Machine, l hardware.Load, o TopOptions) error {
	t := &topPrinter{m: m, l: l, o: o, width: max(40, o.Width)}
	head := t.part(func() {
		t.line(strong, "%s", Title(m))
		t.line("", "%d CPUs  %.0f%% busy", m.Online.Len(), 100*Busy(l))
	})
	packages := t.part(func() {
		for _, p := range everyPackage(m) {
			t.pack(p)
		}
	})
	nodes := t.part(func() {
		for _, n := range m.Nodes {
			t.node(n)
		}
	})
	devices := t.part(t.accelerators)
	heat := t.part(t.heat)
	over := func() int { return len(head) + len(packages) + len(nodes) + len(devices) + len(heat) - o.Height }
	if o.Height > 0 && over() > 0 {
		heat = nil
	}
	if o.Height > 0 && over() > 0 {
		nodes = t.part(t.memory)
	}
	if o.Height > 0 {
		if grid := t.part(t.cpus); over()+len(grid)-len(packages) <= 0 {
			packages = grid
		}
	}
	lines := slices.Concat(head, packages, nodes, devices, heat)
	if spare := -over(); o.Height > 0 && spare >= minHistory && len(o.Busy) > 0 {
		lines = append(lines, t.part(func() { t.history(min(spare, maxHistory)) })...)
	}
	if most := max(1, o.Height); o.Height > 0 && len(lines) > most {
		hidden := len(lines) - most + 1
		more := t.part(func() { t.line(warn, "… and %d more lines: see them with oscine top --once", hidden) })
		lines = append(lines[:most-1], more...)
	}
	_, err := io.WriteString(w, strings.Join(lines, "\n")+"\n")
	return err
}

// The colours.
const (
	strong = "\x1b[1m"
	good   = "\x1b[32m"
	warn   = "\x1b[33m"
	bad    = "\x1b[31m"
	plain  = "\x1b[0m"
)

type topPrinter struct {
	m     *hardware.Machine
	l     hardware.Load
	o     TopOptions
	width int
	lines []string
}

// part collects the lines that write makes.
func (t *topPrinter) part(write func()) []string {
	t.lines = nil
	write()
	return t.lines
}

// line adds a line, cut to the width, in a colour unless that is "".
func (t *topPrinter) line(color, format string, args ...any) {
	text := strings.TrimRight(fmt.Sprintf(format, args...), " ")
	if utf8.RuneCountInString(text) > t.width {
		text = string([]rune(text)[:t.width])
	}
	if t.o.Color && color != "" {
		text = color + text + plain
	}
	t.lines = append(t.lines, text)
}

// pack draws one character a CPU, the threads of a core side by side.
func (t *topPrinter) pack(p hardware.Package) {
	var cells []rune
	for _, c := range t.m.Cores {
		if !c.CPUs.Meets(p.CPUs) {
			continue
		}
		for _, id := range c.CPUs.IDs() {
			cells = append(cells, level(t.l.CPUs[id]))
		}
	}
	head := fmt.Sprintf("package %-3d ", p.ID)
	if p.ID < 0 {
		head = "package ?   "
	}
	room := max(8, (t.width-len(head))/8*8)
	rows := max(1, (len(cells)+room-1)/room)
	room = min(room, ((len(cells)+rows-1)/rows+7)/8*8) // rows of like length
	for len(cells) > 0 {
		n := min(room, len(cells))
		t.line(good, "%s%s", head, string(cells[:n]))
		cells, head = cells[n:], strings.Repeat(" ", len(head))
	}
}

// level is a share as a block of eight heights.
func level(share float64) rune {
	steps := []rune("▁▂▃▄▅▆▇█")
	return steps[min(len(steps)-1, max(0, int(share*float64(len(steps)))))]
}

// bar is a share as a bar of width characters.
func bar(share float64, width int) string {
	full := min(width, max(0, int(share*float64(width)+0.5)))
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}

// barWidth leaves the numbers their place: they tell more than the bar.
func (t *topPrinter) barWidth() int { return min(24, max(4, (t.width-40)/2)) }

func (t *topPrinter) node(n hardware.Node) {
	used, ok := t.l.Used[n.ID]
	if n.Bytes == 0 || !ok {
		return
	}
	t.usage(fmt.Sprintf("node %d", n.ID), used, n.Bytes, n.Memory)
}

func (t *topPrinter) usage(name string, used, total hardware.Bytes, kind string) {
	share := float64(used) / float64(total)
	t.line(grave(share, 0.9, 0.97), "%-11s %s %9s of %s %s", name, bar(share, t.barWidth()), used, total, kind)
}

// grave is the colour of a share.
func grave(share, warning, alarm float64) string {
	switch {
	case share >= alarm:
		return bad
	case share >= warning:
		return warn
	}
	return ""
}

// memory is all nodes in one line.
func (t *topPrinter) memory() {
	var used, total hardware.Bytes
	nodes := 0
	for _, n := range t.m.Nodes {
		if u, ok := t.l.Used[n.ID]; ok && n.Bytes > 0 {
			used, total, nodes = used+u, total+n.Bytes, nodes+1
		}
	}
	if nodes > 0 {
		t.usage("memory", used, total, fmt.Sprintf("on %d node%s", nodes, plural(nodes)))
	}
}

// accelerators lists the devices, their columns below each other. A switch
// that works has nothing to tell.
func (t *topPrinter) accelerators() {
	var devices []*hardware.Accelerator
	for i := range t.m.Accelerators {
		if a := &t.m.Accelerators[i]; a.Kind != "switch" || a.Health.State != "ok" {
			devices = append(devices, a)
		}
	}
	rows := make([][]string, len(devices))
	var widths []int
	for i, a := range devices {
		rows[i] = t.accelerator(a)
		for c, cell := range rows[i] {
			if c == len(widths) {
				widths = append(widths, 0)
			}
			widths[c] = max(widths[c], utf8.RuneCountInString(cell))
		}
	}
	for i, row := range rows {
		a := devices[i]
		color := ""
		switch a.Health.State {
		case "ok":
		case "lost", "failed":
			color = bad
		default:
			color = warn
		}
		for _, line := range t.rows(row, widths) {
			t.line(color, "%s", line)
		}
		for _, why := range slices.Concat(a.Health.Reasons, a.Missing) {
			t.line(color, "%12s! %s", "", why)
		}
	}
}

// rows joins the cells of a device, in as many lines as hold them whole; the
// last one, what it is, may be cut instead.
func (t *topPrinter) rows(cells []string, widths []int) []string {
	const indent = 12 // of the lines after the first
	var lines []string
	line := ""
	for c, cell := range cells {
		if widths[c] == 0 {
			continue // it is unknown
		}
		pad := strings.Repeat(" ", widths[c]-utf8.RuneCountInString(cell))
		text := pad + cell
		if c == 0 || c >= len(cells)-2 {
			text = cell + pad
		}
		if needs := utf8.RuneCountInString(line + strings.TrimRight(text, " ")); needs > t.width && c < len(cells)-1 && line != "" {
			lines = append(lines, line)
			line = strings.Repeat(" ", indent)
			text = cell
		}
		line += text + "  "
	}
	return append(lines, line)
}

// accelerator is one row: name, load, memory in use, heat, power, health, what
// it is.
func (t *topPrinter) accelerator(a *hardware.Accelerator) []string {
	d, known := t.l.Devices[a.ID]
	load := strings.Repeat("·", t.barWidth()) + "    –"
	if known && d.Busy >= 0 {
		load = fmt.Sprintf("%s %3.0f%%", bar(d.Busy, t.barWidth()), 100*d.Busy)
	}
	memory := ""
	switch {
	case d.Used > 0 && a.Memory > 0:
		memory = d.Used.String() + " of " + a.Memory.String()
	case a.Memory > 0:
		memory = a.Memory.String()
	case d.Used > 0:
		memory = d.Used.String()
	}
	return []string{fmt.Sprintf("%-10s", a.ID), load, memory, when(d.Celsius > 0, fmt.Sprintf("%.0f °C", d.Celsius)), when(d.Watts > 0, fmt.Sprintf("%.0f W", d.Watts)),
		a.Health.State, strings.TrimSpace(a.Vendor + " " + a.Model)}
}

// heat lists the temperatures, as many on a line as it holds.
func (t *topPrinter) heat() {
	zones := t.l.Thermal
	if len(zones) == 0 {
		zones = t.m.Thermal
	}
	text := ""
	for _, z := range zones {
		one := fmt.Sprintf("%s %.1f °C", clip(z.Name), z.Celsius)
		if text != "" && utf8.RuneCountInString(text+"   "+one) > t.width {
			t.line("", "%s", text)
			text = ""
		}
		if text != "" {
			text += "   "
		}
		text += one
	}
	if text != "" {
		t.line("", "%s", text)
	}
}
