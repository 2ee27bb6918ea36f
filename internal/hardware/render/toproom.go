package render

import (
	"fmt"
	"strconv"
	"strings"
)

// The lines of the picture of what was busy: fewer tell nothing, more tell no
// more.
const (
	minHistory = 4
	maxHistory = 24
)

// cpus draws each CPU with its number, a bar and its share, in columns; the
// threads of a core side by side.
func (t *topPrinter) cpus() {
	var ids []int
	for _, p := range everyPackage(t.m) {
		for _, c := range t.m.Cores {
			if c.CPUs.Meets(p.CPUs) {
				ids = append(ids, c.CPUs.IDs()...)
			}
		}
	}
	if len(ids) == 0 {
		return
	}
	digits := 1
	for _, id := range ids {
		digits = max(digits, len(strconv.Itoa(id)))
	}
	const least, most, gap = 8, 48, 2 // of a bar, and between columns
	around := len("cpu ") + digits + 1 + len(" 100%")
	columns := min(len(ids), max(1, (t.width+gap)/(around+least+gap)))
	width := min(most, (t.width+gap)/columns-gap-around)
	rows := (len(ids) + columns - 1) / columns
	for row := range rows {
		var b strings.Builder
		for column := range columns {
			at := row*columns + column
			if at >= len(ids) {
				break
			}
			share := t.l.CPUs[ids[at]]
			fmt.Fprintf(&b, "cpu %*d %s %3.0f%%%s", digits, ids[at], bar(share, width), 100*share, strings.Repeat(" ", gap))
		}
		t.line(good, "%s", b.String())
	}
}

// history draws what share of all CPUs was busy, the newest at the right, in a
// number of lines with the title.
func (t *topPrinter) history(lines int) {
	height := lines - 1
	const scale = len("100% ")
	columns := min(t.width-scale, len(t.o.Busy))
	shares := t.o.Busy[len(t.o.Busy)-columns:]
	t.line("", "busy over time, now at the right")
	for row := range height {
		label := strings.Repeat(" ", scale)
		switch row {
		case 0:
			label = "100% "
		case height - 1:
			label = "  0% "
		}
		var b strings.Builder
		b.WriteString(label + strings.Repeat(" ", t.width-scale-columns))
		floor := float64(height - 1 - row)
		for _, share := range shares {
			switch filled := share*float64(height) - floor; {
			case filled >= 1:
				b.WriteRune('█')
			case filled > 0:
				b.WriteRune(level(filled))
			case row == height-1:
				b.WriteRune('▁')
			default:
				b.WriteByte(' ')
			}
		}
		t.line(good, "%s", b.String())
	}
}
