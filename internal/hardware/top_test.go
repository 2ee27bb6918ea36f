package hardware

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	gocmp "github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/hardware/hardwaretest"
)

// TestTop compares one picture of a machine under load with a file.
func TestTop(t *testing.T) {
	m := described(t, hardwaretest.Server8MI300X())
	l := Load{CPUs: map[int]float64{}, Used: map[int]Bytes{0: 300 << 30, 1: 900 << 30}, Devices: map[string]DeviceLoad{
		"gpu0": {Busy: 0.95, Used: 180 << 30, Celsius: 71, Watts: 690},
		"gpu1": {Busy: -1},
		"gpu2": {Busy: 1, Used: 192 << 30},
	}}
	for id := range 192 {
		l.CPUs[id] = float64(id%9) / 8
	}
	m.Accelerators[7] = lost(m.Accelerators[7])
	var b bytes.Buffer
	if err := WriteTop(&b, m, l, TopOptions{Width: 100}); err != nil {
		t.Fatal(err)
	}
	const file = "testdata/top.txt"
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
		t.Errorf("picture (-file +now), go test -update rewrites it:\n%s", diff)
	}
}

// TestTopFits draws machines into little room.
func TestTopFits(t *testing.T) {
	for name, from := range hardwaretest.Machines() {
		m := described(t, from)
		l := Load{Used: map[int]Bytes{}, Thermal: []Zone{{Name: "soc", Celsius: 41}, {Name: "disk", Celsius: 52.5}}}
		for _, n := range m.Nodes {
			l.Used[n.ID] = n.Bytes / 2
		}
		for height := 1; height < 50; height++ {
			var b strings.Builder
			if err := WriteTop(&b, m, l, TopOptions{Width: 60, Height: height}); err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
			if len(lines) > height {
				t.Errorf("%s: %d lines in a room of %d", name, len(lines), height)
			}
			for _, line := range lines {
				if utf8.RuneCountInString(line) > 60 {
					t.Errorf("%s: %q is wider than 60 characters", name, line)
				}
			}
			if last := lines[len(lines)-1]; height > 1 && height < 5 && !strings.Contains(last, "more lines") {
				t.Errorf("%s in %d lines does not tell what is left out: %q", name, height, last)
			}
		}
	}
}
