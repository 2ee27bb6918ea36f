package demo

import (
	"image"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"

	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/engine/onnx"
	"oscine.dev/oscine/internal/serve/picture"
	"oscine.dev/oscine/internal/serve/worker"
)

func TestDrawIsRepeatable(t *testing.T) {
	fonts, err := GoFonts()
	if err != nil {
		t.Fatal(err)
	}
	first, err := Draw(20, fonts, 7)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Draw(20, fonts, 7)
	if err != nil {
		t.Fatal(err)
	}
	for i := range first {
		if first[i].Digit != i%10 || first[i].Font != second[i].Font {
			t.Errorf("picture %d: %d %s and %s", i, first[i].Digit, first[i].Font, second[i].Font)
		}
		a, b := first[i].Image.(*image.RGBA), second[i].Image.(*image.RGBA)
		if diff := cmp.Diff(a.Pix, b.Pix); diff != "" {
			t.Errorf("picture %d differs", i)
		}
	}
}

// TestReaderReadsUnseenFonts holds the committed model to what the demo
// promises, without a machine: at least 97 % of pictures from fonts that
// training never saw.
func TestReaderReadsUnseenFonts(t *testing.T) {
	library, err := pack.Libraries(t.Context(), "onnxruntime", runtime.GOARCH, false, os.Stderr)
	if err != nil {
		t.Skip(err)
	}
	l, err := onnx.Load(filepath.Join(library, onnx.Name))
	if err != nil {
		t.Fatal(err)
	}
	session, err := l.Open("../../models/digits/digits.onnx", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	fonts, err := UnseenFonts(t.Context(), os.Stderr)
	if err != nil {
		t.Logf("only the Go fonts: %v", err)
		if fonts, err = GoFonts(); err != nil {
			t.Fatal(err)
		}
	}
	pictures, err := Draw(Pictures, fonts, Seed)
	if err != nil {
		t.Fatal(err)
	}
	meta, right := session.Metadata(), 0
	for _, p := range pictures {
		data, shape, err := picture.Tensor(p.Image, meta.Inputs[0])
		if err != nil {
			t.Fatal(err)
		}
		out := worker.NewOutput(&meta, make([]byte, 4096))
		if err := session.Run(t.Context(), []worker.Tensor{{Shape: shape, Data: data}}, out); err != nil {
			t.Fatal(err)
		}
		if got := likeliest(out.Tensors()[0].Data); got == p.Digit {
			right++
		} else {
			t.Logf("a %d of %s is read as %d", p.Digit, p.Font, got)
		}
	}
	t.Logf("%d of %d right, %d fonts", right, len(pictures), len(fonts))
	if 100*right < 97*len(pictures) {
		t.Errorf("%d of %d are read right, want at least 97 %%", right, len(pictures))
	}
}
