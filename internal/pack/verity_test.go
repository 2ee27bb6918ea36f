package pack

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/debian"
	"oscine.dev/oscine/internal/release"
)

// withoutTree is a pack as it was made before there were hash trees.
func withoutTree(t *testing.T, raw []byte) []byte {
	t.Helper()
	data, err := dataSize(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(raw[:data])
}

func TestReadVerity(t *testing.T) {
	raw := makePack(t, runtime.GOARCH, strings.Repeat("content ", 9000))
	v, err := readVerity(bytes.NewReader(raw), int64(len(raw)))
	if err != nil || v == nil {
		t.Fatalf("got %v, %v", v, err)
	}
	if err := checkTree(bytes.NewReader(raw), v); err != nil {
		t.Error(err)
	}
	if start, ok, err := v.Match(bytes.NewReader(raw)); err != nil || !ok || start != v.Blocks {
		t.Errorf("the tree begins at %d, %t, %v, want %d", start, ok, err, v.Blocks)
	}
	old := withoutTree(t, raw)
	if v, err := readVerity(bytes.NewReader(old), int64(len(old))); err != nil || v != nil {
		t.Errorf("an old pack: got %v, %v", v, err)
	}
	at := int(v.Blocks) * release.BlockSize
	for name, test := range map[string]struct {
		raw  []byte
		want string
	}{
		"cut in its data":        {raw[:at-release.BlockSize], "neither these nor these with their hash tree"},
		"cut in its tree":        {raw[:len(raw)-1], "neither these nor these with their hash tree"},
		"something behind":       {append(bytes.Clone(raw), make([]byte, release.BlockSize)...), "neither these nor these with their hash tree"},
		"blocks of another size": {append(append(bytes.Clone(raw[:superblock+12]), 77), raw[superblock+13:]...), "blocks of 2^77"},
	} {
		if _, err := readVerity(bytes.NewReader(test.raw), int64(len(test.raw))); !errors.Is(err, ErrNotPack) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for name, at := range map[string]int{"data": 5000, "tree": at + 8} {
		damaged := bytes.Clone(raw)
		damaged[at] ^= 1
		v, err := readVerity(bytes.NewReader(damaged), int64(len(damaged)))
		if err != nil {
			t.Fatal(err)
		}
		if err := checkTree(bytes.NewReader(damaged), v); !errors.Is(err, ErrNotPack) {
			t.Errorf("a hash tree that does not fit the %s: got %v", name, err)
		}
	}
}

// By hand, as docs/packs.md says, the same file comes out.
func TestTreeIsVeritysetups(t *testing.T) {
	raw := makePack(t, runtime.GOARCH, strings.Repeat("content ", 90000))
	tool, err := debian.FindTool(t.Context(), "veritysetup")
	if err != nil {
		t.Skip(err)
	}
	old := withoutTree(t, raw)
	file := filepath.Join(t.TempDir(), "e.erofs")
	if err := os.WriteFile(file, old, 0o600); err != nil {
		t.Fatal(err)
	}
	size := strconv.Itoa(len(old))
	cmd := tool.Command(t.Context(), "format", "--no-superblock", "--salt", "-", "--data-blocks", strconv.Itoa(len(old)/4096), "--hash-offset", size, file, file)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, raw) {
		t.Errorf("got %d bytes, %v, want the %d of the pack", len(got), err, len(raw))
	}
}

func FuzzReadVerity(f *testing.F) {
	head := make([]byte, headBytes)
	copy(head[superblock:], "\xe2\xe1\xf5\xe0")
	head[superblock+12], head[superblock+36] = 12, 1
	tree, _, err := release.HashTree(bytes.NewReader(head), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(head, tree...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		v, err := readVerity(bytes.NewReader(raw), int64(len(raw)))
		if err == nil && v != nil && int64(v.Blocks)*release.BlockSize >= int64(len(raw)) {
			t.Errorf("a tree of %d blocks of data in %d bytes", v.Blocks, len(raw))
		}
	})
}

// An old pack is installed and mounted as it always was; one whose hash tree is
// wrong, which an admin signed nonetheless, is not.
func TestInstallTrees(t *testing.T) {
	s, c, dir := openTestStore(t)
	raw := makePack(t, runtime.GOARCH, "x")
	old := withoutTree(t, raw)
	p, err := c.install(s, old)
	skipUnmountable(t, err)
	if err != nil || p.Verity != "" {
		t.Fatalf("an old pack: got %+v, %v", p, err)
	}
	if _, _, err := s.Mount("e"); err != nil {
		t.Error(err)
	}
	wrong := bytes.Clone(raw)
	wrong[len(wrong)-release.BlockSize] ^= 1
	if _, err := c.install(s, wrong); !errors.Is(err, ErrNotPack) || !strings.Contains(err.Error(), "is not that of its data") {
		t.Errorf("a wrong tree: got %v", err)
	}
	if p, err = c.install(s, raw); err != nil || p.Verity != rootOf(raw) || p.Verity == "" {
		t.Errorf("a pack with a tree: got %+v, %v", p, err)
	}
	if err := s.Remove("e"); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*", "*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	file := filepath.Join(t.TempDir(), "wrong.erofs")
	if err := os.WriteFile(file, raw[:len(raw)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(t.Context(), file); err == nil || !strings.Contains(err.Error(), "build or fetch it again") {
		t.Errorf("a file that was cut: got %v", err)
	}
}
