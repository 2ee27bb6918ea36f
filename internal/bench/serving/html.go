package serving

import (
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"oscine.dev/oscine/internal/bench/latency"
)

// pageStyle's colours follow the viewer's, light or dark.
const pageStyle = `:root{color-scheme:light dark;--ink:#1a2330;--paper:#fff;--line:#d8dde5;--note:#5b6675;--a:#0072b2;--b:#d55e00;--c:#009e73}
@media (prefers-color-scheme:dark){:root{--ink:#dfe8f5;--paper:#0b1526;--line:#2c3c55;--note:#9db2cf;--a:#56b4e9;--b:#e69f00;--c:#2bc79a}}
body{font:15px/1.5 sans-serif;color:var(--ink);background:var(--paper);max-width:860px;margin:2em auto;padding:0 1em}
h1{font-size:1.3em}h2{font-size:1.05em;margin:1.6em 0 .3em}th{text-align:left;font-weight:normal;color:var(--note);padding-right:1.5em;vertical-align:top;white-space:nowrap}
svg{width:100%;height:auto;font-size:12px}text{fill:var(--ink)}.note{fill:var(--note)}.grid{stroke:var(--line)}`

// WriteHTML writes the report as one page with plots. It needs no script and
// nothing from elsewhere.
func (r *Report) WriteHTML(w io.Writer) error {
	var b strings.Builder
	title := html.EscapeString(r.title())
	fmt.Fprintf(&b, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n<title>%s</title>\n<style>%s</style></head><body>\n<h1>%s</h1>\n", title, pageStyle, title)
	fmt.Fprintf(&b, "<table>\n<tr><th>began</th><td>%s</td></tr>\n", r.Began.Format(time.RFC3339))
	for _, f := range r.facts() {
		fmt.Fprintf(&b, "<tr><th>%s</th><td>%s</td></tr>\n", html.EscapeString(f[0]), html.EscapeString(f[1]))
	}
	b.WriteString("</table>\n")
	if r.Latency.Count() > 0 {
		b.WriteString("<h2>Latency by percentile</h2>\n")
		r.plotPercentiles(&b)
		b.WriteString("<h2>Requests by latency</h2>\n")
		r.plotHistogram(&b)
		b.WriteString("<h2>Latency over time</h2>\n")
		r.plotOverTime(&b, "", func(w Window) []float64 { return []float64{seconds(w.P50), seconds(w.P99)} }, "p50", "p99")
	}
	if len(r.Timeline) > 0 {
		b.WriteString("<h2>Requests over time</h2>\n")
		names := []string{"answered/s"}
		if r.Failed > 0 {
			names = append(names, "failed/s")
		}
		r.plotOverTime(&b, "/s", func(w Window) []float64 {
			each := math.Max(w.Length.Seconds(), 1e-3)
			return []float64{float64(w.Answered) / each, float64(w.Failed) / each}[:len(names)]
		}, names...)
	}
	b.WriteString("</body></html>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func seconds(d time.Duration) float64 { return d.Seconds() }

// The plots' measures.
const (
	plotWidth, plotHeight        = 820, 260
	edgeLeft, edgeRight, edgeTop = 74, 30, 22
	edgeBottom                   = 34
)

func colours() []string { return []string{"var(--a)", "var(--b)", "var(--c)"} }

// mark is a name at a place of an axis, from 0 to 1.
type mark struct {
	at   float64
	name string
}

// axes begins a plot and draws the lines of its marks.
func axes(b *strings.Builder, xs, ys []mark) {
	fmt.Fprintf(b, `<svg viewBox="0 0 %d %d" role="img">`+"\n", plotWidth, plotHeight)
	for _, m := range xs {
		at, name := m.at, m.name
		fmt.Fprintf(b, `<path class="grid" d="M%.1f %dV%d"/><text class="note" x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", across(at), edgeTop, plotHeight-edgeBottom, across(at), plotHeight-edgeBottom+17, name)
	}
	for _, m := range ys {
		at, name := m.at, m.name
		fmt.Fprintf(b, `<path class="grid" d="M%d %.1fH%d"/><text class="note" x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", edgeLeft, up(at), plotWidth-edgeRight, edgeLeft-8, up(at)+4, name)
	}
}

func across(at float64) float64 { return edgeLeft + at*(plotWidth-edgeLeft-edgeRight) }
func up(at float64) float64 {
	return plotHeight - edgeBottom - at*(plotHeight-edgeTop-edgeBottom)
}

// logAxis is a logarithmic axis of durations, whose ends are steps.
type logAxis struct{ low, high float64 }

func axisOf(shortest, longest time.Duration) (logAxis, []mark) {
	steps := latency.Steps(max(shortest, 1), max(longest, 2))
	if len(steps) < 2 {
		steps = append([]time.Duration{steps[0] / 2}, steps...)
	}
	a := logAxis{math.Log(float64(max(steps[0], 1))), math.Log(float64(steps[len(steps)-1]))}
	var marks []mark
	for _, s := range steps {
		if len(steps) > 12 && !decade(s) {
			continue
		}
		marks = append(marks, mark{a.place(s), latency.StepName(s)})
	}
	return a, marks
}

// decade reports whether a step is a power of ten.
func decade(d time.Duration) bool {
	exact := math.Log10(float64(d))
	return math.Abs(exact-math.Round(exact)) < 1e-9
}

func (a logAxis) place(d time.Duration) float64 {
	return min(max((math.Log(float64(max(d, 1)))-a.low)/(a.high-a.low), 0), 1)
}

// plotPercentiles draws the latency that each share of requests kept; the last
// percents are as wide as the first 90.
func (r *Report) plotPercentiles(b *strings.Builder) {
	a, ys := axisOf(r.Latency.Min(), r.Latency.Max())
	nines := math.Max(math.Ceil(math.Log10(float64(r.Latency.Count()))), 1)
	place := func(share float64) float64 { return math.Min(-math.Log10(math.Max(1-share, 1e-12))/nines, 1) }
	xs := []mark{{0, "0"}, {place(.5), "50 %"}}
	for n := range int(nines) {
		share := 1 - math.Pow10(-n-1)
		xs = append(xs, mark{place(share), fmt.Sprintf("%g %%", math.Round(share*1e9)/1e7)})
	}
	axes(b, xs, ys)
	var line strings.Builder
	total, seen := float64(r.Latency.Count()), uint64(0)
	fmt.Fprintf(&line, "M%.1f %.1f", across(0), up(a.place(r.Latency.Min())))
	for _, bucket := range r.Latency.Buckets() {
		seen += bucket.Count
		fmt.Fprintf(&line, "L%.1f %.1f", across(place(float64(seen)/total)), up(a.place(min(bucket.From, r.Latency.Max()))))
	}
	fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/></svg>`+"\n", line.String(), colours()[0])
}

// plotHistogram draws how many requests had each latency.
func (r *Report) plotHistogram(b *strings.Builder) {
	a, xs := axisOf(r.Latency.Min(), r.Latency.Max())
	const bars = 80
	var counts [bars]uint64
	most := uint64(1)
	for _, bucket := range r.Latency.Buckets() {
		i := min(int(a.place(bucket.From)*bars), bars-1)
		counts[i] += bucket.Count
		most = max(most, counts[i])
	}
	top, ys := linear(float64(most), "")
	axes(b, xs, ys)
	for i, n := range counts {
		if n > 0 {
			left, high := across(float64(i)/bars), up(float64(n)/top)
			fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", left, high, across(float64(i+1)/bars)-left-1, up(0)-high, colours()[0])
		}
	}
	b.WriteString("</svg>\n")
}

// linear is an axis from 0 to a round number not below most.
func linear(most float64, unit string) (top float64, marks []mark) {
	step := math.Pow10(int(math.Floor(math.Log10(math.Max(most, 1e-9)))))
	for _, n := range []float64{.2, .5, 1, 2} {
		if most <= 5*n*step {
			step *= n
			break
		}
	}
	steps := math.Max(math.Ceil(most/step), 1)
	for i := 0.0; i <= steps; i++ {
		marks = append(marks, mark{i / steps, fmt.Sprintf("%g%s", math.Round(i*step*1e9)/1e9, unit)})
	}
	return steps * step, marks
}

// plotOverTime draws lines, one value of each for each window. Without a unit
// the values are seconds, on a logarithmic axis.
func (r *Report) plotOverTime(b *strings.Builder, unit string, values func(Window) []float64, names ...string) {
	most, least := 0.0, math.Inf(1)
	for _, w := range r.Timeline {
		for _, v := range values(w) {
			most = math.Max(most, v)
			if v > 0 {
				least = math.Min(least, v)
			}
		}
	}
	end := r.Timeline[len(r.Timeline)-1]
	length := math.Max((end.From + end.Length).Seconds(), 1e-3)
	top, xs := linear(length, " s")
	for i := range xs {
		xs[i].at *= top / length
	}
	xs = slices.DeleteFunc(xs, func(m mark) bool { return m.at > 1 })
	var place func(v float64) float64
	var ys []mark
	if unit == "" {
		var a logAxis
		a, ys = axisOf(time.Duration(least*1e9), time.Duration(most*1e9))
		place = func(v float64) float64 { return a.place(time.Duration(v * 1e9)) }
	} else {
		top, ys = linear(most, unit)
		place = func(v float64) float64 { return v / top }
	}
	axes(b, xs, ys)
	for i, name := range names {
		var line strings.Builder
		pen := "M"
		for _, w := range r.Timeline {
			v := values(w)[i]
			if w.Length < end.From/100 { // the rest of a long run, too short for a rate
				continue
			}
			if unit == "" && v == 0 { // nothing was answered
				pen = "M"
				continue
			}
			fmt.Fprintf(&line, "%s%.1f %.1f", pen, across((w.From+w.Length/2).Seconds()/length), up(place(v)))
			pen = "L"
		}
		fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/><path d="M%d 10h18" stroke="%s" stroke-width="2"/><text x="%d" y="14">%s</text>`+"\n",
			line.String(), colours()[i], edgeLeft+110*i, colours()[i], edgeLeft+110*i+24, name)
	}
	b.WriteString("</svg>\n")
}
