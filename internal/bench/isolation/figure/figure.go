package figure

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"oscine.dev/oscine/internal/bench/latency"
)

// Mark begins a line that holds a Figure.
const Mark = "figure "

// Names of configurations that the ratios are made of.
const (
	Unloaded    = "unloaded"
	Default     = "all default"
	Idle        = "plain cpu.idle=1"
	Interactive = "oscine interactive"
	Serving     = "oscine serving path"
	NoUrgency   = "oscine served, no urgency"
	Served      = "oscine served, urgency by deadline"
	ServedExt   = "oscine served, sched_ext"
	Realtime    = "oscine realtime"
	SchedExt    = "oscine interactive, sched_ext"
	Stall       = " beside memory load" // follows the class
)

// Figure is what one configuration measured.
type Figure struct {
	Name     string                 `json:"name"`
	CPUs     int                    `json:"cpus"`
	Worker   *latency.WorkerReport  `json:"worker,omitempty"`
	Load     *latency.LoadReport    `json:"load,omitempty"`
	Requests *latency.RequestReport `json:"requests,omitempty"`
}

// Ratios are the product's figures by those it is measured against; nil where
// a run did not measure both.
type Ratios struct {
	// InteractiveP99 is the worst, over numbers of CPUs, of the interactive
	// class's p99 wake-up under full batch load by the same unloaded.
	InteractiveP99 *float64 `json:"interactive_p99"`
	// ServingP99 is the same for a thread of the product's serving path.
	ServingP99 *float64 `json:"serving_p99"`
	// RealtimeP99 is the same for the real-time class.
	RealtimeP99 *float64 `json:"realtime_p99"`
	// BatchThroughput is the least, over configurations, of batch work done
	// for each second of CPU left over, by that of default Linux.
	BatchThroughput *float64 `json:"batch_throughput"`
	// DeadlineMiss is the share of tight requests missed by the serving path,
	// by that of plain cpu.idle.
	DeadlineMiss *float64 `json:"deadline_miss"`
	// ServedMiss is the share of tight requests to models that came late
	// through the product's whole serving path, by that of the same path
	// without urgency, under the better back end.
	ServedMiss *float64 `json:"served_miss"`
	// DefaultP99 is default Linux's p99 under load by the same unloaded, to
	// know what the others are worth.
	DefaultP99 *float64 `json:"default_p99"`
}

// Report is the file that a run leaves.
type Report struct {
	Kernel  string   `json:"kernel"`
	Method  string   `json:"method"`
	Seconds int      `json:"seconds"` // of virtual time for each figure
	Figures []Figure `json:"figures"`
	Ratios  Ratios   `json:"ratios"`
}

// find returns the figure of a configuration, or nil.
func find(all []Figure, name string, cpus int, requests bool) *Figure {
	for i := range all {
		if f := &all[i]; f.Name == name && f.CPUs == cpus && (f.Requests != nil) == requests {
			return f
		}
	}
	return nil
}

func cpuCounts(all []Figure) []int {
	var counts []int
	seen := map[int]bool{}
	for _, f := range all {
		if !seen[f.CPUs] {
			seen[f.CPUs] = true
			counts = append(counts, f.CPUs)
		}
	}
	return counts
}

// Judge computes the ratios.
func Judge(all []Figure) Ratios {
	var r Ratios
	worse := func(have **float64, value float64) {
		if *have == nil || value > **have {
			*have = &value
		}
	}
	for _, cpus := range cpuCounts(all) {
		p99 := func(name string) float64 {
			f := find(all, name, cpus, false)
			if f == nil {
				return 0
			}
			return float64(f.Worker.Histogram.Quantile(.99))
		}
		compare := func(ratio **float64, loaded, unloaded string) {
			if a, b := p99(loaded), p99(unloaded); a > 0 && b > 0 {
				worse(ratio, a/b)
			}
		}
		compare(&r.InteractiveP99, Interactive, Interactive+", unloaded")
		compare(&r.ServingP99, Serving, Serving+", unloaded")
		compare(&r.RealtimeP99, Realtime, Realtime+", unloaded")
		compare(&r.DefaultP99, Default, Unloaded)
		for _, name := range []string{Interactive, Serving} {
			f, base := find(all, name, cpus, false), find(all, Default, cpus, false)
			if f != nil && base != nil {
				if value := f.efficiency() / base.efficiency(); r.BatchThroughput == nil || value < *r.BatchThroughput {
					r.BatchThroughput = &value
				}
			}
		}
		f, base := find(all, Serving, cpus, true), find(all, Idle, cpus, true)
		if f != nil && base != nil && base.tightMiss() > 0 {
			worse(&r.DeadlineMiss, f.tightMiss()/base.tightMiss())
		}
		if base := find(all, NoUrgency, cpus, true); base != nil && base.tightMiss() > 0 {
			best := math.Inf(1)
			for _, name := range []string{Served, ServedExt} {
				if f := find(all, name, cpus, true); f != nil {
					best = min(best, f.tightMiss()/base.tightMiss())
				}
			}
			if !math.IsInf(best, 1) {
				worse(&r.ServedMiss, best)
			}
		}
	}
	return r
}

// efficiency is batch work for each second of CPU that the worker left over.
// It means nothing where a CPU is set aside: idle, it leaves its turns of the
// common virtual clock to the others.
func (f *Figure) efficiency() float64 {
	left := time.Duration(f.CPUs)*f.Load.Elapsed - f.Worker.CPUTime
	return float64(f.Load.Units) / left.Seconds()
}

func (f *Figure) tightMiss() float64 { return f.Requests.Kinds[0].MissRate() }

// WriteTables prints the tables of wake-ups and of missed deadlines.
func (r *Report) WriteTables(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	r.table(t, "wake-up p50/p99/max, µs", "batch", false, func(f *Figure) (string, string) {
		h := &f.Worker.Histogram
		return fmt.Sprintf("%s/%s/%s", micro(h.Quantile(.5)), micro(h.Quantile(.99)), micro(h.Max())), batchText(f, find(r.Figures, Default, f.CPUs, false))
	})
	fmt.Fprintln(t)
	r.table(t, "tight requests missed", "loose", true, func(f *Figure) (string, string) {
		return fmt.Sprintf("%.1f %%", 100*f.tightMiss()), fmt.Sprintf("%.1f %%", 100*f.Requests.Kinds[1].MissRate())
	})
	return t.Flush()
}

// table prints one row a policy, with two cells for each number of CPUs.
func (r *Report) table(w io.Writer, title, second string, requests bool, cells func(*Figure) (string, string)) {
	counts := cpuCounts(r.Figures)
	fmt.Fprint(w, title)
	for _, cpus := range counts {
		fmt.Fprintf(w, "\t%d vCPU\t%s", cpus, second)
	}
	fmt.Fprintln(w)
	for _, name := range r.names(requests) {
		fmt.Fprint(w, name)
		for _, cpus := range counts {
			first, other := "–", "–"
			if f := find(r.Figures, name, cpus, requests); f != nil {
				first, other = cells(f)
			}
			fmt.Fprintf(w, "\t%s\t%s", first, other)
		}
		fmt.Fprintln(w)
	}
}

// WriteRatios prints the ratios with their targets.
func (r *Report) WriteRatios(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(what string, value *float64, target string) {
		text := "not measured"
		if value != nil {
			text = fmt.Sprintf("%.3g", *value)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", what, text, target)
	}
	fmt.Fprintln(t, "ratio\tmeasured\ttarget")
	line("default Linux: p99 under load / unloaded", r.Ratios.DefaultP99, "")
	line("interactive: p99 under load / unloaded", r.Ratios.InteractiveP99, "≤ 1.5")
	line("serving path: p99 under load / unloaded", r.Ratios.ServingP99, "")
	line("realtime: p99 under load / unloaded", r.Ratios.RealtimeP99, "≤ 1.2")
	line("batch throughput / default Linux", r.Ratios.BatchThroughput, "≥ 0.95")
	line("tight deadlines missed / plain cpu.idle", r.Ratios.DeadlineMiss, "≤ 0.25")
	line("tight requests to models missed / without urgency", r.Ratios.ServedMiss, "≤ 0.25")
	return t.Flush()
}

func (r *Report) names(requests bool) []string {
	var names []string
	seen := map[string]bool{}
	for _, f := range r.Figures {
		if (f.Requests != nil) == requests && !seen[f.Name] {
			seen[f.Name] = true
			names = append(names, f.Name)
		}
	}
	return names
}

func batchText(f, base *Figure) string {
	if f.Load == nil || base == nil || strings.HasPrefix(f.Name, Realtime) {
		return "–"
	}
	return fmt.Sprintf("%.1f %%", 100*f.efficiency()/base.efficiency())
}

func micro(d time.Duration) string {
	us := float64(d) / 1e3
	if us < 100 {
		return fmt.Sprintf("%.1f", us)
	}
	return fmt.Sprintf("%.0f", us)
}
