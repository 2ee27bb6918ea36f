package classes

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
	"time"

	"oscine.dev/oscine/internal/isolate"
)

// The plot's measures in pixels.
const (
	plotWidth, plotHeight    = 830, 420
	left, right, top, bottom = 70, 280, 50, 50
)

// colour tells series apart, also for those who see fewer colours.
func colour(s *Series) string {
	if s.Scheduler == SchedExt && s.Class == string(isolate.Interactive) {
		return "#cc79a7"
	}
	if s.Scheduler == SchedExt {
		return "#e69f00"
	}
	switch s.Class {
	case Default:
		return "#d55e00"
	case string(isolate.Interactive):
		return "#0072b2"
	case string(isolate.Realtime):
		return "#009e73"
	}
	return "#999999"
}

// plotStyle follows the viewer's colours, light or dark.
const plotStyle = `text{fill:#1a2330}.paper{fill:#fff}.grid{stroke:#ddd}.note{fill:#5b6675}
@media (prefers-color-scheme:dark){text{fill:#dfe8f5}.paper{fill:#0b1526}.grid{stroke:#2c3c55}.note{fill:#9db2cf}}`

// WriteSVG draws the share of wake-ups that came later than a latency, both on
// logarithmic axes: one line for each series, dashed without load. A series
// that could not be measured is named with the reason.
func (r *Report) WriteSVG(w io.Writer) error {
	all := r.measured()
	longest := max(r.longest(), 10*time.Microsecond)
	var most uint64 = 10
	for _, s := range all {
		most = max(most, s.Histogram.Count())
	}
	decadesX := math.Ceil(math.Log10(float64(longest) / 1e3))
	decadesY := math.Ceil(math.Log10(float64(most)))
	x := func(d time.Duration) float64 {
		at := math.Log10(math.Max(float64(d)/1e3, 1)) / decadesX
		return left + math.Min(at, 1)*(plotWidth-left-right)
	}
	y := func(share float64) float64 {
		at := -math.Log10(math.Max(share, math.Pow(10, -decadesY))) / decadesY
		return top + at*(plotHeight-top-bottom)
	}
	height := max(plotHeight, top+20*len(all)+34*(len(r.Series)-len(all))+10) // the legend's
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", plotWidth, height)
	fmt.Fprintf(&b, `<style>%s</style><rect class="paper" width="%d" height="%d"/>`+"\n", plotStyle, plotWidth, height)
	title := fmt.Sprintf("Wake-up latency, %d CPUs, Linux %s", r.CPUs, r.Kernel)
	if len(r.Loads) > 0 {
		title += ", load " + strings.Join(r.Loads, ", ")
	}
	fmt.Fprintf(&b, `<text x="%d" y="24" font-size="15">%s</text>`+"\n", left, html.EscapeString(title))
	for i := range int(decadesX) + 1 {
		at := x(time.Microsecond * time.Duration(math.Pow10(i)))
		fmt.Fprintf(&b, `<path d="M%.1f %dV%d" class="grid"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n",
			at, top, plotHeight-bottom, at, plotHeight-bottom+18, axisTime(i))
	}
	for i := range int(decadesY) + 1 {
		at := y(math.Pow10(-i))
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" class="grid"/><text x="%d" y="%.1f" text-anchor="end">%g %%</text>`+"\n",
			left, at, plotWidth-right, left-8, at+4, 100*math.Pow10(-i))
	}
	fmt.Fprintf(&b, `<text class="note" x="%d" y="%d" text-anchor="middle">wake-up latency</text>`+"\n", (left+plotWidth-right)/2, plotHeight-12)
	fmt.Fprintf(&b, `<text class="note" transform="translate(14 %d) rotate(-90)" text-anchor="middle">wake-ups that were later</text>`+"\n", (top+plotHeight-bottom)/2)
	for i, s := range all {
		dash := ""
		if !s.Loaded {
			dash = ` stroke-dasharray="5 4"`
		}
		fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="%s" stroke-width="2"%s/>`+"\n", line(&s, x, y), colour(&s), dash)
		at := top + 20*i
		fmt.Fprintf(&b, `<path d="M%d %dh28" stroke="%s" stroke-width="2"%s/><text x="%d" y="%d">%s</text>`+"\n",
			plotWidth-right+15, at, colour(&s), dash, plotWidth-right+50, at+4, html.EscapeString(s.Name()))
	}
	at := top + 20*len(all)
	for _, s := range r.Series {
		if s.Histogram != nil && s.Histogram.Count() > 0 {
			continue
		}
		reason := s.Problem
		if reason == "" {
			reason = "no wake-up was counted"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text><text class="note" font-size="10" x="%d" y="%d">%s</text>`+"\n",
			plotWidth-right+15, at+4, html.EscapeString(s.Name()+": not measured"), plotWidth-right+15, at+17, html.EscapeString(clip(reason)))
		at += 34
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// line is the path of one series.
func line(s *Series, x func(time.Duration) float64, y func(float64) float64) string {
	var b strings.Builder
	total := s.Histogram.Count()
	left := total
	fmt.Fprintf(&b, "M%.1f %.1f", x(0), y(1))
	for _, bucket := range s.Histogram.Buckets() {
		at := x(bucket.From)
		fmt.Fprintf(&b, "L%.1f %.1f", at, y(float64(left)/float64(total)))
		left -= bucket.Count
		fmt.Fprintf(&b, "L%.1f %.1f", at, y(float64(left)/float64(total)))
	}
	return b.String()
}

func axisTime(decade int) string {
	return []string{"1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s"}[min(decade, 8)]
}

// clip keeps a reason within the legend.
func clip(text string) string {
	const most = 46
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "…"
	}
	return text
}
