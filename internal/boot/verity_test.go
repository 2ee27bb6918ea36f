package boot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const hash64 = "fd701f63aa0000000000000000000000000000000000000000000000000000ff"

func TestParseVerity(t *testing.T) {
	tests := []struct {
		line    string
		blocks  uint64
		salt    int
		problem string
	}{
		{"quiet oscine.verity=" + hash64 + ",0011,1468 panic=5", 1468, 2, ""},
		{"oscine.verity=" + hash64 + ",-,1", 1, 0, ""},
		{"oscine.verity=" + hash64 + ",00,1 oscine.verity=" + hash64 + ",00,2", 2, 1, ""},
		{"quiet", 0, 0, "is missing"},
		{"oscine.verity=", 0, 0, "want ROOTHASH,SALT,DATABLOCKS"},
		{"oscine.verity=abc,00,1", 0, 0, "root hash"},
		{"oscine.verity=" + hash64 + ",zz,1", 0, 0, "salt"},
		{"oscine.verity=" + hash64 + "," + strings.Repeat("00", 257) + ",1", 0, 0, "salt"},
		{"oscine.verity=" + hash64 + ",00,0", 0, 0, "data blocks"},
		{"oscine.verity=" + hash64 + ",00,18446744073709551615", 0, 0, "data blocks"},
	}
	for _, test := range tests {
		v, err := ParseVerity(test.line)
		if test.problem != "" {
			if err == nil || !strings.Contains(err.Error(), test.problem) {
				t.Errorf("ParseVerity(%q): got error %v, want one with %q", test.line, err, test.problem)
			}
			continue
		}
		if err != nil || v.DataBlocks != test.blocks || len(v.Salt) != test.salt || hex.EncodeToString(v.RootHash[:]) != hash64 {
			t.Errorf("ParseVerity(%q): got %d blocks, salt of %d, error %v", test.line, v.DataBlocks, len(v.Salt), err)
		}
	}
}

func FuzzParseVerity(f *testing.F) {
	f.Add("oscine.verity=" + hash64 + ",0011,1468")
	f.Fuzz(func(t *testing.T, line string) {
		v, err := ParseVerity(line)
		if err == nil && (v.DataBlocks == 0 || len(v.Salt) > maxSalt) {
			t.Errorf("ParseVerity(%q) took %d blocks, salt of %d", line, v.DataBlocks, len(v.Salt))
		}
	})
}

// rootOf makes a file of two data blocks with a one-block tree behind, and
// optionally veritysetup's superblock between.
func rootOf(t *testing.T, fill byte, superblock bool) (string, Verity) {
	t.Helper()
	v := Verity{Salt: []byte{1, 2}, DataBlocks: 2}
	tree := make([]byte, BlockSize)
	var content []byte
	for i := range 2 {
		block := bytes.Repeat([]byte{fill}, BlockSize)
		sum := sha256.Sum256(append([]byte{1, 2}, block...))
		copy(tree[i*32:], sum[:])
		content = append(content, block...)
	}
	if superblock {
		content = append(content, append([]byte("verity\x00\x00"), make([]byte, BlockSize-8)...)...)
	}
	v.RootHash = sha256.Sum256(append([]byte{1, 2}, tree...))
	name := filepath.Join(t.TempDir(), fmt.Sprintf("root-%d", fill))
	if err := os.WriteFile(name, append(content, tree...), 0o600); err != nil {
		t.Fatal(err)
	}
	return name, v
}

func TestMatch(t *testing.T) {
	for _, superblock := range []bool{false, true} {
		name, v := rootOf(t, 7, superblock)
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want := uint64(2)
		if superblock {
			want = 3
		}
		if start, ok, err := v.Match(bytes.NewReader(raw)); start != want || !ok || err != nil {
			t.Errorf("superblock %t: got %d, %t, %v, want tree at %d", superblock, start, ok, err, want)
		}
		raw[len(raw)-1] ^= 1
		if _, ok, err := v.Match(bytes.NewReader(raw)); ok || err != nil {
			t.Errorf("flipped bit: got %t, %v, want a refusal", ok, err)
		}
		if _, _, err := v.Match(bytes.NewReader(raw[:BlockSize])); err == nil {
			t.Error("short partition: got no error")
		}
	}
}

func TestChooseSlot(t *testing.T) {
	mine, v := rootOf(t, 1, false)
	other, _ := rootOf(t, 2, false)
	files := map[string]string{"sda2": other, "sda3": mine, "sdb2": mine, "sdb3": "/nonexistent"}
	open := func(p Partition) (*os.File, error) { return os.Open(files[p.Device]) }
	parts := []Partition{
		{Device: "sda1", Disk: "sda", Name: PartitionESP, UUID: "aa"},
		{Device: "sda2", Disk: "sda", Name: PartitionRootA},
		{Device: "sda3", Disk: "sda", Name: PartitionRootB},
		{Device: "sdb1", Disk: "sdb", Name: PartitionESP, UUID: "bb"},
		{Device: "sdb2", Disk: "sdb", Name: PartitionRootA},
		{Device: "sdb3", Disk: "sdb", Name: PartitionRootB},
		{Device: "sdb4", Disk: "sdb", Name: PartitionData},
	}
	for _, test := range []struct{ esp, want string }{{"", "sda3"}, {"aa", "sda3"}, {"bb", "sdb2"}, {"cc", "sda3"}} {
		refused := map[string]string{}
		got, ok := chooseSlot(parts, v, test.esp, refused, open)
		if !ok || got.Device != test.want || got.hashStart != 2 {
			t.Errorf("booted from ESP %q: got %s, %t, want %s", test.esp, got.Device, ok, test.want)
		}
		if len(refused) != 2 {
			t.Errorf("refused: got %v, want sda2 and sdb3", refused)
		}
	}
	refused := map[string]string{}
	if _, ok := chooseSlot(parts[:2], v, "", refused, open); ok {
		t.Error("another version's slot was chosen")
	}
	err := refusal(parts[:2], refused)
	if !errors.Is(err, errNoSlot) || !strings.Contains(err.Error(), "root-a on sda2") {
		t.Errorf("refusal: got %v", err)
	}
}

func TestTable(t *testing.T) {
	v := Verity{DataBlocks: 5}
	want := "1 254:2 254:2 4096 4096 5 5 sha256 " + strings.Repeat("00", 32) + " - 1 panic_on_corruption"
	if diff := cmp.Diff(want, v.table("254:2", 5)); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}
