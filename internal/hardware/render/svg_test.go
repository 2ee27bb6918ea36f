package render

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/hardware/hardwaretest"
)

// TestSVG draws every described machine: the drawing is well-formed, keeps its
// boxes on the sheet, tells each core, node, accelerator, interface and disk
// once, and names the colours in its legend.
func TestSVG(t *testing.T) {
	for name, from := range hardwaretest.Machines() {
		t.Run(name, func(t *testing.T) {
			m := described(t, from)
			texts := drawn(t, m)
			once := []string{Title(m)}
			for _, c := range m.Cores {
				once = append(once, strings.ReplaceAll(c.CPUs.String(), ",", " "))
			}
			for _, n := range m.Nodes {
				if n.Memory != "GPUMemory" && n.Bytes > 0 {
					once = append(once, fmt.Sprintf("Node %d · %s", n.ID, n.Bytes))
				}
			}
			for _, a := range m.Accelerators {
				once = append(once, a.ID)
			}
			for _, i := range m.Interfaces {
				once = append(once, i.Name)
			}
			for _, d := range m.Disks {
				once = append(once, d.Name)
			}
			named := map[string]int{} // by the panel of links, once for each kind of link
			for _, s := range strands(m.Links) {
				for _, end := range (&drawing{m: m}).ends(s.pairs) {
					named[end]++
				}
			}
			for _, text := range once {
				if texts[text] != 1+named[text] {
					t.Errorf("%q is drawn %d times", text, texts[text])
				}
			}
			if texts["core"]+texts["performance core"] == 0 {
				t.Error("no legend names the cores")
			}
		})
	}
}

// TestSVGTellsLinks finds the bandwidth of each kind of link as text.
func TestSVGTellsLinks(t *testing.T) {
	m := described(t, hardwaretest.Server8GPU())
	m.Links = []hardware.Link{{A: "gpu0", B: "gpu1", Kind: "nvlink", Count: 4, BytesPerSecond: 100e9}, {A: "gpu0", B: "gpu2", Kind: "nvlink", Count: 2, BytesPerSecond: 50e9}}
	texts := drawn(t, m)
	for _, want := range []string{"4 × nvlink, 100 GB/s", "2 × nvlink, 50 GB/s", "gpu3"} {
		if texts[want] != 1 {
			t.Errorf("%q is drawn %d times", want, texts[want])
		}
	}
	// In its place, and in the panel once for each kind of link.
	for name, want := range map[string]int{"gpu0": 3, "gpu1": 2, "gpu2": 2} {
		if texts[name] != want {
			t.Errorf("%q is drawn %d times, want %d", name, texts[name], want)
		}
	}
}

// TestSVGManyLinks draws a matrix where arcs could not be followed.
func TestSVGManyLinks(t *testing.T) {
	m := described(t, hardwaretest.Server8GPU())
	for i := range 20 {
		m.Links = append(m.Links, hardware.Link{A: fmt.Sprintf("gpu%d", i), B: fmt.Sprintf("gpu%d", i+1), Kind: "xgmi"})
	}
	var out strings.Builder
	if err := SVG(&out, m); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(out.String(), `class="joined"`); got != 40 {
		t.Errorf("%d cells are marked, want two for each of 20 pairs", got)
	}
	if strings.Contains(out.String(), `class="link"`) {
		t.Error("arcs are drawn too")
	}
}

// TestSVGEscapes draws a map whose names would break the drawing.
func TestSVGEscapes(t *testing.T) {
	m := described(t, hardwaretest.HybridLaptop())
	m.System.Product = `<script>alert("x")</script>`
	for i := range m.Accelerators {
		m.Accelerators[i].Kind, m.Accelerators[i].Model = `"><svg onload="x`, "a & b"
	}
	m.Interfaces = []hardware.Interface{{Name: "<eth0>"}}
	if texts := drawn(t, m); texts["<eth0>"] != 1 || texts[Title(m)] != 1 {
		t.Error("a name got out of its place in the drawing")
	}
}

// drawn draws a machine and counts the texts, as a browser shows them.
func drawn(t *testing.T, m *hardware.Machine) map[string]int {
	t.Helper()
	var b bytes.Buffer
	if err := SVG(&b, m); err != nil {
		t.Fatal(err)
	}
	texts := map[string]int{}
	var width, height float64
	d := xml.NewDecoder(&b)
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return texts
		}
		if err != nil {
			t.Fatalf("the drawing is not XML: %v", err)
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		switch e.Name.Local {
		case "svg":
			for _, a := range e.Attr {
				if _, err := fmt.Sscanf(a.Value, "0 0 %g %g", &width, &height); a.Name.Local == "viewBox" && err != nil {
					t.Fatalf("viewBox %q: %v", a.Value, err)
				}
			}
		case "text":
			var content string
			if err := d.DecodeElement(&content, &e); err != nil {
				t.Fatal(err)
			}
			texts[strings.Join(strings.Fields(content), " ")]++
		case "rect":
			var r struct {
				X float64 `xml:"x,attr"`
				Y float64 `xml:"y,attr"`
				W float64 `xml:"width,attr"`
				H float64 `xml:"height,attr"`
			}
			if err := d.DecodeElement(&r, &e); err != nil {
				t.Fatal(err)
			}
			if r.X < 0 || r.Y < 0 || r.X+r.W > width+1 || r.Y+r.H > height+1 || r.W <= 0 || r.H <= 0 {
				t.Errorf("box %+v is not on the sheet of %g × %g", r, width, height)
			}
		case "script":
			t.Error("a name became a script")
		}
	}
}
