package hardware

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// WriteTop writes one picture of a machine under load, in lines of at most
// width characters: each CPU as a bar, memory of the nodes, accelerators.
// Where that needs more lines than height, unless it is 0, what says least is
// left out, and how much.
func WriteTop(w io.Writer, m *Machine, l Load, width, height int) error {
	t := &topPrinter{m: m, l: l, width: max(40, width)}
	t.line("%s", Title(m))
	busy := 0.0
	for _, share := range l.CPUs {
		busy += share
	}
	t.line("%d CPUs  %.0f%% busy", m.Online.Len(), 100*busy/float64(max(1, len(l.CPUs))))
	for _, p := range m.Packages {
		t.pack(p)
	}
	for _, n := range m.Nodes {
		t.node(n)
	}
	for i := range m.Accelerators {
		t.accelerator(&m.Accelerators[i])
	}
	zones := l.Thermal
	if len(zones) == 0 {
		zones = m.Thermal
	}
	for _, z := range zones {
		t.line("%-20s %5.1f °C", clip(z.Name), z.Celsius)
	}
	_, err := io.WriteString(w, t.out.String())
	return err
}

type topPrinter struct {
	m     *Machine
	l     Load
	width int
	out   strings.Builder
}

func (t *topPrinter) line(format string, args ...any) {
	text := strings.TrimRight(fmt.Sprintf(format, args...), " ")
	if utf8.RuneCountInString(text) > t.width {
		text = string([]rune(text)[:t.width])
	}
	t.out.WriteString(text + "\n")
}

// pack draws one character a CPU, the threads of a core side by side.
func (t *topPrinter) pack(p Package) {
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
	room := max(8, (t.width-len(head))/8*8)
	for len(cells) > 0 {
		n := min(room, len(cells))
		t.line("%s%s", head, string(cells[:n]))
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

func (t *topPrinter) node(n Node) {
	used, ok := t.l.Used[n.ID]
	if n.Bytes == 0 || !ok {
		return
	}
	t.line("node %-6d %s %9s of %s %s", n.ID, bar(float64(used)/float64(n.Bytes), 24), used, n.Bytes, n.Memory)
}

func (t *topPrinter) accelerator(a *Accelerator) {
	d, known := t.l.Devices[a.ID]
	load := strings.Repeat("·", 24) + "    –"
	if known && d.Busy >= 0 {
		load = fmt.Sprintf("%s %3.0f%%", bar(d.Busy, 24), 100*d.Busy)
	}
	memory := a.Memory.String()
	if a.Memory == 0 {
		memory = ""
	}
	if d.Used > 0 {
		memory = d.Used.String() + " of " + memory
	}
	t.line("%-11s %s  %s%s%s  %s  %s", a.ID, load, memory, when(d.Celsius > 0, fmt.Sprintf("  %.0f °C", d.Celsius)), when(d.Watts > 0, fmt.Sprintf("  %.0f W", d.Watts)),
		a.Health.State, strings.TrimSpace(a.Vendor+" "+a.Model))
	for _, why := range append(a.Health.Reasons, a.Missing...) {
		t.line("%11s ! %s", "", why)
	}
}
