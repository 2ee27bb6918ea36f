package sim

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"

	"oscine.dev/oscine/internal/printable"
)

// Geometry of a plot, in pixels.
const (
	panelWidth, panelHeight   = 460, 300
	marginLeft, marginTop     = 64, 56
	gapBetween, legendHeight  = 72, 28
	marginRight, marginBottom = 24, 56
	maxPlots                  = 64
)

// WriteSVG draws, for each workload, allocated and fragmented GPU against
// arrived demand, one line a policy, the mean of the seeds.
func WriteSVG(w io.Writer, results []Result) error {
	groups := byWorkload(results)
	if len(groups) > maxPlots {
		return fmt.Errorf("%d workloads are too many for one picture, at most %d", len(groups), maxPlots)
	}
	rowHeight := marginTop + panelHeight + marginBottom + legendHeight
	width := marginLeft + 2*panelWidth + gapBetween + marginRight
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="13">`+"\n", width, rowHeight*len(groups))
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, rowHeight*len(groups))
	for i, group := range groups {
		top := i * rowHeight
		fmt.Fprintf(&b, `<text x="%d" y="%d" font-size="16" font-weight="bold">%s</text>`+"\n", marginLeft, top+24, escape("Workload "+group[0].Workload))
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end" fill="#555555">beside each policy: %% allocated when 100 %% has arrived</text>`+"\n", width-marginRight, top+24)
		allocated := newPanel(marginLeft, top+marginTop, "GPU allocated, % of capacity", group, func(c *Curve) *[columns]float64 { return &c.Allocated })
		fragmented := newPanel(marginLeft+panelWidth+gapBetween, top+marginTop, "GPU fragmented, % of capacity", group, func(c *Curve) *[columns]float64 { return &c.Fragmented })
		allocated.draw(&b)
		fragmented.draw(&b)
		legend(&b, marginLeft, top+marginTop+panelHeight+marginBottom, group)
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func byWorkload(results []Result) [][]Result {
	var groups [][]Result
	at := map[string]int{}
	for _, r := range results {
		i, ok := at[r.Workload]
		if !ok {
			i = len(groups)
			at[r.Workload] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], r)
	}
	return groups
}

// color tells policies apart, for the colour-blind too (Okabe and Ito).
func color(i int) string {
	palette := []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"}
	return palette[i%len(palette)]
}

func dash(i int) string {
	if i < 7 {
		return ""
	}
	return ` stroke-dasharray="6 3"`
}

// panel is one diagram.
type panel struct {
	x, y      int
	title     string
	lines     [][]float64 // by policy, by percent; NaN: no value
	lastX     int
	low, high float64
	step      float64
}

func newPanel(x, y int, title string, group []Result, of func(*Curve) *[columns]float64) *panel {
	p := &panel{x: x, y: y, title: title, low: math.Inf(1), high: math.Inf(-1)}
	for i := range group {
		line := make([]float64, columns)
		for at := range line {
			line[at], _ = meanAndDeviation(group[i].Curves, func(c *Curve) float64 { return of(c)[at] })
			if !math.IsNaN(line[at]) {
				p.lastX = max(p.lastX, at)
				p.low, p.high = min(p.low, line[at]), max(p.high, line[at])
			}
		}
		p.lines = append(p.lines, line)
	}
	p.scale()
	return p
}

// scale chooses round bounds and about five steps.
func (p *panel) scale() {
	if math.IsInf(p.low, 0) {
		p.low, p.high = 0, 1
	}
	p.low = min(p.low, 0)
	p.step = math.Pow(10, math.Floor(math.Log10(max(p.high-p.low, 1e-9)/2)))
	for (p.high-p.low)/p.step > 7 {
		p.step *= 2
		if (p.high-p.low)/p.step > 7 {
			p.step *= 2.5
		}
	}
	p.high = math.Ceil(p.high/p.step) * p.step
	p.lastX = max((p.lastX+9)/10*10, 10)
}

func (p *panel) at(x int, y float64) (float64, float64) {
	return float64(p.x) + float64(x)/float64(p.lastX)*panelWidth, float64(p.y) + panelHeight - (y-p.low)/(p.high-p.low)*panelHeight
}

func (p *panel) draw(b *strings.Builder) {
	fmt.Fprintf(b, `<text x="%d" y="%d">%s</text>`+"\n", p.x, p.y-10, escape(p.title))
	for v := p.low; v <= p.high+p.step/2; v += p.step {
		_, y := p.at(0, v)
		fmt.Fprintf(b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#dddddd"/><text x="%d" y="%.1f" text-anchor="end">%g</text>`+"\n", p.x, y, p.x+panelWidth, y, p.x-8, y+4, math.Round(v*1000)/1000)
	}
	for x := 0; x <= p.lastX; x += 10 {
		px, _ := p.at(x, p.low)
		fmt.Fprintf(b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#888888"/>`, px, p.y+panelHeight, px, p.y+panelHeight+4)
		if x%20 == 0 {
			fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n", px, p.y+panelHeight+20, x)
		}
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="middle">GPU demand arrived, %% of capacity</text>`+"\n", p.x+panelWidth/2, p.y+panelHeight+40)
	for i, line := range p.lines {
		var points strings.Builder
		for at, v := range line {
			if !math.IsNaN(v) && at <= p.lastX {
				x, y := p.at(at, v)
				fmt.Fprintf(&points, "%.1f,%.1f ", x, y)
			}
		}
		fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="1.8"%s points="%s"/>`+"\n", color(i), dash(i), strings.TrimSpace(points.String()))
	}
	fmt.Fprintf(b, `<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#444444"/>`+"\n", p.x, p.y, panelWidth, panelHeight)
}

// legend names the lines, with what each allocated of all that arrived by 100 %.
func legend(b *strings.Builder, x, y int, group []Result) {
	each := (2*panelWidth + gapBetween) / max(len(group), 1)
	for i := range group {
		mean, _ := meanAndDeviation(group[i].Curves, func(c *Curve) float64 { return c.Allocated[100] })
		at := x + i*each
		fmt.Fprintf(b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="%s" stroke-width="3"%s/>`, at, y, at+22, y, color(i), dash(i))
		fmt.Fprintf(b, `<text x="%d" y="%d">%s %s</text>`+"\n", at+28, y+4, escape(group[i].Policy), short(mean))
	}
}

// escape makes a name from a trace text of a drawing.
func escape(s string) string { return html.EscapeString(printable.Text(s)) }
