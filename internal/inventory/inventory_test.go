package inventory

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/place"
)

func TestTopologyFile(t *testing.T) {
	r, err := os.Open(filepath.Join("..", "..", "..", "shared", "data", "gpu-topology-public", "aws-p4d-24xl-topo.xml"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the topology files are not beside the checkout")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	top, err := hardware.ReadTopology(r)
	if err != nil {
		t.Fatal(err)
	}
	h, err := top.Machine()
	if err != nil {
		t.Fatal(err)
	}
	m := Machine(h, "p4d")
	kinds := map[string]int{}
	for _, d := range m.Devices {
		kinds[d.Driver]++
		if len(d.Path) < 2 {
			t.Errorf("%s: got the path %v, want a root and a switch", d.ID, d.Path)
		}
	}
	if kinds["gpu.nvidia.com"] != 8 || kinds["nic.oscine.dev"] != 4 {
		t.Errorf("got devices %v, want 8 GPUs and 4 network cards", kinds)
	}
	selector, err := place.CompileSelector(`device.attributes["oscine.dev"].kind == "gpu" && device.attributes["resource.kubernetes.io"].numaNode == 1 && device.attributes["resource.kubernetes.io"].pciBusID.startsWith("0000:a0")`)
	if err != nil {
		t.Fatal(err)
	}
	matches := 0
	for i := range m.Devices {
		if ok, err := selector.Match(&m.Devices[i]); err == nil && ok {
			matches++
		}
	}
	if matches != 2 {
		t.Errorf("the selector matches %d devices, want 2", matches)
	}
}

// TestRecordedMachines places work on every recorded machine.
func TestRecordedMachines(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "..", "shared", "data", "topology-public", "*.tar.bz2"))
	if err != nil || len(files) == 0 {
		t.Skip("the recorded machines are not beside the checkout")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			h, err := hardware.Discover(file)
			if err != nil {
				t.Fatal(err)
			}
			m := Machine(h, "recorded")
			s, err := place.NewState(m)
			if err != nil {
				t.Fatal(err)
			}
			if len(m.CPUs) < 2 {
				return
			}
			p, err := s.Place(place.Request{Name: "x", MilliCPU: 1000, Exclusive: true})
			if err != nil {
				t.Fatal(err)
			}
			if !h.Allowed.Has(p.CPUs[0]) {
				t.Errorf("got CPU %d, which is not allowed", p.CPUs[0])
			}
		})
	}
}

func TestPartitionModes(t *testing.T) {
	got := profiles(&hardware.Accelerator{Memory: 80 << 30, PartitionModes: []string{"1g.10gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb", "SPX", "-1g.5gb"}})
	want := []struct{ slices, starts int }{{1, 7}, {2, 4}, {4, 2}, {4, 1}, {8, 1}}
	if len(got) != len(want) {
		t.Fatalf("got %d profiles, want %d", len(got), len(want))
	}
	for i, p := range got {
		if p.Slices != want[i].slices || len(p.Starts) != want[i].starts {
			t.Errorf("%s: got %d slices at %v, want %d slices at %d places", p.Name, p.Slices, p.Starts, want[i].slices, want[i].starts)
		}
	}
}
