package model

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/serve/bundle"
)

func openFiles(t *testing.T, dir string) *Files {
	t.Helper()
	f, err := OpenFiles(dir, func() error { return nil }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func TestUploadGoesOn(t *testing.T) {
	dir := t.TempDir()
	f := openFiles(t, dir)
	digest := digestOf("weights")
	cut := errors.New("the cable was pulled")
	if _, _, err := f.Upload(t.Context(), io.MultiReader(strings.NewReader("wei"), iotest.ErrReader(cut)), Upload{Digest: digest}); !errors.Is(err, cut) {
		t.Fatal(err)
	}
	f = openFiles(t, dir) // the daemon starts again
	if stored, n := f.Received(digest, false); stored || n != 3 {
		t.Errorf("after a cut: stored %v, %d bytes", stored, n)
	}
	if list, err := f.List(); err != nil || len(list) != 0 {
		t.Errorf("half a model is listed: %v, %v", list, err)
	}
	got, size, err := f.Upload(t.Context(), strings.NewReader("ghts"), Upload{Digest: digest, Offset: 3})
	if err != nil || got != digest || size != 7 {
		t.Errorf("gone on: %s, %d, %v", got, size, err)
	}
	if content, err := os.ReadFile(f.Path(digest)); err != nil || string(content) != "weights" {
		t.Errorf("stored %q, %v", content, err)
	}
	if stored, _ := f.Received(digest, false); !stored {
		t.Error("it is not stored")
	}
	if stored, _ := f.Received(digest, true); stored {
		t.Error("a file is stored as a folder")
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestUploadsThatAreRefused(t *testing.T) {
	f := openFiles(t, t.TempDir())
	digest := digestOf("weights")
	for name, test := range map[string]struct {
		u    Upload
		body string
	}{
		"another content":      {Upload{Digest: digest}, "height!"},
		"not what there is":    {Upload{Digest: digest, Offset: 3}, "ghts"},
		"no digest to go on":   {Upload{Offset: 3}, "ghts"},
		"no digest at all":     {Upload{Digest: "sha256:../../x"}, "x"},
		"no archive":           {Upload{Folder: true}, "x"},
		"an archive that lies": {Upload{Folder: true, Digest: digest}, "weights"},
	} {
		if _, _, err := f.Upload(t.Context(), strings.NewReader(test.body), test.u); !errors.Is(err, reconcile.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, err := os.ReadDir(f.dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	// Two clients do not write one file.
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, _, err := f.Upload(t.Context(), r, Upload{Digest: digest})
		ended <- err
	}()
	if _, err := w.Write([]byte("wei")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Upload(t.Context(), strings.NewReader("weights"), Upload{Digest: digest}); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("a second client: %v", err)
	}
	at := time.Now().Add(-2 * unreferenced)
	if err := os.Chtimes(f.partial(digest), at, at); err != nil {
		t.Fatal(err)
	}
	f.Sweep(nil)
	if _, err := w.Write([]byte("ghts")); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := <-ended; err != nil || !f.Has(digest) {
		t.Errorf("the first client: %v", err)
	}
}

func TestFolderIsStored(t *testing.T) {
	from := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(from, "variables"), 0o700), os.WriteFile(filepath.Join(from, "saved_model.pb"), []byte("graph"), 0o600),
		os.WriteFile(filepath.Join(from, "variables", "data"), []byte("weights"), 0o600)); err != nil {
		t.Fatal(err)
	}
	files, err := bundle.Find(from)
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := bundle.Write(&archive, files); err != nil {
		t.Fatal(err)
	}
	f := openFiles(t, t.TempDir())
	for range 2 { // a second time it is there
		digest, _, err := f.Upload(t.Context(), bytes.NewReader(archive.Bytes()), Upload{Digest: digestOf(archive.String()), Folder: true})
		if err != nil {
			t.Fatal(err)
		}
		if content, err := os.ReadFile(filepath.Join(f.Path(digest), "variables", "data")); err != nil || string(content) != "weights" {
			t.Errorf("stored %q, %v", content, err)
		}
		if info, err := os.Stat(f.Path(digest)); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("workers cannot look into it: %v, %v", info.Mode(), err)
		}
		if stored, _ := f.Received(digest, true); !stored {
			t.Error("it is not stored")
		}
	}
	if list, err := f.List(); err != nil || len(list) != 1 || list[0].Size != 12 {
		t.Errorf("listed %+v, %v", list, err)
	}
	// The archive as a file is another model with the same digest.
	digest, _, err := f.Upload(t.Context(), bytes.NewReader(archive.Bytes()), Upload{})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(f.Path(digest)); err != nil || !info.Mode().IsRegular() {
		t.Errorf("a file: %v, %v", info, err)
	}
	if _, _, err := f.Upload(t.Context(), bytes.NewReader(archive.Bytes()), Upload{Folder: true}); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-2 * unreferenced)
	if err := os.Chtimes(f.Path(digest), at, at); err != nil {
		t.Fatal(err)
	}
	f.Sweep(nil)
	if left, err := os.ReadDir(f.dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
