package linux

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPartitions(t *testing.T) {
	sys := t.TempDir()
	block := filepath.Join(sys, "devices/pci/virtio1/block/vda")
	files := map[string]string{
		"vda/uevent":      "MAJOR=254\nMINOR=0\nDEVNAME=vda\nDEVTYPE=disk\n",
		"vda/vda2/uevent": "DEVNAME=vda2\nDEVTYPE=partition\nDISKSEQ=1\nPARTN=2\nPARTNAME=root-a\nPARTUUID=ABCD\n",
		"vda/vda2/start":  "2048\n", "vda/vda2/size": "4096\n",
		"vda/vda3/uevent": "DEVNAME=vda3\nDEVTYPE=partition\nPARTN=3\n",
		"vda/vda4/uevent": "DEVNAME=vda4\nDEVTYPE=partition\nPARTN=4\nPARTNAME=data\n", // vanishing: no start
	}
	for name, content := range files {
		file := filepath.Join(filepath.Dir(block), name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	class := filepath.Join(sys, "class/block")
	if err := os.MkdirAll(class, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vda", "vda/vda2", "vda/vda3", "vda/vda4"} {
		if err := os.Symlink("../../devices/pci/virtio1/block/"+name, filepath.Join(class, filepath.Base(name))); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Partitions(sys)
	if err != nil {
		t.Fatal(err)
	}
	want := []Partition{{Device: "vda2", Disk: "vda", Name: "root-a", UUID: "abcd", Number: 2, Start: 1 << 20, Size: 2 << 20}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("partitions (-want +got):\n%s", diff)
	}
	if p, ok := FindPartition(got, "vda", "root-a"); !ok || p.Device != "vda2" {
		t.Errorf("root-a of vda: got %+v, %t", p, ok)
	}
	for _, other := range [][2]string{{"vdb", "root-a"}, {"vda", "root-b"}} {
		if p, ok := FindPartition(got, other[0], other[1]); ok {
			t.Errorf("%v: got %+v", other, p)
		}
	}
	if _, err := Partitions(filepath.Join(sys, "nowhere")); err == nil {
		t.Error("no sysfs: got no error")
	}
}
