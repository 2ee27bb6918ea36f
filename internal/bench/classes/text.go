package classes

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"oscine.dev/oscine/internal/bench/latency"
)

// WriteText prints the quantiles, a histogram with a column for each series,
// and what this machine did not allow.
func (r *Report) WriteText(w io.Writer) error {
	load := "no load"
	if len(r.Loads) > 0 {
		load = "load " + strings.Join(r.Loads, ", ")
	}
	fmt.Fprintf(w, "Wake-up latency on %d CPUs, Linux %s, every %v for %v, %s\n\n", r.CPUs, r.Kernel, r.Period, r.Duration, load)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "µs\tp50\tp90\tp99\tp99.9\tmax\twake-ups\tpolicy\tbatch work\t")
	for _, s := range r.Series {
		if s.Histogram == nil {
			continue
		}
		h := s.Histogram
		work := "–"
		if s.Load != nil {
			work = fmt.Sprintf("%.0f/s", s.Load.Rate())
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t\n", s.Name(), micro(h.Quantile(.5)), micro(h.Quantile(.9)),
			micro(h.Quantile(.99)), micro(h.Quantile(.999)), micro(h.Max()), h.Count(), s.Policy, work)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, s := range r.Series {
		if s.Problem != "" {
			fmt.Fprintf(w, "\n%s was not measured: %s\n", s.Name(), s.Problem)
		}
	}
	fmt.Fprintln(w)
	if err := r.writeHistogram(w); err != nil {
		return err
	}
	if len(r.Gaps) > 0 {
		fmt.Fprintln(w, "\nWhat this machine does not hold:")
	}
	for _, g := range r.Gaps {
		if _, err := fmt.Fprintf(w, "  %s\n", g); err != nil {
			return err
		}
	}
	return nil
}

// steps are the rows of the histogram: 1, 2, 5 in each decade.
func steps(longest time.Duration) []time.Duration {
	var out []time.Duration
	for decade := time.Microsecond; ; decade *= 10 {
		for _, n := range []time.Duration{1, 2, 5} {
			out = append(out, n*decade)
			if n*decade >= longest {
				return out
			}
		}
	}
}

func (r *Report) measured() []Series {
	var out []Series
	for _, s := range r.Series {
		if s.Histogram != nil && s.Histogram.Count() > 0 {
			out = append(out, s)
		}
	}
	return out
}

func (r *Report) longest() time.Duration {
	var longest time.Duration
	for _, s := range r.measured() {
		longest = max(longest, s.Histogram.Max())
	}
	return longest
}

func (r *Report) writeHistogram(w io.Writer) error {
	all := r.measured()
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "up to µs\t")
	for _, s := range all {
		fmt.Fprintf(t, "%s\t", s.Name())
	}
	fmt.Fprintln(t)
	var below time.Duration = -1
	begun := false
	for _, step := range steps(r.longest()) {
		counts := make([]uint64, len(all))
		for i, s := range all {
			counts[i] = count(s.Histogram, below, step)
			begun = begun || counts[i] > 0
		}
		below = step
		if !begun {
			continue
		}
		fmt.Fprintf(t, "%d\t", step.Microseconds())
		for _, n := range counts {
			if n == 0 {
				fmt.Fprint(t, "·\t")
			} else {
				fmt.Fprintf(t, "%d\t", n)
			}
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// count is how many wake-ups took more than below and at most upTo.
func count(h *latency.Histogram, below, upTo time.Duration) uint64 {
	n := h.Count() - h.Above(upTo)
	if below >= 0 {
		n -= h.Count() - h.Above(below)
	}
	return n
}

func micro(d time.Duration) string {
	us := float64(d) / 1e3
	if us < 100 {
		return fmt.Sprintf("%.1f", us)
	}
	return fmt.Sprintf("%.0f", us)
}
