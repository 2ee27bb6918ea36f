package latency

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Steps are the durations 1, 2 and 5 of each decade, from the largest that is
// not above shortest to the first that is not below longest.
func Steps(shortest, longest time.Duration) []time.Duration {
	var steps []time.Duration
	for decade := time.Duration(1); ; decade *= 10 {
		for _, n := range []time.Duration{1, 2, 5} {
			step := n * decade
			if step <= shortest {
				steps = steps[:0]
			}
			if steps = append(steps, step); step >= longest {
				return steps
			}
		}
	}
}

// barWidth is the length of the longest bar.
const barWidth = 40

// WriteBars draws how many values lie below each step, as bars of text.
func (h *Histogram) WriteBars(w io.Writer) error {
	if h.n == 0 {
		return nil
	}
	steps := Steps(h.min, h.max)
	counts := make([]uint64, len(steps))
	before := uint64(0)
	for i, step := range steps {
		below := h.n - h.Above(step)
		counts[i], before = below-before, below
	}
	return WriteBars(w, steps, counts)
}

// WriteBars draws how many values lie up to each of the steps, which ascend, and
// above the one before; it leaves out steps without values at both ends.
func WriteBars(w io.Writer, steps []time.Duration, counts []uint64) error {
	first, last, most := len(steps), -1, uint64(1)
	for i, n := range counts {
		if n > 0 {
			first, last, most = min(first, i), i, max(most, n)
		}
	}
	for i := first; i <= last; i++ {
		if _, err := fmt.Fprintf(w, "%8s  %-*s  %d\n", "≤ "+StepName(steps[i]), barWidth, bar(counts[i], most), counts[i]); err != nil {
			return err
		}
	}
	return nil
}

// bar is as long as n is of most, in eighths of a cell.
func bar(n, most uint64) string {
	eighths := (n*barWidth*8 + most - 1) / most
	text := strings.Repeat("█", int(eighths/8))
	if rest := eighths % 8; rest > 0 {
		text += string([]rune(" ▏▎▍▌▋▊▉")[rest])
	}
	return text
}

// Short is a duration with three digits that count.
func Short(d time.Duration) string {
	unit, name := time.Nanosecond, "ns"
	switch {
	case d >= time.Second:
		unit, name = time.Second, "s"
	case d >= time.Millisecond:
		unit, name = time.Millisecond, "ms"
	case d >= time.Microsecond:
		unit, name = time.Microsecond, "µs"
	}
	value := float64(d) / float64(unit)
	switch {
	case value >= 99.95 || unit == time.Nanosecond:
		return fmt.Sprintf("%.0f %s", value, name)
	case value >= 9.995:
		return fmt.Sprintf("%.1f %s", value, name)
	}
	return fmt.Sprintf("%.2f %s", value, name)
}

// StepName is a step without the zeros that say nothing.
func StepName(d time.Duration) string {
	number, unit, _ := strings.Cut(Short(d), " ")
	if strings.Contains(number, ".") {
		number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
	}
	return number + " " + unit
}
