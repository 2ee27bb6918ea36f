package inventory

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/hardware/hardwaretest"
	"oscine.dev/oscine/internal/place"
)

// discover reads a described machine from an archive: one file is written
// instead of thousands.
func discover(t *testing.T, tree *hardwaretest.Tree) *hardware.Machine {
	t.Helper()
	archive, err := os.Create(filepath.Join(t.TempDir(), "machine.tar"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tree.Archive(archive), archive.Close()); err != nil {
		t.Fatal(err)
	}
	h, err := hardware.Discover(archive.Name())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestDescribedMachines places work on every machine of our own description.
func TestDescribedMachines(t *testing.T) {
	for name, tree := range hardwaretest.Machines() {
		t.Run(name, func(t *testing.T) {
			h := discover(t, tree)
			m := Machine(h, name)
			s, err := place.NewState(m)
			if err != nil {
				t.Fatal(err)
			}
			if len(m.CPUs) != h.Allowed.Len() {
				t.Errorf("%d CPUs, want the %d that are allowed", len(m.CPUs), h.Allowed.Len())
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

// TestDescribedServers checks what placement learns about two servers.
func TestDescribedServers(t *testing.T) {
	for _, test := range []struct {
		name       string
		tree       *hardwaretest.Tree
		gpus, nics int
		links      string // a kind that joins the GPUs
		driver     string
	}{
		{"nvidia", hardwaretest.Server8GPU(), 7, 4, // somebody has cut one of eight into partitions
			"", "gpu.nvidia.com"},
		{"amd", hardwaretest.Server8MI300X(), 8, 0, "xgmi", "gpu.amd.com"},
	} {
		m := Machine(discover(t, test.tree), test.name)
		drivers, kinds := map[string]int{}, map[string]int{}
		for _, d := range m.Devices {
			drivers[d.Driver]++
			if d.Driver == test.driver && len(d.Path) < 2 {
				t.Errorf("%s: %s has the path %v, want a root and a switch", test.name, d.ID, d.Path)
			}
		}
		for _, l := range m.Links {
			kinds[l.Kind]++
		}
		if drivers[test.driver] != test.gpus || drivers["nic.oscine.dev"] < test.nics {
			t.Errorf("%s: devices %v, want %d of %s and %d network cards", test.name, drivers, test.gpus, test.driver, test.nics)
		}
		if test.links != "" && kinds[test.links] == 0 {
			t.Errorf("%s: links %v, want some of %s", test.name, kinds, test.links)
		}
	}
}

// fabric is two GPUs behind a switch with a network card, and two elsewhere.
const fabric = `<system version="1">
  <cpu numaid="0" affinity="0f" arch="x86_64">
    <pci busid="0000:10:00.0" class="0x060400" link_speed="16 GT/s" link_width="16">
      <pci busid="0000:11:00.0" class="0x030200" vendor="0x10de" device="0x20b2" link_speed="16 GT/s" link_width="16">
        <gpu dev="0" sm="80" rank="0" gdr="1"><nvlink target="0000:12:00.0" count="12" tclass="0x030200"/></gpu>
      </pci>
      <pci busid="0000:12:00.0" class="0x030200" vendor="0x10de" device="0x20b2" link_speed="16 GT/s" link_width="16">
        <gpu dev="1" sm="80" rank="1" gdr="1"><nvlink target="0000:11:00.0" count="12" tclass="0x030200"/></gpu>
      </pci>
      <pci busid="0000:13:00.0" class="0x020700" vendor="0x15b3" device="0x101b" link_speed="16 GT/s" link_width="16">
        <nic><net name="mlx5_0" dev="0" speed="200000" port="1" guid="0x1"/></nic>
      </pci>
    </pci>
  </cpu>
  <cpu numaid="1" affinity="f0" arch="x86_64">
    <pci busid="0000:a0:00.0" class="0x030200" vendor="0x10de" device="0x20b2" link_speed="16 GT/s" link_width="16"/>
    <pci busid="0000:a1:00.0" class="0x030200" vendor="0x10de" device="0x20b2" link_speed="16 GT/s" link_width="16"/>
  </cpu>
</system>`

// TestFabric takes devices and links from a topology file.
func TestFabric(t *testing.T) {
	top, err := hardware.ReadTopology(strings.NewReader(fabric))
	if err != nil {
		t.Fatal(err)
	}
	h, err := top.Machine()
	if err != nil {
		t.Fatal(err)
	}
	m := Machine(h, "fabric")
	drivers := map[string]int{}
	for _, d := range m.Devices {
		drivers[d.Driver]++
	}
	if drivers["gpu.nvidia.com"] != 4 || drivers["nic.oscine.dev"] != 1 {
		t.Errorf("devices %v, want 4 GPUs and a network card", drivers)
	}
	if len(m.Links) != 1 || m.Links[0].Kind != "nvlink" || m.Links[0].Count != 12 {
		t.Errorf("links %+v, want twelve NVLinks between two GPUs", m.Links)
	}
	selector, err := place.CompileSelector(`device.attributes["oscine.dev"].kind == "gpu" && device.attributes["resource.kubernetes.io"].numaNode == 1 && device.attributes["resource.kubernetes.io"].pciBusID.startsWith("0000:a")`)
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
