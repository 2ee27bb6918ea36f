package hardware

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"oscine.dev/oscine/internal/hardware/hardwaretest"
)

// TestCDI writes the specifications of every described machine and reads them
// back through the CDI library, as container runtimes do.
func TestCDI(t *testing.T) {
	want := map[string][]string{
		"server-8xh100": {"oscine.dev/gpu=all", "oscine.dev/gpu=gpu0", "oscine.dev/gpu=gpu0-mig1-0", "oscine.dev/gpu=gpu1", "oscine.dev/gpu=gpu2",
			"oscine.dev/gpu=gpu3", "oscine.dev/gpu=gpu4", "oscine.dev/gpu=gpu5", "oscine.dev/gpu=gpu6", "oscine.dev/gpu=gpu7"},
		"server-8xmi300x": {"oscine.dev/gpu=all", "oscine.dev/gpu=gpu0", "oscine.dev/gpu=gpu1", "oscine.dev/gpu=gpu2",
			"oscine.dev/gpu=gpu3", "oscine.dev/gpu=gpu4", "oscine.dev/gpu=gpu5", "oscine.dev/gpu=gpu6", "oscine.dev/gpu=gpu7"},
		"gb200-34-nodes":  {"oscine.dev/gpu=all", "oscine.dev/gpu=gpu0", "oscine.dev/gpu=gpu1", "oscine.dev/gpu=gpu2", "oscine.dev/gpu=gpu3"},
		"laptop-hybrid":   {"oscine.dev/gpu=all", "oscine.dev/gpu=gpu0", "oscine.dev/npu=all", "oscine.dev/npu=npu0"},
		"coral-dev-board": {"oscine.dev/tpu=all", "oscine.dev/tpu=tpu0"},
		"raspberry-hailo": {"oscine.dev/npu=all", "oscine.dev/npu=npu0", "oscine.dev/tpu=all", "oscine.dev/tpu=tpu0"},
	}
	for name, tree := range hardwaretest.Machines() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := WriteCDI(dir, described(t, tree)); err != nil {
				t.Fatal(err)
			}
			cache, err := cdi.NewCache(cdi.WithSpecDirs(dir), cdi.WithAutoRefresh(false))
			if err != nil {
				t.Fatal(err)
			}
			if errs := cache.GetErrors(); len(errs) > 0 {
				t.Errorf("the CDI library finds: %v", errs)
			}
			got := cache.ListDevices()
			slices.Sort(got)
			if diff := gocmp.Diff(want[name], got); diff != "" {
				t.Errorf("devices (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCDINodes(t *testing.T) {
	nodes := map[string][]string{}
	for _, spec := range CDI(described(t, hardwaretest.Server8GPU())) {
		for _, d := range spec.Devices {
			for _, n := range d.ContainerEdits.DeviceNodes {
				nodes[d.Name] = append(nodes[d.Name], n.Path)
			}
		}
	}
	shared := []string{"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"}
	if diff := gocmp.Diff(append([]string{"/dev/nvidia3"}, shared...), nodes["gpu3"]); diff != "" {
		t.Errorf("gpu3 (-want +got):\n%s", diff)
	}
	mig := append(append([]string{"/dev/nvidia0"}, shared...), "/dev/nvidia-caps/nvidia-cap22", "/dev/nvidia-caps/nvidia-cap26")
	if diff := gocmp.Diff(mig, nodes["gpu0-mig1-0"]); diff != "" {
		t.Errorf("MIG instance (-want +got):\n%s", diff)
	}
	if got := len(nodes["all"]); got != 8+len(shared) {
		t.Errorf("all has %d nodes, want %d", got, 8+len(shared))
	}
}

func TestWriteCDIRefreshes(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "vendor.com-net.json")
	if err := os.WriteFile(other, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	tree := hardwaretest.RaspberryHailo()
	write := func() []string {
		t.Helper()
		changed, err := WriteCDI(dir, described(t, tree))
		if err != nil {
			t.Fatal(err)
		}
		return changed
	}
	if diff := gocmp.Diff([]string{"oscine.dev-npu.json", "oscine.dev-tpu.json"}, write()); diff != "" {
		t.Errorf("first write (-want +got):\n%s", diff)
	}
	if changed := write(); changed != nil {
		t.Errorf("unchanged machine rewrote %v", changed)
	}
	tree.Remove("/sys/bus/usb/devices/1-2")
	if diff := gocmp.Diff([]string{"oscine.dev-tpu.json"}, write()); diff != "" {
		t.Errorf("after unplugging (-want +got):\n%s", diff)
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("another vendor's file: %v", err)
	}
}
