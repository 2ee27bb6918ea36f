package boot

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/linux"
	"oscine.dev/oscine/internal/release"
)

// rootOf makes a file of two data blocks with a one-block tree behind.
func rootOf(t *testing.T, fill byte) (string, release.Verity) {
	t.Helper()
	v := release.Verity{Salt: []byte{1, 2}, Blocks: 2}
	tree := make([]byte, release.BlockSize)
	var content []byte
	for i := range 2 {
		block := bytes.Repeat([]byte{fill}, release.BlockSize)
		sum := sha256.Sum256(append([]byte{1, 2}, block...))
		copy(tree[i*32:], sum[:])
		content = append(content, block...)
	}
	v.RootHash = sha256.Sum256(append([]byte{1, 2}, tree...))
	name := filepath.Join(t.TempDir(), fmt.Sprintf("root-%d", fill))
	if err := os.WriteFile(name, append(content, tree...), 0o600); err != nil {
		t.Fatal(err)
	}
	return name, v
}

func TestChooseSlot(t *testing.T) {
	mine, v := rootOf(t, 1)
	other, _ := rootOf(t, 2)
	files := map[string]string{"sda2": other, "sda3": mine, "sdb2": mine, "sdb3": "/nonexistent"}
	open := func(p linux.Partition) (*os.File, error) { return os.Open(files[p.Device]) }
	parts := []linux.Partition{
		{Device: "sda1", Disk: "sda", Name: release.PartitionESP, UUID: "aa"},
		{Device: "sda2", Disk: "sda", Name: release.PartitionRootA},
		{Device: "sda3", Disk: "sda", Name: release.PartitionRootB},
		{Device: "sdb1", Disk: "sdb", Name: release.PartitionESP, UUID: "bb"},
		{Device: "sdb2", Disk: "sdb", Name: release.PartitionRootA},
		{Device: "sdb3", Disk: "sdb", Name: release.PartitionRootB},
		{Device: "sdb4", Disk: "sdb", Name: release.PartitionData},
	}
	for _, test := range []struct{ esp, want string }{{"", "sda3"}, {"aa", "sda3"}, {"bb", "sdb2"}, {"cc", "sda3"}} {
		refused := map[string]string{}
		got, ok := chooseSlot(parts, v, test.esp, true, refused, open)
		if !ok || got.Device != test.want || got.hashStart != 2 {
			t.Errorf("booted from ESP %q: got %s, %t, want %s", test.esp, got.Device, ok, test.want)
		}
		if len(refused) != 2 {
			t.Errorf("refused: got %v, want sda2 and sdb3", refused)
		}
	}
	// The disk that the system was started from may appear after another.
	if got, ok := chooseSlot(parts[:3], v, "bb", false, map[string]string{}, open); ok {
		t.Errorf("booted from an ESP that is not there yet: got %s", got.Device)
	}
	if got, ok := chooseSlot(parts, v, "bb", false, map[string]string{}, open); !ok || got.Device != "sdb2" {
		t.Errorf("booted from an ESP that has appeared: got %s, %t", got.Device, ok)
	}
	refused := map[string]string{}
	if _, ok := chooseSlot(parts[:2], v, "", false, refused, open); ok {
		t.Error("another version's slot was chosen")
	}
	err := refusal(parts[:2], refused)
	if !errors.Is(err, errNoSlot) || !strings.Contains(err.Error(), "root-a on sda2") {
		t.Errorf("refusal: got %v", err)
	}
}
