package image

import (
	"bytes"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"oscine.dev/oscine/internal/image/cpio"
	"oscine.dev/oscine/internal/image/layout"
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
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	packed := z.EncodeAll(archive, nil) // as images before had it
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

// Only where three kernel images would not fit into the ESP else is the initramfs
// compressed: reading a compressed one makes a boot longer.
func TestPackInitramfs(t *testing.T) {
	archive := makeCPIO(t)
	want, err := cpio.Read(archive)
	if err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		for _, flavour := range []string{FlavourCloud, FlavourMetal, FlavourRT} {
			packed, err := packInitramfs(archive, arch, flavour)
			if err != nil {
				t.Fatal(err)
			}
			compressed := arch == "arm64" && flavour != FlavourCloud
			if bytes.Equal(packed, archive) == compressed {
				t.Errorf("%s for %s: %d bytes of %d, want compressed: %t", flavour, arch, len(packed), len(archive), compressed)
			}
			got, err := ReadInitramfs(packed)
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%s for %s: %v %s", flavour, arch, err, diff)
			}
		}
	}
}

func TestCheckKernelSize(t *testing.T) {
	if err := checkKernelSize(layout.MaxKernel); err != nil {
		t.Errorf("the largest: %v", err)
	}
	if err := checkKernelSize(layout.MaxKernel + 1); err == nil || !strings.Contains(err.Error(), "room for three") {
		t.Errorf("too large: %v", err)
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
