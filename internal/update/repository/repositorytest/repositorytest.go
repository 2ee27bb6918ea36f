package repositorytest

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"
	"time"

	erofs "github.com/erofs/go-erofs"

	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/uki"
	"oscine.dev/oscine/internal/uki/ukitest"
	"oscine.dev/oscine/internal/update/keys"
	"oscine.dev/oscine/internal/update/repository"
)

// Noise is n bytes that do not compress, the same for the same seed.
func Noise(seed byte, n int) []byte {
	out := make([]byte, n)
	if _, err := rand.NewChaCha8([32]byte{seed}).Read(out); err != nil {
		panic(err)
	}
	return out
}

// Kernel is the kernel of the releases that tests make: amd64, cloud.
const Kernel = "7.2.12+deb13-cloud-amd64"

// Parts are those of a release with some files on its root.
func Parts(t testing.TB, version, kernel string, files map[string][]byte) *repository.Parts {
	t.Helper()
	root, v := Root(t, files)
	image, err := uki.Assemble(ukitest.Stub(), []uki.Section{
		{Name: ".osrel", Data: []byte("ID=oscine\nIMAGE_ID=oscine\nIMAGE_VERSION=" + version + "\n")},
		{Name: ".cmdline", Data: []byte(v.Argument() + " quiet")}, {Name: ".uname", Data: []byte(kernel)},
		{Name: ".initrd", Data: Noise(100, 50<<10)}, {Name: ".linux", Data: Noise(101, 100<<10)},
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := repository.NewParts(image, root)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Root writes a root as package image does: erofs, then its hash tree.
func Root(t testing.TB, files map[string][]byte) (*os.File, release.Verity) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "root"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	w := erofs.Create(out, erofs.WithBlockSize(release.BlockSize), erofs.WithBuildTime(1, 0))
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := write(w, name, files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	size, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	size = (size + release.BlockSize - 1) / release.BlockSize * release.BlockSize
	if err := out.Truncate(size); err != nil {
		t.Fatal(err)
	}
	tree, v, err := release.HashTree(io.NewSectionReader(out, 0, size), []byte("salt"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.WriteAt(tree, size); err != nil {
		t.Fatal(err)
	}
	return out, v
}

func write(w *erofs.Writer, name string, data []byte) error {
	if dir := path.Dir(name); dir != "." {
		if err := w.Mkdir("/"+dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	f, err := w.Create("/" + name)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, bytes.NewReader(data)); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return w.Chtimes("/"+name, time.Unix(1, 0), time.Unix(1, 0))
}

// Files are the files of a version: a large one that changes with it in one
// place, and some that stay.
func Files(version string) map[string][]byte {
	daemon := Noise(1, 3<<20)
	daemon = append(daemon[:1<<20:1<<20], append([]byte("version "+version), daemon[1<<20:]...)...)
	return map[string][]byte{"usr/bin/oscined": daemon, "usr/lib/libc.so": Noise(2, 200<<10), "etc/version": []byte(version)}
}

// Keys makes one key for each role in a folder of the test's own.
func Keys(t testing.TB, roles ...string) []*keys.Key {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	for _, role := range roles {
		if _, err := keys.Generate(dir, role, nil); err != nil {
			t.Fatal(err)
		}
	}
	all, err := keys.Load(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// New makes a release folder, with keys for all roles and a delegation, and the
// releases of some versions in it. It returns the trusted root that a node
// begins with.
func New(t testing.TB, options repository.Options, versions ...string) (dir string, r *repository.Repository, root []byte) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "releases")
	r = repository.Open(dir, Keys(t, "root", "targets", "snapshot", "timestamp", "releases"), options)
	if result, err := r.Init(repository.Setup{}); err != nil || !result.Published {
		t.Fatalf("init: %+v, %v", result, err)
	}
	root, err := r.RootMetadata()
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range versions {
		Add(t, r, version)
	}
	return dir, r, root
}

// Add adds a release.
func Add(t testing.TB, r *repository.Repository, version string) *repository.Created {
	t.Helper()
	created, err := r.Create(t.Context(), repository.Release{Parts: Parts(t, version, Kernel, Files(version)), Deltas: 3})
	if err != nil || !created.Published {
		t.Fatalf("create %s: %+v, %v", version, created, err)
	}
	return created
}
