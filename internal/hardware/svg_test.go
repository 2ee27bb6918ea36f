package hardware

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/hardware/hardwaretest"
)

// TestDrawing looks at what the drawings of all described machines say: each
// CPU, node and accelerator once, and colours that the legend names.
func TestDrawing(t *testing.T) {
	for name, from := range hardwaretest.Machines() {
		t.Run(name, func(t *testing.T) {
			m := described(t, from)
			var b bytes.Buffer
			if err := WriteSVG(&b, m); err != nil {
				t.Fatal(err)
			}
			texts := countTexts(t, b.Bytes())
			for _, c := range m.Cores {
				label := strings.ReplaceAll(c.CPUs.String(), ",", " ")
				if texts[label] != 1 {
					t.Errorf("core with CPUs %s is drawn %d times", label, texts[label])
				}
			}
			for _, a := range m.Accelerators {
				if texts[a.ID] != 1 {
					t.Errorf("%s is drawn %d times", a.ID, texts[a.ID])
				}
			}
			for _, n := range m.Nodes {
				label := fmt.Sprintf("Node %d · %s", n.ID, n.Bytes)
				if n.Memory != "GPUMemory" && n.Bytes > 0 && texts[label] != 1 {
					t.Errorf("%q is drawn %d times", label, texts[label])
				}
			}
			if texts["core"]+texts["performance core"] == 0 {
				t.Error("no legend names the cores")
			}
		})
	}
}

// TestDrawingTellsLinks finds the bandwidth of each kind of link as text.
func TestDrawingTellsLinks(t *testing.T) {
	m := described(t, hardwaretest.Server8GPU())
	m.Links = []Link{{A: "gpu0", B: "gpu1", Kind: "nvlink", Count: 4, BytesPerSecond: 100e9}, {A: "gpu0", B: "gpu2", Kind: "nvlink", Count: 2, BytesPerSecond: 50e9}}
	var b bytes.Buffer
	if err := WriteSVG(&b, m); err != nil {
		t.Fatal(err)
	}
	texts := countTexts(t, b.Bytes())
	for _, want := range []string{"4 × nvlink, 100 GB/s", "2 × nvlink, 50 GB/s", "gpu0–gpu1", "gpu0–gpu2"} {
		if texts[want] != 1 {
			t.Errorf("%q is drawn %d times", want, texts[want])
		}
	}
}

// countTexts counts the texts of a drawing, as a browser shows them.
func countTexts(t *testing.T, data []byte) map[string]int {
	t.Helper()
	texts := map[string]int{}
	d := xml.NewDecoder(bytes.NewReader(data))
	inText := false
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return texts
		}
		if err != nil {
			t.Fatalf("the drawing is not XML: %v", err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			inText = token.Name.Local == "text"
		case xml.EndElement:
			inText = false
		case xml.CharData:
			if inText {
				texts[strings.Join(strings.Fields(string(token)), " ")]++
			}
		}
	}
}
