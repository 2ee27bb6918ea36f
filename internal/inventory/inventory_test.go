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
		t.Skip("the oracle data gpu-topology-public is not beside the checkout")
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
		if ok, err := selector.Match(t.Context(), &m.Devices[i]); err == nil && ok {
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
		t.Skip("the oracle data topology-public is not beside the checkout")
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
			p, err := s.Place(t.Context(), place.Request{Name: "x", MilliCPU: 1000, Exclusive: true})
			if err != nil {
				t.Fatal(err)
			}
			if !h.Allowed.Has(p.CPUs[0]) {
				t.Errorf("got CPU %d, which is not allowed", p.CPUs[0])
			}
		})
	}
}

func TestSharingOfADevice(t *testing.T) {
	profile := hardware.PartitionProfile{Name: "1g.10gb", Slices: 1, Starts: []int{0, 1}, Memory: 10 << 30, Compute: 1}
	for _, test := range []struct {
		a        hardware.Accelerator
		shares   int
		mps      bool
		profiles int
	}{
		{hardware.Accelerator{Kind: "gpu", Vendor: "NVIDIA", Attributes: map[string]any{"mps": true}, Profiles: []hardware.PartitionProfile{profile}}, mpsClients, true, 1},
		{hardware.Accelerator{Kind: "gpu", Vendor: "NVIDIA", Attributes: map[string]any{"mps": false}, PartitionModes: []string{"1g.10gb"}}, timeSlices, false, 0},
		{hardware.Accelerator{Kind: "gpu", Vendor: "AMD"}, timeSlices, false, 0},
		{hardware.Accelerator{Kind: "quantum"}, 0, false, 0},
	} {
		d := accelerator(&hardware.Machine{}, &test.a)
		if d.Shares != test.shares || d.MPS != test.mps || len(d.Profiles) != test.profiles {
			t.Errorf("%+v: got %d shares, MPS %v, profiles %v", test.a, d.Shares, d.MPS, d.Profiles)
		}
	}
}
