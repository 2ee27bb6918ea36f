package image

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/google/go-cmp/cmp"
	"oscine.dev/oscine/internal/image/cpio"
)

func TestClosureOrder(t *testing.T) {
	x := &Modules{Version: "test", Loaded: []Module{
		{Name: "a", Path: "a.ko.xz", Depends: []string{"b", "c"}, Pre: []string{"crc32c"}, Post: []string{"late"}},
		{Name: "b", Path: "b.ko.xz", Depends: []string{"c"}},
		{Name: "c"}, // built in
		{Name: "crc32c_arch", Path: "crc.ko.xz", Aliases: []string{"crc32c"}},
		{Name: "late", Path: "late.ko.xz", Depends: []string{"a"}},
		{Name: "dash_ed", Path: "dash-ed.ko.xz"},
	}}
	got, err := x.Closure([]string{"a", "dash-ed", "none?"})
	if err != nil {
		t.Fatal(err)
	}
	want := "b.ko\ncrc.ko\na.ko\nlate.ko\ndash-ed.ko\n"
	if list := string(loadList(got)); list != want {
		t.Errorf("got\n%swant\n%s", list, want)
	}
	if _, err := x.Closure([]string{"none"}); err == nil || !strings.Contains(err.Error(), "no module none") {
		t.Errorf("a missing module: got %v", err)
	}
	if got, want := string(x.depFile(got[:3])), "b.ko:\ncrc.ko:\na.ko: "; !strings.HasPrefix(got, want) {
		t.Errorf("modules.dep: got %q, want it to begin with %q", got, want)
	}
}

func TestParseModinfo(t *testing.T) {
	got := parseModinfo([]byte("license=GPL\x00depends=dm-mod,dm_bufio\x00\x00alias=fs-x\x00softdep=pre: a b post: c\x00name=dm-verity\x00broken"))
	want := Module{Name: "dm_verity", Depends: []string{"dm_mod", "dm_bufio"}, Aliases: []string{"fs-x"}, Pre: []string{"a", "b"}, Post: []string{"c"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzModinfo(f *testing.F) {
	f.Add([]byte("depends=a,b\x00softdep=pre: x\x00"))
	f.Fuzz(func(_ *testing.T, section []byte) {
		parseModinfo(section)
		parseBuiltin(section)
	})
}

func FuzzModule(f *testing.F) {
	if self, err := os.Executable(); err == nil {
		if data, err := os.ReadFile(self); err == nil {
			f.Add(data[:4096])
		}
	}
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = modinfoOf(data) })
}

func makeCPIO(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := cpio.NewWriter(&b, Epoch)
	w.Add("etc", fs.ModeDir|0o755, nil)
	w.Add("etc/x", 0o644, []byte("hello"))
	w.Add("init", 0o755, []byte{0, 1, 2})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadInitramfs(t *testing.T) {
	archive := makeCPIO(t)
	packed, err := compress(archive)
	if err != nil {
		t.Fatal(err)
	}
	want, err := cpio.Read(archive)
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range [][]byte{archive, packed} {
		got, err := ReadInitramfs(data)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Error(err, diff)
		}
	}
}

func FuzzInitramfs(f *testing.F) {
	f.Add(makeCPIO(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := ReadInitramfs(data)
		for _, e := range entries {
			if err == nil && int64(len(e.Data)) != e.Size {
				t.Errorf("%s: %d bytes of %d", e.Path, len(e.Data), e.Size)
			}
		}
	})
}

func TestBootOrder(t *testing.T) {
	want := []string{"EFI/Linux/oscine_0.10.0.efi", "oscine_0.9.0+1-2.efi", "oscine_0.2.0+3.efi", "other.efi", "oscine_1.0.0+0-3.efi"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, bootOrder)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSPDXID(t *testing.T) {
	a, b := spdxID("go:example.com/a-b"), spdxID("go:example.com/a/b")
	if a == b || strings.ContainsAny(a+b, "/:+~_") {
		t.Errorf("got %s and %s", a, b)
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
	if err := f.Truncate(mib + espSize); err != nil {
		t.Fatal(err)
	}
	kernel := bytes.Repeat([]byte("kernel"), 300)
	files := []bootFile{{"/EFI/Linux/oscine_1.2.3+3.efi", kernel}, {"/loader/loader.conf", []byte("timeout 0\n")}, {"/EFI/BOOT/EMPTY.EFI", nil}}
	if err := writeESP(file.New(f, false), files); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 4<<20) // what is behind is zero
	if _, err := f.ReadAt(data, mib); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestFATReaderReadsWhatTheWriterWrites(t *testing.T) {
	esp := makeESP(t)
	f, err := openFAT(bytes.NewReader(esp), espSize)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.readFile("/efi/linux/OSCINE_1.2.3+3.EFI", 1<<20); err != nil || !bytes.Equal(got, bytes.Repeat([]byte("kernel"), 300)) {
		t.Errorf("the unified kernel image: got %d bytes (%v)", len(got), err)
	}
	if got, err := f.readFile("/EFI/BOOT/EMPTY.EFI", 1<<20); err != nil || len(got) != 0 {
		t.Errorf("an empty file: got %d bytes (%v)", len(got), err)
	}
	entries, err := f.readDir("/EFI/Linux")
	if err != nil || len(entries) != 1 || entries[0].name != "oscine_1.2.3+3.efi" {
		t.Errorf("list: got %+v (%v)", entries, err)
	}
	for _, name := range []string{"/none", "/EFI/none/x", "/loader/loader.conf/x", "/EFI"} {
		if _, err := f.readFile(name, 1<<20); err == nil {
			t.Errorf("%s was read", name)
		}
	}
	if _, err := f.readFile("/loader/loader.conf", 3); err == nil {
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
		r, err := openFAT(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		_, _ = r.readDir("/EFI/Linux")
		_, _ = r.readFile("/EFI/Linux/A.EFI", 1<<20)
	})
}

func FuzzGPT(f *testing.F) {
	table := make([]byte, 34*sectorSize)
	copy(table[sectorSize:], "EFI PART")
	for at, v := range map[int]uint32{8: 0x10000, 12: 92, 72: 2, 80: 128, 84: 128} {
		binary.LittleEndian.PutUint32(table[sectorSize+at:], v)
	}
	f.Add(table)
	// Entries of no length, of which there would be no end, and more than fit.
	for at, v := range map[int]uint32{84: 0, 80: 1<<32 - 1} {
		odd := bytes.Clone(table)
		binary.LittleEndian.PutUint32(odd[sectorSize+at:], v)
		f.Add(odd)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		data = bytes.Clone(data)
		// The sums are not what is to be guessed.
		if len(data) > 2*sectorSize {
			header := data[sectorSize:]
			entries := data[2*sectorSize:]
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
		_, _ = readGPT(disk, int64(len(data)))
	})
}
