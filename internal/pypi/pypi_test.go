package pypi

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const wheelName = "example-1.0-py3-none-any.whl"

// wheel writes a wheel that pip accepts, and returns its package.
func wheel(t *testing.T, dir string) Package {
	t.Helper()
	var raw bytes.Buffer
	z := zip.NewWriter(&raw)
	for name, text := range map[string]string{
		"example/lib.so": "library", "example/LICENSE": "terms",
		"example-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: example\nVersion: 1.0\nRequires-Python: <3\n",
		"example-1.0.dist-info/WHEEL":    "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		"example-1.0.dist-info/RECORD":   "",
	} {
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, wheelName), raw.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(raw.Bytes())
	return Package{Name: "example", Version: "1.0", Wheels: map[string]File{Any: {wheelName, hex.EncodeToString(sum[:]), int64(raw.Len())}}}
}

func TestFetch(t *testing.T) {
	if _, err := findPip(); err != nil {
		t.Skip(err)
	}
	index := t.TempDir()
	t.Setenv("PIP_NO_INDEX", "1")
	t.Setenv("PIP_FIND_LINKS", index)
	p := wheel(t, index)
	s := &Source{cache: t.TempDir(), log: os.Stderr}
	want := map[string]string{"example/lib.so": "lib.so", "example/LICENSE": "licences/LICENSE"}
	if _, err := s.Tree(t.Context(), p, "arm64", want, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without fetching: got %v", err)
	}
	dir, err := s.Tree(t.Context(), p, "arm64", want, true)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"lib.so": "library", "licences/LICENSE": "terms"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != text {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	// The index drops it: other files of it come from the cache.
	if err := os.Remove(filepath.Join(index, wheelName)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Tree(t.Context(), p, "amd64", map[string]string{"example/lib.so": "l"}, true); err != nil {
		t.Errorf("after the index dropped it: %v", err)
	}
	if _, err := s.Tree(t.Context(), p, "amd64", map[string]string{"nothing": "l"}, true); err == nil || !strings.Contains(err.Error(), "it lacks [nothing]") {
		t.Errorf("a file that it lacks: got %v", err)
	}
	empty := &Source{cache: t.TempDir(), log: os.Stderr}
	if _, err := empty.Wheel(t.Context(), p, "amd64", true); err == nil || !strings.Contains(err.Error(), "may be put into the cache as") {
		t.Errorf("a wheel that nobody has: got %v", err)
	}
	left, err := filepath.Glob(filepath.Join(empty.cache, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("a failed fetch left %v, %v", left, err)
	}
}

// An index that gives something else than what is pinned is refused.
func TestFetchRefuses(t *testing.T) {
	if _, err := findPip(); err != nil {
		t.Skip(err)
	}
	index := t.TempDir()
	t.Setenv("PIP_NO_INDEX", "1")
	t.Setenv("PIP_FIND_LINKS", index)
	p := wheel(t, index)
	f := p.Wheels[Any]
	f.SHA256 = strings.Repeat("0", 64)
	p.Wheels[Any] = f
	s := &Source{cache: t.TempDir(), log: os.Stderr}
	if _, err := s.Wheel(t.Context(), p, "amd64", true); err == nil || !strings.Contains(err.Error(), "Expected sha256 000") {
		t.Errorf("another digest: got %v", err)
	}
	if err := s.keep(filepath.Join(index, wheelName), f); err == nil || !strings.Contains(err.Error(), "not the pinned") {
		t.Errorf("keep: got %v", err)
	}
}

func TestExtractStaysBelow(t *testing.T) {
	dir := t.TempDir()
	wheel(t, dir)
	for _, to := range []string{"../out", "/etc/oscine-out"} {
		if err := Extract(filepath.Join(dir, wheelName), t.TempDir(), map[string]string{"example/lib.so": to}); err == nil {
			t.Errorf("%s was written", to)
		}
	}
}

func TestFolders(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	wheel(t, dir)
	file := filepath.Join(dir, wheelName)
	if err := ExtractAll(file, out, func(name string) bool { return strings.HasPrefix(name, "example/") }); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(out, "*", "*"))
	if want := []string{filepath.Join(out, "example/LICENSE"), filepath.Join(out, "example/lib.so")}; err != nil || !slices.Equal(found, want) {
		t.Errorf("got %v, %v, want %v", found, err, want)
	}
	if got, err := Texts(file, "example"); err != nil || got != "LICENSE:\n\nterms\nlib.so:\n\nlibrary\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestDownload(t *testing.T) {
	f := File{Name: "x_y-2.3.0-cp312-cp312-manylinux_2_27_x86_64.manylinux2014_x86_64.whl"}
	got, err := download(f, "r", "d")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"--python-version", "3.12", "--implementation", "cp", "--abi", "cp312", "--platform", "manylinux_2_27_x86_64", "--platform", "manylinux2014_x86_64"}
	if diff := cmp.Diff(want, got[len(got)-len(want):]); diff != "" || !slices.Contains(got, "--require-hashes") {
		t.Errorf("got %v %s", got, diff)
	}
}

func lockOf(name, version, file, digest string) string {
	return fmt.Sprintf(`{"packages":[{"name":%q,"version":%q,"wheels":{"any":{"file":%q,"sha256":%q,"size":1}}}]}`, name, version, file, digest)
}

func TestParseLock(t *testing.T) {
	good := strings.Repeat("a", 64)
	if p, err := ParseLock([]byte(lockOf("example", "1.0", wheelName, good))); err != nil || len(p) != 1 {
		t.Fatalf("got %+v, %v", p, err)
	}
	for _, bad := range []string{
		"", "{}x", lockOf("--index", "1.0", wheelName, good), lockOf("example", "latest", wheelName, good),
		lockOf("example", "1.0", "../x-1-py3-none-any.whl", good), lockOf("example", "1.0", "example-1.0.whl", good), lockOf("example", "1.0", wheelName, "abc"),
	} {
		if p, err := ParseLock([]byte(bad)); err == nil && len(p) > 0 {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func FuzzParseLock(f *testing.F) {
	f.Add([]byte(lockOf("example", "1.0", wheelName, strings.Repeat("a", 64))))
	f.Fuzz(func(t *testing.T, text []byte) {
		packages, err := ParseLock(text)
		if err != nil {
			return
		}
		for _, p := range packages {
			for arch := range p.Wheels {
				w, err := p.For(arch)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := download(w, "r", "d"); err != nil {
					t.Errorf("accepted %q: %v", w.Name, err)
				}
			}
		}
	})
}
