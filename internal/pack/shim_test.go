package pack

import (
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"oscine.dev/oscine/internal/debian"
)

// The shim of a wheel is in the cache, or it is named as what is absent.
func TestShimNotInCache(t *testing.T) {
	t.Setenv("OSCINE_CACHE", t.TempDir())
	if _, err := Libraries(t.Context(), "executorch", "amd64", false, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want %v", err, os.ErrNotExist)
	}
}

// What decides the bytes of a shim decides where it lies.
func TestShimDigest(t *testing.T) {
	s := executorchRecipe().wheel.shim
	first, err := s.digest("amd64", []part{{dir: "/cache/executorch-1-aa"}})
	if err != nil {
		t.Fatal(err)
	}
	other := *s
	other.define = []string{"OTHER"}
	for name, got := range map[string]func() (string, error){
		"another wheel":        func() (string, error) { return s.digest("amd64", []part{{dir: "/cache/executorch-1-bb"}}) },
		"another architecture": func() (string, error) { return s.digest("arm64", []part{{dir: "/cache/executorch-1-aa"}}) },
		"another definition":   func() (string, error) { return other.digest("amd64", []part{{dir: "/cache/executorch-1-aa"}}) },
	} {
		if digest, err := got(); err != nil || digest == first {
			t.Errorf("%s: got %s, %v, as before", name, digest, err)
		}
	}
}

// The pinned compiler makes the same library twice, for each architecture whose
// libraries are at hand.
func TestCompile(t *testing.T) {
	source, err := debian.Open(os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		if _, err := source.Cached(sysrootSet, arch); err != nil {
			if arch == runtime.GOARCH {
				t.Skip(err)
			}
			continue
		}
		c, err := newCompiler(t.Context(), arch, os.Stderr)
		if err != nil {
			t.Fatal(err)
		}
		s := &shim{source: "test", standard: "c++17", link: func(string) []string { return nil }, empty: []string{"libempty.so"}}
		var made [2][]byte
		for i := range made {
			work, dir := t.TempDir(), t.TempDir()
			text := "#include <string>\nextern \"C\" int oscine_test(int n) { return n < 0 ? throw std::string(\"negative\") : n; }\n"
			if err := os.WriteFile(filepath.Join(work, "test.cc"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := c.build(t.Context(), s, work, dir); err != nil {
				t.Fatal(err)
			}
			if made[i], err = os.ReadFile(filepath.Join(dir, s.library())); err != nil {
				t.Fatal(err)
			}
			f, err := elf.Open(filepath.Join(dir, s.library()))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			needed, err := f.ImportedLibraries()
			if err != nil || f.Machine != machine || !slices.Contains(needed, "libempty.so") || !slices.Contains(needed, "libstdc++.so.6") {
				t.Errorf("%s: got %s that needs %v, %v", arch, f.Machine, needed, err)
			}
		}
		if string(made[0]) != string(made[1]) {
			t.Errorf("%s: two builds differ", arch)
		}
	}
}
