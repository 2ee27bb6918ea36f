package hardware

import (
	"bytes"
	"os"
	"testing"

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
	if err := WriteTop(&b, m, l, 100, 0); err != nil {
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
