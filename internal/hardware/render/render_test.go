package render

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	gocmp "github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/hardware/hardwaretest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// described discovers one of the machines of hardwaretest.
func described(t testing.TB, from *hardwaretest.Tree) *hardware.Machine {
	t.Helper()
	name := filepath.Join(t.TempDir(), "machine.tar")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := from.Archive(f); err != nil {
		t.Fatal(err)
	}
	m, err := hardware.Discover(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// golden compares what was drawn with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("drawn (-file +now), go test -update rewrites it:\n%s", diff)
	}
}

// everything draws a machine in all ways.
func everything(t testing.TB, m *hardware.Machine) {
	t.Helper()
	for _, err := range []error{Tree(io.Discard, m, false), Tree(io.Discard, m, true), SVG(io.Discard, m), DOT(io.Discard, m), Matrix(io.Discard, m),
		Top(io.Discard, m, hardware.Load{}, TopOptions{Width: 80, Height: 10, Color: true})} {
		if err != nil {
			t.Error(err)
		}
	}
}

// TestHostileMaps draws the maps of machines with spoiled files.
func TestHostileMaps(t *testing.T) {
	for name, from := range hardwaretest.Machines() {
		if strings.HasPrefix(name, "server") || strings.HasPrefix(name, "gb200") {
			continue // the same on more files
		}
		t.Run(name, func(t *testing.T) {
			for _, tree := range hardwaretest.Spoiled(from) {
				everything(t, described(t, tree))
			}
		})
	}
}

// FuzzMap draws maps that other programs wrote.
func FuzzMap(f *testing.F) {
	data, err := hardware.Encode(described(f, hardwaretest.CoralDevBoard()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := hardware.Decode(data); err == nil {
			everything(t, m)
		}
	})
}

// TestTree compares the printed tree of every described machine with a file,
// one diff each.
func TestTree(t *testing.T) {
	for name, from := range hardwaretest.Machines() {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := Tree(&b, described(t, from), false); err != nil {
				t.Fatal(err)
			}
			golden(t, name, b.Bytes())
		})
	}
}

func TestMatrix(t *testing.T) {
	var b bytes.Buffer
	if err := Matrix(&b, described(t, hardwaretest.Server8GPU())); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	want := "gpu5  SYS   SYS   SYS   SYS   PIX   X     NODE  NODE  SYS   SYS   PIX   NODE  32-63,96-127  1     ib2"
	if len(lines) < 7 || lines[6] != want {
		t.Errorf("row of gpu5\n got %s\nwant %s\nin\n%s", lines[6], want, b.String())
	}
	b.Reset()
	if err := Matrix(&b, described(t, hardwaretest.Server8MI300X())); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "gpu0  X     XGMI  XGMI") {
		t.Error(b.String())
	}
}

func TestMatrixOfNothing(t *testing.T) {
	var b bytes.Buffer
	if err := Matrix(&b, described(t, hardwaretest.Mainframe())); err != nil || !strings.Contains(b.String(), "no accelerator") {
		t.Errorf("%q, %v", b.String(), err)
	}
}

func TestDOT(t *testing.T) {
	var b bytes.Buffer
	if err := DOT(&b, described(t, hardwaretest.Server8MI300X())); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"node0" -- "node1" [style=dotted, label="21"];`, `"0000:13:00.0" -- "0000:c4:00.0" [color=green`, `"0000:12:00.0" -- "0000:13:00.0" [label="x16 63 GB/s"];`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the graph lacks %s", want)
		}
	}
}

// TestTop compares one picture of a machine under load with a file.
func TestTop(t *testing.T) {
	m := described(t, hardwaretest.Server8MI300X())
	l := hardware.Load{CPUs: map[int]float64{}, Used: map[int]hardware.Bytes{0: 300 << 30, 1: 900 << 30}, Devices: map[string]hardware.DeviceLoad{
		"gpu0": {Busy: 0.95, Used: 180 << 30, Celsius: 71, Watts: 690},
		"gpu1": {Busy: -1},
		"gpu2": {Busy: 1, Used: 192 << 30},
	}}
	for id := range 192 {
		l.CPUs[id] = float64(id%9) / 8
	}
	m.Accelerators[7].Health = hardware.Health{State: "lost", Reasons: []string{"the device is gone from the bus"}}
	var b bytes.Buffer
	if err := Top(&b, m, l, TopOptions{Width: 100}); err != nil {
		t.Fatal(err)
	}
	golden(t, "top", b.Bytes())
}

// TestTopFits draws machines into little room.
func TestTopFits(t *testing.T) {
	for name, from := range hardwaretest.Machines() {
		m := described(t, from)
		l := hardware.Load{Used: map[int]hardware.Bytes{}, Thermal: []hardware.Zone{{Name: "soc", Celsius: 41}, {Name: "disk", Celsius: 52.5}}}
		for _, n := range m.Nodes {
			l.Used[n.ID] = n.Bytes / 2
		}
		for height := 1; height < 50; height++ {
			var b strings.Builder
			if err := Top(&b, m, l, TopOptions{Width: 60, Height: height}); err != nil {
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

// TestTopNarrow keeps the numbers whole where there is little room.
func TestTopNarrow(t *testing.T) {
	m := described(t, hardwaretest.Server8GPU())
	l := hardware.Load{CPUs: map[int]float64{0: 1}, Used: map[int]hardware.Bytes{0: 300 << 30, 1: 1 << 30}}
	var b bytes.Buffer
	if err := Top(&b, m, l, TopOptions{Width: 40}); err != nil {
		t.Fatal(err)
	}
	if want := "300 GiB of 1 TiB"; !strings.Contains(b.String(), want) {
		t.Errorf("no line has %q:\n%s", want, b.String())
	}

	m = described(t, hardwaretest.Server8MI300X())
	l.Devices = map[string]hardware.DeviceLoad{"gpu0": {Busy: 0.95, Used: 180 << 30, Celsius: 71, Watts: 690}}
	b.Reset()
	if err := Top(&b, m, l, TopOptions{Width: 40}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"95%", "180 GiB of 192 GiB", "71 °C", "690 W"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is cut:\n%s", want, b.String())
		}
	}
}

// TestTopUsesItsRoom draws CPUs one by one and what was busy over time where
// lines are left.
func TestTopUsesItsRoom(t *testing.T) {
	m := described(t, hardwaretest.CoralDevBoard())
	l := hardware.Load{CPUs: map[int]float64{0: 1, 1: 0.5, 2: 0.25, 3: 0}}
	o := TopOptions{Width: 80, Height: 22, Busy: []float64{0, 0.5, 1}}
	var b bytes.Buffer
	if err := Top(&b, m, l, o); err != nil {
		t.Fatal(err)
	}
	golden(t, "top-room", b.Bytes())
	o.Height = 4
	b.Reset()
	if err := Top(&b, m, l, o); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "over time") {
		t.Errorf("history in four lines:\n%s", b.String())
	}
}
