package pack

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/debian"
)

func TestUpstream(t *testing.T) {
	for version, want := range map[string]string{"1:0.7.0+dfsg-2": "0.7.0+dfsg", "0.27.0-1": "0.27.0", "2.43": "2.43"} {
		if got := upstream(version); got != want {
			t.Errorf("%s: got %s, want %s", version, got, want)
		}
	}
}

// A library that is missing is named before the pack is made, and not when a
// worker starts.
func TestClosure(t *testing.T) {
	program, err := exec.LookPath("mke2fs")
	if err != nil {
		program = "/sbin/mke2fs"
	}
	needed, err := neededBy(program)
	if err != nil || len(needed) == 0 {
		t.Skipf("needs a program with shared libraries: %s: %v", program, err)
	}
	root := t.TempDir()
	place := func(name string) {
		text, err := os.ReadFile(program) // a program will do for a library
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	place("program")
	if _, err := closure(root, []string{"program"}, []string{"lib"}); err == nil || !strings.Contains(err.Error(), "program needs "+needed[0]) {
		t.Errorf("without libraries: got %v", err)
	}
	if err := os.Mkdir(filepath.Join(root, "lib"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range needed {
		place("lib/" + name)
	}
	files, err := closure(root, []string{"program"}, []string{"other", "lib"})
	if err != nil || len(files) != 1+len(needed) {
		t.Errorf("got %v, %v, want the program and %v", files, err, needed)
	}
	if _, err := closure(root, []string{"none"}, nil); err == nil {
		t.Error("a file that is not there was accepted")
	}
}

// TestLlamaPack builds the real pack twice, for each architecture whose packages
// are in the cache: every library is found, and both builds are alike.
func TestLlamaPack(t *testing.T) {
	source, err := debian.Open(os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := source.Cached(llamaName, runtime.GOARCH); err != nil {
		t.Skipf("needs llama.cpp (oscine pack build llama.cpp): %v", err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		if _, err := source.Cached(llamaName, arch); err != nil {
			continue
		}
		var digests []string
		for range 2 {
			p, err := Build(t.Context(), BuildOptions{Name: "llama.cpp", Arch: arch, Out: t.TempDir(), Source: "."})
			if err != nil {
				t.Fatal(err)
			}
			digests = append(digests, p.Digest)
			if p.SizeBytes > 40<<20 || !strings.Contains(p.Version, "-") || p.Version[0] == '0' && p.Version[1] == '-' {
				t.Errorf("%s: version %s of %d bytes, want at most 40 MiB", arch, p.Version, p.SizeBytes)
			}
		}
		if digests[0] != digests[1] {
			t.Errorf("%s: two builds differ: %v", arch, digests)
		}
	}
}
