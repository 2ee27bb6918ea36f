package hardware

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/hardware/hardwaretest"
)

// TestGolden compares the printed tree of every described machine with a file,
// one diff each.
func TestGolden(t *testing.T) {
	for name, from := range hardwaretest.Machines() {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := WriteTree(&b, described(t, from), false); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(string(want), b.String()); diff != "" {
				t.Errorf("tree (-file +now), go test -update rewrites it:\n%s", diff)
			}
		})
	}
}

// TestSVG checks that the drawing of every described machine is well-formed
// XML, names every accelerator, interface and disk, and keeps its boxes within
// the sheet.
func TestSVG(t *testing.T) {
	for name, from := range hardwaretest.Machines() {
		t.Run(name, func(t *testing.T) {
			m := described(t, from)
			var b bytes.Buffer
			if err := WriteSVG(&b, m); err != nil {
				t.Fatal(err)
			}
			texts := svgTexts(t, b.String())
			want := []string{Title(m)}
			for _, a := range m.Accelerators {
				want = append(want, a.ID)
			}
			for _, i := range m.Interfaces {
				want = append(want, i.Name)
			}
			for _, d := range m.Disks {
				want = append(want, d.Name)
			}
			for _, w := range want {
				if !texts[w] {
					t.Errorf("the drawing does not name %s", w)
				}
			}
		})
	}
}

// TestSVGEscapes draws a map whose names would break the drawing.
func TestSVGEscapes(t *testing.T) {
	m := described(t, hardwaretest.HybridLaptop())
	m.System.Product = `<script>alert("x")</script>`
	for i := range m.Accelerators {
		m.Accelerators[i].Kind, m.Accelerators[i].Model = `"><svg onload="x`, "a & b"
	}
	m.Interfaces = []Interface{{Name: "<eth0>"}}
	var b bytes.Buffer
	if err := WriteSVG(&b, m); err != nil {
		t.Fatal(err)
	}
	texts := svgTexts(t, b.String())
	if !texts["<eth0>"] || strings.Contains(b.String(), "<script") || strings.Contains(b.String(), "<svg onload") {
		t.Error("a name got out of its place in the drawing")
	}
}

func svgTexts(t *testing.T, svg string) map[string]bool {
	t.Helper()
	type rect struct {
		X float64 `xml:"x,attr"`
		Y float64 `xml:"y,attr"`
		W float64 `xml:"width,attr"`
		H float64 `xml:"height,attr"`
	}
	texts := map[string]bool{}
	var sheet rect
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return texts
		}
		if err != nil {
			t.Fatal(err)
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		switch e.Name.Local {
		case "svg":
			for _, a := range e.Attr {
				if a.Name.Local == "viewBox" {
					var box []float64
					for _, f := range strings.Fields(a.Value) {
						box = append(box, parseFloat(t, f))
					}
					sheet = rect{box[0], box[1], box[2], box[3]}
				}
			}
		case "text":
			var content string
			if err := d.DecodeElement(&content, &e); err != nil {
				t.Fatal(err)
			}
			texts[content] = true
		case "rect":
			var r rect
			if err := d.DecodeElement(&r, &e); err != nil {
				t.Fatal(err)
			}
			if r.X < 0 || r.Y < 0 || r.X+r.W > sheet.W+1 || r.Y+r.H > sheet.H+1 || r.W <= 0 || r.H <= 0 {
				t.Errorf("box %+v is not on the sheet %+v", r, sheet)
			}
		}
	}
}

func parseFloat(t *testing.T, text string) float64 {
	t.Helper()
	var f float64
	if err := xml.Unmarshal([]byte("<f>"+text+"</f>"), &f); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestDOT(t *testing.T) {
	var b bytes.Buffer
	if err := WriteDOT(&b, described(t, hardwaretest.Server8MI300X())); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"node0" -- "node1" [style=dotted, label="21"];`, `"0000:13:00.0" -- "0000:c4:00.0" [color=green`, `"0000:12:00.0" -- "0000:13:00.0" [label="x16 63 GB/s"];`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the graph lacks %s", want)
		}
	}
}
