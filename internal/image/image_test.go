package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/image/layout"
	"oscine.dev/oscine/internal/release"
)

var update = flag.Bool("update", false, "rewrite golden files")

// offline makes fetching fail at once, so that a test uses what the cache
// holds and skips what it lacks.
func offline(t *testing.T) {
	t.Helper()
	t.Setenv("OSCINE_DEBIAN_MIRROR", "http://127.0.0.1:1/debian")
}

// cachedTree returns a set of packages from the cache, or skips.
func cachedTree(t *testing.T, set, arch string) *debian.Tree {
	t.Helper()
	offline(t)
	s, err := debian.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := s.Tree(t.Context(), set, arch)
	if err != nil {
		t.Skipf("the packages %s of %s are not in the cache: run oscine image build --arch %s once", set, arch, arch)
	}
	return tree
}

// tool returns a program by others to compare with, or skips.
func tool(t *testing.T, name string) debian.Tool {
	t.Helper()
	offline(t)
	s, err := debian.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.Tool(t.Context(), name)
	if err != nil {
		t.Skipf("%s is neither installed nor in the cache: install it, or run oscine machine start once", name)
	}
	return found
}

func run(t *testing.T, tool debian.Tool, args ...string) string {
	t.Helper()
	out, err := tool.Command(t.Context(), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", tool.Name, args, err, out)
	}
	return string(out)
}

// testPrograms is a folder with stand-ins for Oscine's programs: one that does
// nothing, but has the build information of a Go program.
func testPrograms(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module oscine.dev/oscine\n", "main.go": "package main\n\nfunc main() {}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", "small", ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build a small program: %v\n%s", err, out)
	}
	for _, p := range programs {
		if err := os.Symlink("small", filepath.Join(dir, filepath.Base(p.pkg))); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// buildOnce builds a small image, or skips where packages are not cached.
func buildOnce(t *testing.T, o Options) *Result {
	t.Helper()
	o.fill()
	for _, set := range []string{"kernel-" + o.Flavour, "boot", "runtime", "certificates"} {
		cachedTree(t, set, o.Arch)
	}
	cachedTree(t, "tools", runtime.GOARCH)
	r, err := Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestBuildIsReproducible(t *testing.T) {
	bin := testPrograms(t)
	var sums [2]string
	var results [2]*Result
	for i := range sums {
		out := filepath.Join(t.TempDir(), "x.img")
		results[i] = buildOnce(t, Options{Out: out, Programs: bin, Arch: "amd64", Size: 800 << 20})
		if i == 0 {
			time.Sleep(2 * time.Second) // FAT counts in two seconds
		}
		m, err := Open(out)
		if err != nil {
			t.Fatal(err)
		}
		uki, err := m.ReadESP("/EFI/Linux/" + results[i].UKI)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(uki)
		all := sha256.New()
		for _, name := range []string{release.PartitionESP, release.PartitionRootA, release.PartitionRootB} {
			p, _ := m.Partition(name)
			block := make([]byte, 1<<20)
			for at := int64(0); at < p.Size; at += int64(len(block)) {
				n := min(int64(len(block)), p.Size-at)
				if _, err := m.file.ReadAt(block[:n], p.Start+at); err != nil {
					t.Fatal(err)
				}
				all.Write(block[:n])
			}
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		sums[i] = hex.EncodeToString(sum[:]) + hex.EncodeToString(all.Sum(nil))
	}
	if results[0].RootHash != results[1].RootHash {
		t.Errorf("root hashes differ: %s and %s", results[0].RootHash, results[1].RootHash)
	}
	if sums[0] != sums[1] {
		t.Error("unified kernel images or partitions differ")
	}
}

func TestInspect(t *testing.T) {
	out := filepath.Join(t.TempDir(), "x.img")
	built := buildOnce(t, Options{Out: out, Programs: testPrograms(t), Arch: "arm64", Version: "1.2.3"})
	r, err := Inspect(out)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.RootHash != built.RootHash || r.Version != "1.2.3" || r.Arch != "arm64" || r.Slot != release.PartitionRootA {
		t.Errorf("got root hash %s, version %s, %s on %s", r.RootHash, r.Version, r.Arch, r.Slot)
	}
	found := map[string]File{}
	for _, f := range r.Files {
		found[f.Path] = f
		if strings.HasPrefix(f.Why, Unexplained) || f.Why == "" {
			t.Errorf("/%s: %q", f.Path, f.Why)
		}
		if f.Mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
			t.Errorf("/%s is set-user-ID or set-group-ID", f.Path)
		}
	}
	for _, name := range []string{"usr/sbin/init", "usr/bin/oscined", "usr/bin/crun", "usr/lib/ld-linux-aarch64.so.1", "etc/ssl/certs/ca-certificates.crt", "proc", "sys", "dev", "run", "tmp", "var", "boot"} {
		if _, ok := found[name]; !ok {
			t.Errorf("the root lacks /%s", name)
		}
	}
	for _, name := range []string{"sh", "bash", "dash", "busybox", "python3", "perl", "apt", "dpkg", "ssh"} {
		for _, dir := range []string{"usr/bin/", "usr/sbin/"} {
			if _, ok := found[dir+name]; ok {
				t.Errorf("the root holds /%s%s", dir, name)
			}
		}
	}
	checkSBOM(t, r)
	damage(t, out)
}

func checkSBOM(t *testing.T, r *Report) {
	t.Helper()
	var text bytes.Buffer
	if err := r.WriteSBOM(&text); err != nil {
		t.Fatal(err)
	}
	var doc spdxDocument
	if err := json.Unmarshal(text.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	ids, files := map[string]bool{"SPDXRef-DOCUMENT": true}, 0
	for _, p := range doc.Packages {
		if ids[p.SPDXID] {
			t.Errorf("SBOM: %s appears twice", p.SPDXID)
		}
		ids[p.SPDXID] = true
	}
	for _, f := range doc.Files {
		ids[f.SPDXID] = true
	}
	for _, rel := range doc.Relationships {
		if !ids[rel.From] || !ids[rel.To] {
			t.Errorf("SBOM: relationship %s %s %s names what is not there", rel.From, rel.Type, rel.To)
		}
	}
	for _, f := range r.Files {
		if f.Mode.IsRegular() {
			files++
		}
	}
	if len(doc.Files) != files || !ids[spdxID("deb:crun")] {
		t.Errorf("SBOM: %d files for %d; crun %v", len(doc.Files), files, ids[spdxID("deb:crun")])
	}
	checkLicences(t, doc)
}

// checkLicences wants the licence of at least 95 of 100 packages, and the text of
// each that SPDX does not list.
func checkLicences(t *testing.T, doc spdxDocument) {
	t.Helper()
	var none []string
	texts := map[string]bool{}
	for _, l := range doc.Licences {
		texts[l.ID] = l.Text != "" && l.Name != ""
	}
	for _, p := range doc.Packages {
		if p.LicenseDeclared == noAssertion {
			none = append(none, p.Name)
		}
		for _, ref := range regexp.MustCompile(`LicenseRef-[A-Za-z0-9.-]+`).FindAllString(p.LicenseDeclared, -1) {
			if !texts[ref] {
				t.Errorf("SBOM: %s has the licence %s without its text", p.Name, ref)
			}
		}
	}
	t.Logf("%d of %d packages of the SBOM have a licence", len(doc.Packages)-len(none), len(doc.Packages))
	if 100*len(none) > 5*len(doc.Packages) {
		t.Errorf("SBOM: %d of %d packages have no licence: %v; was the image built by an older version (make image builds it again)?", len(none), len(doc.Packages), none)
	}
}

// TestImageTellsLicences reads an image with Oscine's real programs and all that
// they are made of.
func TestImageTellsLicences(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			file := "../../out/oscine-" + arch + ".img"
			if _, err := os.Stat(file); err != nil {
				t.Skipf("there is no image out/oscine-%s.img: make image ARCH=%s builds it", arch, arch)
			}
			r, err := Inspect(file)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if len(r.Components) < 50 {
				t.Fatalf("the image is made of %d components: is it one of Oscine's own programs?", len(r.Components))
			}
			checkSBOM(t, r)
		})
	}
}

// damage checks what is said of an image that is not whole; it spoils it.
func damage(t *testing.T, good string) {
	t.Helper()
	m, err := Open(good)
	if err != nil {
		t.Fatal(err)
	}
	slot, _ := m.Partition(release.PartitionRootA)
	esp, _ := m.Partition(release.PartitionESP)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(good, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, c := range []struct {
		name string
		at   int64
		want string
	}{
		{"a bit of the root", slot.Start + 5*release.BlockSize + 17, "damaged"},
		{"the ESP's first sector", esp.Start + 11, "ESP"},
		{"the partition table", 2*layout.SectorSize + 33, "checksum"},
	} {
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, c.at); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{b[0] ^ 0x10}, c.at); err != nil {
			t.Fatal(err)
		}
		if r, err := Inspect(good); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s flipped: got %v, want an error that says %q", c.name, err, c.want)
			if r != nil {
				_ = r.Close()
			}
		}
		if _, err := f.WriteAt(b, c.at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(300 << 20); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(good); !errors.Is(err, ErrNotImage) || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("cut off: got %v", err)
	}
}

func TestOpenRefusesOtherFiles(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string][]byte{"empty": nil, "text": []byte("hello"), "zero": make([]byte, 1<<20)} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(file); !errors.Is(err, ErrNotImage) {
			t.Errorf("%s: got %v, want ErrNotImage", name, err)
		}
	}
	if _, err := Open(dir); !errors.Is(err, ErrNotImage) {
		t.Errorf("folder: got %v, want ErrNotImage", err)
	}
	if _, err := Inspect(dir); err == nil || !strings.Contains(err.Error(), "not a root of Oscine") {
		t.Errorf("inspect an empty folder: got %v", err)
	}
}

func TestBuildRefusesBadOptions(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Arch: "riscv64"}, "--arch"}, {Options{Flavour: "turbo"}, "--kernel"}, {Options{Version: "1+2"}, "--version"},
		{Options{Version: "1_2"}, "--version"}, {Options{Size: -1}, "--size"},
		{Options{Source: "/", Out: filepath.Join(t.TempDir(), "x")}, "--source"},
		{Options{Key: "/nonexistent.pem", Out: filepath.Join(t.TempDir(), "x")}, "signing key"},
	} {
		if _, err := Build(t.Context(), c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want an error that names %s", c.o, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if _, err := Build(ctx, Options{Out: filepath.Join(dir, "x.img"), Programs: testPrograms(t)}); err == nil {
		t.Error("a build whose context had ended succeeded")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

// A root can be read whole wherever its last inode lies, at the very end too.
func TestLastInode(t *testing.T) {
	for n := range 2 * release.BlockSize / 32 {
		f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		var files []File
		for i := range n {
			files = append(files, File{Path: fmt.Sprintf("d%04d", i), Mode: fs.ModeDir | 0o755})
		}
		v, err := writeRoot(t.Context(), files, f)
		if err != nil {
			t.Fatal(err)
		}
		size, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			t.Fatal(err)
		}
		m := &Image{file: f, parts: map[string]layout.Partition{release.PartitionRootA: {Size: size}}}
		root, _, err := m.Root(v)
		if err != nil {
			t.Fatal(err)
		}
		err = fs.WalkDir(root, ".", func(_ string, d fs.DirEntry, err error) error {
			if err == nil {
				_, err = d.Info()
			}
			return err
		})
		if err != nil {
			t.Errorf("%d folders: %v", n, err)
		}
		f.Close()
	}
}

func TestHashTreeMatchesVeritysetup(t *testing.T) {
	verity := tool(t, "veritysetup")
	for _, blocks := range []int{2, 128, 129, 128*128 + 1} {
		data := make([]byte, blocks*release.BlockSize)
		for i := range data {
			data[i] = byte(i >> 12 * i)
		}
		salt := sha256.Sum256([]byte{byte(blocks)})
		tree, v, err := release.HashTree(bytes.NewReader(data), salt[:])
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		file, hashes := filepath.Join(dir, "data"), filepath.Join(dir, "hashes")
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(hashes, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		out := run(t, verity, "format", "--no-superblock", "--hash", "sha256", "--data-block-size", "4096", "--hash-block-size", "4096",
			"--data-blocks", fmt.Sprint(blocks), "--salt", hex.EncodeToString(salt[:]), file, hashes)
		want, err := os.ReadFile(hashes)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(tree, want) || !strings.Contains(out, hex.EncodeToString(v.RootHash[:])) {
			t.Errorf("%d blocks: tree of %d bytes for %d, root hash %x, veritysetup says\n%s", blocks, len(tree), len(want), v.RootHash, out)
		}
	}
}

func TestModuleClosure(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			tree := cachedTree(t, "kernel-cloud", arch)
			cache, err := debian.CacheDir()
			if err != nil {
				t.Fatal(err)
			}
			s, err := debian.Open(nil)
			if err != nil {
				t.Fatal(err)
			}
			k, err := openKernel(t.Context(), s, cache, FlavourCloud, arch)
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			fmt.Fprintf(&b, "# %s, %s\n# stage 1 loads\n%s", k.version, tree.Packages[0].Version, loadList(k.early))
			fmt.Fprintf(&b, "# initramfs\n%s", loadList(k.initrd))
			golden := filepath.Join("testdata", "modules-"+arch+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), b.String()); diff != "" {
				t.Errorf("-want +got, go test -update accepts it:\n%s", diff)
			}
		})
	}
}
