package pack

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/debian"
)

// A pack without a library that another one needs is not built.
func TestLibrariesResolve(t *testing.T) {
	source, err := debian.Open(os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := source.Tree(t.Context(), "engine", "amd64")
	if err != nil {
		t.Skip(err)
	}
	b := &builder{BuildOptions: BuildOptions{Arch: "amd64"}, root: t.TempDir()}
	libs := platformOf("amd64").libs
	if err := os.MkdirAll(filepath.Join(b.root, libs), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"libm.so.6", "libc.so.6", "ld-linux-x86-64.so.2"} {
		err := b.resolve(nil)
		if name == "libc.so.6" && (err == nil || !strings.Contains(err.Error(), "libm.so.6 needs libc.so.6")) {
			t.Errorf("without %s: got %v", name, err)
		}
		if err := b.copy(filepath.Join(tree.Dir, libs, name), filepath.Join(libs, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.resolve(nil); err != nil {
		t.Error(err)
	}
	// What comes with the node's driver is in no pack.
	if err := os.Remove(filepath.Join(b.root, libs, "libc.so.6")); err != nil {
		t.Fatal(err)
	}
	if err := b.resolve([]string{"libc.so.6"}); err != nil {
		t.Errorf("with libc.so.6 as the driver's: got %v", err)
	}
}
