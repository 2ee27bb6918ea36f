package machinetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/image"
)

// EnableVariable switches VM tests on when it is 1; make test sets it.
const EnableVariable = "OSCINE_VM_TESTS"

// ImagesVariable names a folder with ready images, ARCH.img each, to test
// instead of building them.
const ImagesVariable = "OSCINE_VM_IMAGES"

// keptImages is how many images of earlier trees stay in the cache, for each
// architecture.
const keptImages = 2

// Need skips the test where no machine may or can run.
func Need(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a machine: not with -short")
	}
	if os.Getenv(EnableVariable) != "1" {
		t.Skipf("boots a machine: set %s=1, or use make test", EnableVariable)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if _, err := debian.FindTool(ctx, "qemu-system-x86_64"); err != nil {
		t.Skipf("boots a machine, and QEMU is missing: %v", err)
	}
}

// Image returns the disk image of the tree under test for arch (amd64, arm64,
// or "" for this computer's), built on first use and kept in the cache by the
// content of the sources. It must not be written to.
func Image(t testing.TB, arch string) string {
	t.Helper()
	Need(t)
	if arch == "" {
		arch = runtime.GOARCH
	}
	if dir := os.Getenv(ImagesVariable); dir != "" {
		return filepath.Join(dir, arch+".img")
	}
	return build(t, arch, image.DefaultVersion)
}

// ImageOf is Image for this computer's architecture that calls itself version.
func ImageOf(t testing.TB, version string) string {
	t.Helper()
	Need(t)
	return build(t, runtime.GOARCH, version)
}

func build(t testing.TB, arch, version string) string {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := sourceDigest(root)
	if err != nil {
		t.Fatalf("hash the sources: %v", err)
	}
	dir, err := cacheDir()
	if err != nil {
		t.Fatal(err)
	}
	// Test programs of several packages run at once; one of them builds.
	unlock, err := lock(filepath.Join(dir, "build-"+arch+".lock"), unix.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	file := filepath.Join(dir, fmt.Sprintf("%s-%s-%s.img", arch, version, digest))
	if _, err := os.Stat(file); err == nil {
		return file
	}
	forget(filepath.Join(dir, arch+"-"+version+"-*.img"), keptImages-1)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	began := time.Now()
	if _, err := image.Build(ctx, image.Options{Arch: arch, Version: version, Source: root, Out: file, Log: logWriter{t}}); err != nil {
		t.Fatalf("build the %s image: %v", arch, err)
	}
	t.Logf("built the %s image in %s", arch, time.Since(began).Round(100*time.Millisecond))
	return file
}

// logWriter shows progress lines in the test's log.
type logWriter struct{ t testing.TB }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Logf("image: %s", strings.TrimSpace(string(p)))
	return len(p), nil
}

func cacheDir() (string, error) {
	cache, err := debian.CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "machinetest")
	return dir, os.MkdirAll(dir, 0o755)
}

// lock takes an advisory lock on a file; the kernel gives it back when the
// process ends, however it ends.
func lock(file string, how int) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", file, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// forget deletes the oldest files that match, but keeps the newest few, and all
// younger than an hour: another test run may be using them.
func forget(pattern string, keep int) {
	names, err := filepath.Glob(pattern)
	if err != nil {
		return
	}
	age := func(name string) time.Duration {
		info, err := os.Stat(name)
		if err != nil {
			return 0
		}
		return time.Since(info.ModTime())
	}
	slices.SortFunc(names, func(a, b string) int { return int(age(a) - age(b)) })
	for i, name := range names {
		if i >= keep && age(name) > time.Hour {
			_ = os.Remove(name) // an older image that stays costs disk space only
		}
	}
}

// moduleRoot is the folder of go.mod above the test's working folder.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the test: VM tests run inside a checkout")
		}
	}
}

// sourceDigest names the content of everything that goes into an image.
func sourceDigest(root string) (string, error) {
	h := sha256.New()
	for _, top := range []string{"go.mod", "go.sum", "cmd", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && d.Name() == "testdata" {
				return fs.SkipDir
			}
			if !d.Type().IsRegular() || strings.HasSuffix(name, "_test.go") {
				return nil
			}
			return hashFile(h, root, name)
		})
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), nil
}

func hashFile(h io.Writer, root, name string) error {
	raw, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) { // an editor's temporary file
		return nil
	}
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(root, name)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(h, "%s %d\n%s", rel, len(raw), raw)
	return err
}
