package job

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/optimize"
	"oscine.dev/oscine/internal/serve/bundle"
)

func TestCPU(t *testing.T) {
	for name, test := range map[string]struct {
		arch, text string
		saturates  bool
		activation string
	}{
		"with VNNI":    {"amd64", "model name\t: A\nflags\t\t: fpu avx2 avx512_vnni\n\nflags: none\n", false, "QUInt8"},
		"without":      {"amd64", "model name\t: B\nflags\t\t: fpu avx2\n", true, "QUInt8"},
		"says nothing": {"amd64", "", true, "QUInt8"},
		"arm64":        {"arm64", "processor: 0\nFeatures\t: fp asimd\n", false, "QInt8"},
	} {
		file := filepath.Join(t.TempDir(), "cpuinfo")
		if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := readCPU(file)
		c.arch = test.arch
		if c.saturates() != test.saturates || c.activation() != test.activation {
			t.Errorf("%s: got %v, %s from %+v", name, c.saturates(), c.activation(), c)
		}
	}
}

func TestTail(t *testing.T) {
	var l tail
	if got := l.last(); got != "" {
		t.Errorf("of nothing: got %q", got)
	}
	for range 1000 {
		_, _ = l.Write([]byte("a line\n"))
	}
	_, _ = l.Write([]byte("b\nc\nthe end\n"))
	if got := l.last(); got != ": b; c; the end" || l.line() != "the end" || len(l.text) > maxTail {
		t.Errorf("got %q, %q, %d bytes", got, l.line(), len(l.text))
	}
}

// What is no archive of a request and a model is refused, and leaves nothing.
func TestBadRequests(t *testing.T) {
	archive := func(files map[string]string) []byte {
		dir := t.TempDir()
		var list []bundle.File
		for name, content := range files {
			path := filepath.Join(dir, strings.ReplaceAll(name, "/", "-"))
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			list = append(list, bundle.File{Name: name, Path: path, Size: int64(len(content))})
		}
		var b bytes.Buffer
		if err := bundle.Write(&b, list); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for name, test := range map[string]struct {
		in   []byte
		want string
	}{
		"nothing":     {nil, "receive the model"},
		"no request":  {archive(map[string]string{"model/a.onnx": "x"}), "read the request"},
		"no JSON":     {archive(map[string]string{"request.json": "x"}), "read the request"},
		"leads away":  {archive(map[string]string{"request.json": `{"model":"../../etc/passwd","result":"r.onnx"}`}), "leads out of the model's folder"},
		"result away": {archive(map[string]string{"request.json": `{"model":"a.onnx","result":"/r.onnx"}`}), "leads out of the model's folder"},
		"no model":    {archive(map[string]string{"request.json": `{"model":"a.onnx","result":"r.onnx"}`}), "read the model"},
	} {
		work := t.TempDir()
		var out, log bytes.Buffer
		err := Run(t.Context(), Options{Tool: optimize.PackONNX, Work: work, Log: &log}, bytes.NewReader(test.in), &out)
		if err == nil || !strings.Contains(err.Error(), test.want) || out.Len() > 0 {
			t.Errorf("%s: got %v and %d bytes, want %q", name, err, out.Len(), test.want)
		}
		if left, err := os.ReadDir(work); err != nil || slices.ContainsFunc(left, func(os.DirEntry) bool { return true }) {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
}
