package litert

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/pack"
)

// library loads the pinned LiteRT, or skips the test.
func library(t testing.TB) *Library {
	t.Helper()
	dir, err := pack.Libraries(t.Context(), "litert", runtime.GOARCH, false, os.Stderr)
	if err != nil {
		t.Skip(err)
	}
	l, err := Load(filepath.Join(dir, Name))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestRefusals(t *testing.T) {
	l := library(t)
	for name, test := range map[string]struct{ content, want string }{
		"text":     {"this is no model", "it is no TensorFlow Lite file"},
		"empty":    {"", "it is no TensorFlow Lite file"},
		"cut off":  {"\x1c\x00\x00\x00TFL3", "not a model that LiteRT"},
		"edge TPU": {"\x1c\x00\x00\x00TFL3 edgetpu-custom-op", "libedgetpu.so"},
		"garbage":  {"\x1c\x00\x00\x00TFL3" + strings.Repeat("\xff\x01", 4000), "not a model that LiteRT"},
	} {
		path := filepath.Join(t.TempDir(), "model.tflite")
		if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		err := inspect(path)
		if err == nil {
			s, opened := l.Open(path, 1, "")
			if err = opened; err == nil {
				_ = s.Close()
			}
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
	}
	if err := inspect(t.TempDir()); err == nil {
		t.Error("a folder was accepted")
	}
}

// A model of changing shapes makes its buffers again and again.
func TestBuffersAreGivenBack(t *testing.T) {
	pages := func() int {
		text, err := os.ReadFile("/proc/self/statm")
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.Fields(string(text))[0])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	var b buffers
	before := pages()
	const often = 50_000
	for range often {
		if err := b.make(nil, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if more := pages() - before; more > often/2 {
		t.Errorf("%d pages more", more)
	}
}
