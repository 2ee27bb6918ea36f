package boot

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/diskfs/go-diskfs/partition/gpt"
)

const testMiB = 1 << 20

// diskOf writes a GPT with an ESP and a data partition at the end of 32 MiB,
// by another implementation, and extends the file to size.
func diskOf(t *testing.T, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(32 * testMiB); err != nil {
		t.Fatal(err)
	}
	table := &gpt.Table{LogicalSectorSize: 512, PhysicalSectorSize: 512, ProtectiveMBR: true, Partitions: []*gpt.Partition{
		{Index: 1, Name: "esp", Type: gpt.EFISystemPartition, Start: 2048, End: 4095},
		{Index: 2, Name: "data", Type: gpt.LinuxFilesystem, Start: 4096, End: 61439},
	}}
	if err := table.Write(f, 32*testMiB); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestGrowLast(t *testing.T) {
	const size = 100*testMiB + 512 // an end on no alignment
	f := diskOf(t, size)
	number, start, length, changed, err := growLast(f, size, "data")
	if err != nil || number != 2 || start != 2*testMiB || length != 97*testMiB || !changed {
		t.Fatalf("got partition %d, start %d, length %d MiB, changed %t, error %v", number, start, length/testMiB, changed, err)
	}
	// Another implementation accepts both tables.
	table, err := gpt.Read(f, 512, 512)
	if err != nil {
		t.Fatal(err)
	}
	if got := table.Partitions[1]; got.Start != 4096 || int64(got.End+1-got.Start)*512 != length || got.Name != "data" {
		t.Errorf("read back: got %+v", got)
	}
	if err := table.Verify(f, size); err != nil {
		t.Errorf("verify: %v", err)
	}
	if got := table.Partitions[0]; got.Start != 2048 || got.End != 4095 || got.Name != "esp" {
		t.Errorf("the other partition changed: %+v", got)
	}
	before := contentOf(t, f)
	if _, _, _, changed, err := growLast(f, size, "data"); changed || err != nil {
		t.Errorf("second run: changed %t, error %v", changed, err)
	}
	if !bytes.Equal(before, contentOf(t, f)) {
		t.Error("the second run wrote to the disk")
	}
}

func contentOf(t *testing.T, f *os.File) []byte {
	t.Helper()
	raw, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestGrowLastRefuses(t *testing.T) {
	const size = 64 * testMiB
	flip := func(at int64) func(*os.File) error {
		return func(f *os.File) error {
			b := make([]byte, 1)
			if _, err := f.ReadAt(b, at); err != nil {
				return err
			}
			_, err := f.WriteAt([]byte{b[0] ^ 1}, at)
			return err
		}
	}
	for name, test := range map[string]struct {
		partition string
		spoil     func(*os.File) error
	}{
		"not last":       {"esp", nil},
		"absent":         {"root-a", nil},
		"header damaged": {"data", flip(512 + 40)},
		"entry damaged":  {"data", flip(1024 + 128 + 60)},
		"no table":       {"data", flip(512)},
	} {
		f := diskOf(t, size)
		if test.spoil != nil {
			if err := test.spoil(f); err != nil {
				t.Fatal(err)
			}
		}
		before := contentOf(t, f)
		_, _, _, changed, err := growLast(f, size, test.partition)
		if err == nil || changed {
			t.Errorf("%s: got error %v, changed %t", name, err, changed)
		}
		if !bytes.Equal(before, contentOf(t, f)) {
			t.Errorf("%s: something was written", name)
		}
	}
}

// powerCut lets the first writes through and loses all later ones.
type powerCut struct {
	*os.File
	left int
}

var errPower = errors.New("power lost")

func (p *powerCut) WriteAt(b []byte, at int64) (int, error) {
	if p.left == 0 {
		return 0, errPower
	}
	p.left--
	return p.File.WriteAt(b, at)
}

func TestGrowLastSurvivesPowerCut(t *testing.T) {
	const size = 64 * testMiB
	for writes := range 4 {
		f := diskOf(t, size)
		_, _, _, _, err := growLast(&powerCut{f, writes}, size, "data")
		if want := writes < 3; errors.Is(err, errPower) != want {
			t.Fatalf("after %d writes: got error %v", writes, err)
		}
		table, err := readGPT(f)
		if err != nil {
			t.Fatalf("after %d writes the primary table is lost: %v", writes, err)
		}
		if _, err := table.last("data"); err != nil {
			t.Errorf("after %d writes: %v", writes, err)
		}
		if _, _, length, _, err := growLast(f, size, "data"); err != nil || length != 61*testMiB {
			t.Errorf("after %d writes the next boot makes it %d MiB, error %v", writes, length/testMiB, err)
		}
	}
}

func FuzzReadGPT(f *testing.F) {
	f.Add(make([]byte, 2048))
	f.Fuzz(func(t *testing.T, raw []byte) {
		table, err := readGPT(bytes.NewReader(raw))
		if err != nil {
			return
		}
		if _, err := table.last("data"); err == nil && len(table.entries) == 0 {
			t.Error("a partition in an empty table")
		}
	})
}

func FuzzParseExt4(f *testing.F) {
	f.Add(make([]byte, 2048))
	f.Fuzz(func(t *testing.T, raw []byte) {
		blocks, size, err := parseExt4(io.NewSectionReader(bytes.NewReader(raw), 0, int64(len(raw))))
		if err == nil && (size < 1024 || size > 65536) {
			t.Errorf("got %d blocks of %d", blocks, size)
		}
	})
}
