package hardware

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// tokens are an XML text's elements and attributes, blanks and comments off.
func tokens(t *testing.T, r io.Reader) []string {
	t.Helper()
	var out []string
	d := xml.NewDecoder(r)
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			out = append(out, fmt.Sprint("<", e.Name.Local, e.Attr))
		case xml.EndElement:
			out = append(out, "</"+e.Name.Local)
		}
	}
}

// TestTopologyFiles reads every topology file found and writes it back: not
// an element or attribute may be lost, and every GPU and link must show.
func TestTopologyFiles(t *testing.T) {
	dir := filepath.Join(sharedData, "gpu-topology-public")
	files, _ := filepath.Glob(filepath.Join(dir, "*.xml"))
	if len(files) == 0 {
		t.Skip("the oracle data gpu-topology-public is not beside the checkout")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			topology, err := ReadTopology(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			var written bytes.Buffer
			if err := topology.Write(&written); err != nil {
				t.Fatal(err)
			}
			want := tokens(t, bytes.NewReader(plainComments(data)))
			if diff := gocmp.Diff(want, tokens(t, &written)); diff != "" {
				t.Errorf("written back (-read +written):\n%s", diff)
			}
			checkTopologyMachine(t, topology, want)
		})
	}
}

func checkTopologyMachine(t *testing.T, topology *Topology, want []string) {
	t.Helper()
	m, err := topology.Machine()
	if err != nil {
		t.Fatal(err)
	}
	count := func(prefix string) int {
		n := 0
		for _, token := range want {
			if strings.HasPrefix(token, prefix) {
				n++
			}
		}
		return n
	}
	if got := len(m.PCI); got != count("<pci[") {
		t.Errorf("map has %d PCI devices, the file %d", got, count("<pci["))
	}
	named := map[string]bool{}
	for _, i := range m.Interfaces {
		named[i.Address] = true
	}
	if got := len(m.Interfaces); got < count("<net[") {
		t.Errorf("map has %d interfaces, the file %d", got, count("<net["))
	}
	for _, d := range m.PCI {
		if strings.HasPrefix(d.Class, "02") && !named[d.Address] {
			t.Errorf("adapter %s is no interface of the map", d.Address)
		}
	}
	gpus, links := topologyEnds(topology.Root, "", map[string]bool{}, map[string]bool{})
	if got := len(m.Accelerators); got < len(gpus) || got == 0 {
		t.Errorf("map has %d accelerators, the file %d GPUs", got, len(gpus))
	}
	if got := len(m.Links); got != len(links) {
		t.Errorf("map has %d links, the file %d", got, len(links))
	}
	if len(m.Gaps) > 0 {
		t.Errorf("gaps: %v", m.Gaps)
	}
	if !slices.ContainsFunc(m.Accelerators, func(a Accelerator) bool { return a.Kind == "gpu" }) {
		t.Error("no GPU")
	}
}

// topologyEnds gathers the devices with a GPU and the pairs that links join,
// each once.
func topologyEnds(e *Element, device string, gpus, links map[string]bool) (map[string]bool, map[string]bool) {
	for _, c := range e.Children {
		switch at := strings.ToLower(c.Attr("busid")); c.Name {
		case "gpu":
			gpus[device] = true
			fallthrough
		default:
			topologyEnds(c, cmp.Or(at, device), gpus, links)
		case "nvlink", "xgmi", "pcilink", "c2c":
			ends := []string{device, strings.ToLower(c.Attr("target"))}
			slices.Sort(ends)
			links[c.Name+strings.Join(ends, " ")] = true
		}
	}
	return gpus, links
}

const smallTopology = `<system version="1">
  <cpu numaid="0" affinity="ffff" arch="x86_64">
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
</system>`

func TestTopologyMachine(t *testing.T) {
	topology, err := ReadTopology(strings.NewReader(smallTopology))
	if err != nil {
		t.Fatal(err)
	}
	m, err := topology.Machine()
	if err != nil {
		t.Fatal(err)
	}
	checkWays(t, m,
		way{"gpu0", "gpu1", "LINK 240.0 GB/s 0 [12 × nvlink]"},
		way{"gpu0", "mlx5_0", "PIX 31.5 GB/s 0 [0000:10:00.0]"},
	)
	if a := m.Accelerators[0]; a.Model != "A100 SXM4 80GB" || a.Memory != 80<<30 || a.Architecture != "sm_80" {
		t.Errorf("gpu0 = %+v", a)
	}
}

func TestReadTopologyRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"another document": "<html></html>",
		"two roots":        "<system/><system/>",
		"cut off":          "<system><cpu>",
		"empty":            "",
		"deep":             "<system>" + strings.Repeat("<pci>", maxTopologyDepth) + strings.Repeat("</pci>", maxTopologyDepth) + "</system>",
	} {
		if _, err := ReadTopology(strings.NewReader(text)); !errors.Is(err, ErrTopology) {
			t.Errorf("%s: got %v, want ErrTopology", name, err)
		}
	}
}

// rackTopology has what newer files have: a ruled comment, a node without a
// number, switches named by address alone, the way to the processor, a second
// rank on a GPU, PCIe switches joined beside the tree, an adapter of no device.
const rackTopology = `<!---------
 - ruled
 ---------->
<system version="1">
  <cpu affinity="ff" arch="arm64">
    <pci busid="0008:00:00.0" class="0x060400" vendor="0x1000" device="0xc030" link_speed="32.0 GT/s PCIe" link_width="16">
      <pcilink target="0009:00:00.0"/>
      <pci busid="0008:01:00.0" link_speed="" link_width="0">
        <gpu dev="0" sm="100" rank="0" gdr="1">
          <nvlink target="fffffff:ff:ff.0" count="18" tclass="0x068000"/>
          <c2c bw="44712" count="10"/>
        </gpu>
        <gpu dev="0" sm="100" rank="1" gdr="1">
          <nvlink target="fffffff:ff:ff.0" count="18" tclass="0x068000"/>
          <c2c bw="44712" count="10"/>
        </gpu>
      </pci>
    </pci>
    <pci busid="0009:00:00.0" class="0x060400" vendor="0x1000" device="0xc030" link_speed="32.0 GT/s PCIe" link_width="16">
      <pcilink target="0008:00:00.0"/>
      <pci busid="0009:01:00.0" class="0x030200" vendor="0x10de" device="0x2941">
        <gpu dev="1" sm="100" rank="2" gdr="1">
          <nvlink target="fffffff:ff:ff.0" count="18" tclass="0x068000"/>
          <c2c bw="44712" count="10"/>
        </gpu>
      </pci>
    </pci>
  </cpu>
  <nic><net name="eth0" dev="0" speed="100000" port="0" guid="0x0"/></nic>
</system>`

func TestTopologyOfRack(t *testing.T) {
	topology, err := ReadTopology(strings.NewReader(rackTopology))
	if err != nil {
		t.Fatal(err)
	}
	checkTopologyMachine(t, topology, tokens(t, bytes.NewReader(plainComments([]byte(rackTopology)))))
	m, err := topology.Machine()
	if err != nil {
		t.Fatal(err)
	}
	checkWays(t, m,
		way{"gpu0", "gpu1", "LINK 721.8 GB/s 0 [18 × nvlink by switch]"},
		way{"gpu0", "node0", "LINK 447.1 GB/s 0 [10 × c2c]"},
		way{"cpu0", "gpu0", "LINK 447.1 GB/s 0 [10 × c2c]"},
		way{"0008:00:00.0", "0009:00:00.0", "LINK 63.0 GB/s 0 [1 × pcie]"},
	)
}
