package layout

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPlan(t *testing.T) {
	l, err := Plan(1<<30, 76*MiB, MinData)
	if err != nil {
		t.Fatal(err)
	}
	if l.Slot != 192*MiB || l.DataStart()+l.DataSize()+MiB != 1<<30 {
		t.Errorf("got %+v, data %d at %d", l, l.DataSize(), l.DataStart())
	}
	if _, err := Plan(300*MiB, 76*MiB, MinData); err == nil || !strings.Contains(err.Error(), "at least 610 MiB are needed") {
		t.Errorf("too small: got %v", err)
	}
}

// makeESP makes the smallest file system that the builder's FAT writer makes.
func makeESP(t testing.TB) []byte {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "esp"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(MiB + ESPSize); err != nil {
		t.Fatal(err)
	}
	kernel := bytes.Repeat([]byte("kernel"), 300)
	files := []File{{"/EFI/Linux/oscine_1.2.3+3.efi", kernel}, {"/loader/loader.conf", []byte("timeout 0\n")}, {"/EFI/BOOT/EMPTY.EFI", nil}}
	if err := WriteESP(f, files, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 4<<20) // what is behind is zero
	if _, err := f.ReadAt(data, MiB); err != nil {
		t.Fatal(err)
	}
	return data
}

// The ESP holds three kernel images of the greatest size, and what lies beside them or
// stays free.
func TestESPHoldsThreeKernels(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "esp"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(MiB + ESPSize); err != nil {
		t.Fatal(err)
	}
	kernel := make([]byte, MaxKernel)
	files := []File{{"/loader/rest", make([]byte, MiB+MiB/4)}}
	for _, name := range []string{"a", "b", "c"} {
		files = append(files, File{"/EFI/Linux/" + name, kernel})
	}
	if err := WriteESP(f, files, time.Unix(1, 0)); err != nil {
		t.Error(err)
	}
}

func TestFATReaderReadsWhatTheWriterWrites(t *testing.T) {
	esp := makeESP(t)
	f, err := OpenFAT(bytes.NewReader(esp), ESPSize)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.ReadFile("/efi/linux/OSCINE_1.2.3+3.EFI", 1<<20); err != nil || !bytes.Equal(got, bytes.Repeat([]byte("kernel"), 300)) {
		t.Errorf("the unified kernel image: got %d bytes (%v)", len(got), err)
	}
	if got, err := f.ReadFile("/EFI/BOOT/EMPTY.EFI", 1<<20); err != nil || len(got) != 0 {
		t.Errorf("an empty file: got %d bytes (%v)", len(got), err)
	}
	entries, err := f.ReadDir("/EFI/Linux")
	if err != nil || len(entries) != 1 || entries[0].Name != "oscine_1.2.3+3.efi" {
		t.Errorf("list: got %+v (%v)", entries, err)
	}
	for _, name := range []string{"/none", "/EFI/none/x", "/loader/loader.conf/x", "/EFI"} {
		if _, err := f.ReadFile(name, 1<<20); err == nil {
			t.Errorf("%s was read", name)
		}
	}
	if _, err := f.ReadFile("/loader/loader.conf", 3); err == nil {
		t.Error("a file beyond its bound was read")
	}
}

func FuzzFAT(f *testing.F) {
	// The reader looks at the first sector, the table and a few clusters: they
	// are put close together so that a fuzzer finds them.
	small := make([]byte, 16<<10)
	copy(small[11:], []byte{0, 2, 1, 1, 0, 1})
	binary.LittleEndian.PutUint32(small[36:], 2)
	binary.LittleEndian.PutUint32(small[44:], 2)
	binary.LittleEndian.PutUint16(small[510:], 0xaa55)
	for c := range 8 {
		binary.LittleEndian.PutUint32(small[512+4*c:], 0x0fffffff)
	}
	copy(small[3*512:], "EFI        \x10")
	small[3*512+26] = 3
	copy(small[4*512:], "LINUX      \x10")
	small[4*512+26] = 4
	copy(small[5*512:], "A       EFI ")
	small[5*512+26], small[5*512+28] = 5, 9
	f.Add(small)
	f.Fuzz(func(_ *testing.T, data []byte) {
		r, err := OpenFAT(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		_, _ = r.ReadDir("/EFI/Linux")
		_, _ = r.ReadFile("/EFI/Linux/A.EFI", 1<<20)
	})
}

func FuzzGPT(f *testing.F) {
	table := make([]byte, 34*SectorSize)
	copy(table[SectorSize:], "EFI PART")
	for at, v := range map[int]uint32{8: 0x10000, 12: 92, 72: 2, 80: 128, 84: 128} {
		binary.LittleEndian.PutUint32(table[SectorSize+at:], v)
	}
	f.Add(table)
	// Entries of no length, of which there would be no end, and more than fit.
	for at, v := range map[int]uint32{84: 0, 80: 1<<32 - 1} {
		odd := bytes.Clone(table)
		binary.LittleEndian.PutUint32(odd[SectorSize+at:], v)
		f.Add(odd)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		data = bytes.Clone(data)
		// The sums are not what is to be guessed.
		if len(data) > 2*SectorSize {
			header := data[SectorSize:]
			entries := data[2*SectorSize:]
			count, size := binary.LittleEndian.Uint32(header[80:]), binary.LittleEndian.Uint32(header[84:])
			binary.LittleEndian.PutUint32(header[88:], crc32.ChecksumIEEE(entries[:min(uint64(len(entries)), uint64(count)*uint64(size))]))
			clear(header[16:20])
			binary.LittleEndian.PutUint32(header[16:], crc32.ChecksumIEEE(header[:92]))
		}
		disk, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		defer disk.Close()
		if _, err := disk.Write(data); err != nil {
			t.Fatal(err)
		}
		_, _ = ReadTable(disk, int64(len(data)))
	})
}
