package bundle

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// lay writes files below a new folder.
func lay(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// pack finds and packs the model at a path.
func pack(t testing.TB, model string) []byte {
	t.Helper()
	files, err := Find(model)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Write(&b, files); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// unpacked is what an archive unpacks to.
func unpacked(t testing.TB, archive []byte) map[string]string {
	t.Helper()
	dir := t.TempDir()
	if _, err := Unpack(bytes.NewReader(archive), dir, 1<<20); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode() != 0o444 {
			t.Errorf("%s has the mode %v", file, info.Mode())
		}
		content, err := os.ReadFile(file)
		name, _ := filepath.Rel(dir, file)
		got[name] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestFolder(t *testing.T) {
	long := strings.Repeat("long/", 15) + strings.Repeat("x", 200)
	want := map[string]string{"saved_model.pb": "graph", "variables/variables.index": "i", "variables/a": "", "größe": "ü", long: "l"}
	files := map[string]string{".git/config": "hidden", "variables/.cache": "hidden"}
	for name, content := range want {
		files[name] = content
	}
	first, second := lay(t, files), lay(t, files)
	if err := os.Chtimes(filepath.Join(second, "saved_model.pb"), time.Now(), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	archive := pack(t, first)
	if !bytes.Equal(archive, pack(t, second)) {
		t.Error("the same folder at another time is another archive")
	}
	if diff := cmp.Diff(want, unpacked(t, archive)); diff != "" {
		t.Error(diff)
	}
}

func TestFolderThatIsNoModel(t *testing.T) {
	if _, err := Find(lay(t, map[string]string{".hidden": "x"})); err == nil || !strings.Contains(err.Error(), "holds no files") {
		t.Errorf("empty: %v", err)
	}
	dir := lay(t, map[string]string{"a": "x", "b/c": "y"})
	if err := os.Symlink(filepath.Join(dir, "a"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if files, err := Find(dir); err != nil || len(files) != 3 {
		t.Errorf("a link to a file: %v, %v", files, err)
	}
	if err := os.Symlink(filepath.Join(dir, "b"), filepath.Join(dir, "folder")); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(dir); err == nil || !strings.Contains(err.Error(), "folder is neither a file nor a folder") {
		t.Errorf("a link to a folder: %v", err)
	}
}

// external is an ONNX model whose weights are in a file.
func external(location string) string {
	field := func(n byte, parts ...string) string {
		body := strings.Join(parts, "")
		return string([]byte{n<<3 | 2, byte(len(body))}) + body
	}
	return field(7, field(5, field(8, "w"), field(13, field(1, "location"), field(2, location)), "\x70\x01"))
}

func TestDataFilesGoAlong(t *testing.T) {
	dir := lay(t, map[string]string{"net.onnx": external("data/net.data"), "data/net.data": "weights", "alone.onnx": "no model", "other": "x",
		"ir.xml": "<net/>", "ir.bin": "weights", "lost.onnx": external("lost.data"), "thief.onnx": external("../secret"), "root.onnx": external("/etc/passwd")})
	if diff := cmp.Diff(map[string]string{"net.onnx": external("data/net.data"), "data/net.data": "weights"}, unpacked(t, pack(t, filepath.Join(dir, "net.onnx")))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"ir.xml": "<net/>", "ir.bin": "weights"}, unpacked(t, pack(t, filepath.Join(dir, "ir.xml")))); diff != "" {
		t.Error(diff)
	}
	if files, err := Find(filepath.Join(dir, "alone.onnx")); err != nil || len(files) != 0 {
		t.Errorf("a file alone: %v, %v", files, err)
	}
	for name, want := range map[string]string{"lost.onnx": `keeps weights in "lost.data", which is not beside it`, "thief.onnx": "leads out of the model's folder", "root.onnx": "leads out of the model's folder"} {
		if _, err := Find(filepath.Join(dir, name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFileThatChanges(t *testing.T) {
	dir := lay(t, map[string]string{"a": "12345"})
	for _, size := range []int64{4, 6} {
		if err := Write(&bytes.Buffer{}, []File{{"a", filepath.Join(dir, "a"), size}}); err == nil || !strings.Contains(err.Error(), "size changed") {
			t.Errorf("of %d bytes: %v", size, err)
		}
	}
}

// hostile are archives that nobody's Write wrote.
func hostile(t testing.TB) map[string][]byte {
	archive := func(headers ...tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			if h.Mode == 0 {
				h.Mode = 0o444
			}
			if h.Typeflag == 0 {
				h.Typeflag = tar.TypeReg
			}
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			_, _ = w.Write(make([]byte, h.Size))
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	return map[string][]byte{
		"no archive":          []byte("hello"),
		"empty":               archive(),
		"out of the folder":   archive(tar.Header{Name: "../x"}),
		"absolute":            archive(tar.Header{Name: "/x"}),
		"not shortest":        archive(tar.Header{Name: "a/../b"}),
		"a control byte":      archive(tar.Header{Name: "a\nb"}),
		"a link":              archive(tar.Header{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}),
		"a hard link":         archive(tar.Header{Name: "x"}, tar.Header{Name: "y", Typeflag: tar.TypeLink, Linkname: "x"}),
		"a device":            archive(tar.Header{Name: "x", Typeflag: tar.TypeChar}),
		"a folder":            archive(tar.Header{Name: "x/", Typeflag: tar.TypeDir, Mode: 0o755}),
		"setuid":              archive(tar.Header{Name: "x", Mode: 0o4755}),
		"an owner":            archive(tar.Header{Name: "x", Uid: 7}),
		"a time":              archive(tar.Header{Name: "x", ModTime: time.Unix(9, 0)}),
		"not ascending":       archive(tar.Header{Name: "b"}, tar.Header{Name: "a"}),
		"twice":               archive(tar.Header{Name: "b"}, tar.Header{Name: "b"}),
		"a file as folder":    archive(tar.Header{Name: "b"}, tar.Header{Name: "b/c"}),
		"too large":           archive(tar.Header{Name: "b", Size: 1 << 21}),
		"too large together":  archive(tar.Header{Name: "a", Size: 1 << 19}, tar.Header{Name: "b", Size: 1<<19 + 1}),
		"too deep":            archive(tar.Header{Name: strings.Repeat("a/", MaxDepth+1) + "b"}),
		"more behind its end": append(archive(tar.Header{Name: "a"}), make([]byte, 1024)...),
		"sparse":              archive(tar.Header{Name: "a", PAXRecords: map[string]string{"SCHILY.xattr.user.x": "1"}}),
		"cut":                 archive(tar.Header{Name: "a", Size: 1000})[:600],
	}
}

func TestHostileArchives(t *testing.T) {
	for name, archive := range hostile(t) {
		if _, err := Unpack(bytes.NewReader(archive), t.TempDir(), 1<<20); err == nil {
			t.Errorf("%s: unpacked", name)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	for _, archive := range hostile(f) {
		f.Add(archive)
	}
	f.Add(pack(f, lay(f, map[string]string{"a/b": "x", "c": "y"})))
	f.Fuzz(func(t *testing.T, archive []byte) {
		above := t.TempDir()
		dir := filepath.Join(above, "model")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		_, err := Unpack(bytes.NewReader(archive), dir, 1<<16)
		if entries, _ := os.ReadDir(above); len(entries) != 1 {
			t.Errorf("written beside the folder: %v", entries)
		}
		if err != nil {
			return
		}
		// What is taken is what Write writes.
		if again := pack(t, dir); !strings.Contains(string(archive), "/.") && !strings.HasPrefix(string(archive), ".") && !bytes.Equal(again, archive) {
			t.Errorf("%d bytes unpack to a folder that packs to %d", len(archive), len(again))
		}
	})
}
