package model

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/update"
)

// pinned is a fetch of a text that goes on where an earlier one ended.
func pinned(text string) func(io.Reader, io.Writer) error {
	return func(have io.Reader, w io.Writer) error {
		there, err := io.ReadAll(have)
		if err != nil {
			return err
		}
		rest, ok := strings.CutPrefix(text, string(there))
		if !ok {
			return update.ErrDamaged
		}
		_, err = io.WriteString(w, rest)
		return err
	}
}

// The model file of a release is stored under its digest, goes on after a cut, and is
// fetched again where its beginning is damaged.
func TestFetch(t *testing.T) {
	dir := t.TempDir()
	f := openFiles(t, dir)
	digest := digestOf("weights")
	err := f.Fetch("digits.ONNX", digest, func(_ io.Reader, w io.Writer) error {
		_, err := io.WriteString(w, "wei")
		return errors.Join(err, update.ErrUnreachable)
	})
	if !errors.Is(err, update.ErrUnreachable) {
		t.Fatalf("cut: got %v", err)
	}
	had := ""
	err = f.Fetch("digits.ONNX", digest, func(have io.Reader, w io.Writer) error {
		there, err := io.ReadAll(have)
		had = string(there)
		return errors.Join(err, pinned("weights")(strings.NewReader(had), w))
	})
	if err != nil || had != "wei" {
		t.Errorf("gone on from %q: %v", had, err)
	}
	if content, err := os.ReadFile(f.Path(digest)); err != nil || string(content) != "weights" {
		t.Errorf("stored %q, %v", content, err)
	}
	if got := f.Format(digest); got != ".onnx" {
		t.Errorf("format %q", got)
	}
	if err := f.Fetch("digits.ONNX", digest, nil); err != nil {
		t.Errorf("one that is there: %v", err)
	}
	other := digestOf("height")
	if err := os.WriteFile(f.partial(other), []byte("wei"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Fetch("x.onnx", other, pinned("height")); err != nil {
		t.Errorf("a damaged beginning: %v", err)
	}
	none := digestOf("none")
	if err := f.Fetch("x.onnx", none, func(io.Reader, io.Writer) error { return update.ErrDamaged }); !errors.Is(err, update.ErrDamaged) {
		t.Errorf("damaged: got %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, partial+"*")); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	f.room = func() error { return errors.New("the disk is full") }
	if err := f.Fetch("x.onnx", none, pinned("none")); err == nil {
		t.Error("stored on a full disk")
	}
}

func TestCheckSource(t *testing.T) {
	f := openFiles(t, t.TempDir())
	if err := f.CheckSource("release:digits.onnx"); err == nil || !strings.Contains(err.Error(), "the running release brings no model file digits.onnx") {
		t.Errorf("no release: got %v", err)
	}
	digest := digestOf("weights")
	f.Pinned = func(name string) string { return map[string]string{"digits.onnx": digest}[name] }
	for _, source := range []string{"release:digits.onnx", digest} {
		if err := f.CheckSource(source); err == nil || !strings.Contains(err.Error(), "this node has no model file") {
			t.Errorf("%s is not here: got %v", source, err)
		}
	}
	if err := f.Fetch("digits.onnx", digest, pinned("weights")); err != nil {
		t.Fatal(err)
	}
	for _, source := range []string{"release:digits.onnx", digest, "oci://example.com/digits:1"} {
		if err := f.CheckSource(source); err != nil {
			t.Errorf("%s: got %v", source, err)
		}
	}
	if err := f.CheckSource("release:other.onnx"); err == nil {
		t.Error("another file of the release is taken")
	}
	if f.Digest("release:digits.onnx") != digest {
		t.Error("it has another digest")
	}
}
