package model

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oscine.dev/oscine/internal/node/reconcile"
)

func TestFilesAreSwept(t *testing.T) {
	dir := t.TempDir()
	var full error
	log := slog.New(slog.DiscardHandler)
	f, err := OpenFiles(dir, func() error { return full }, log)
	if err != nil {
		t.Fatal(err)
	}
	digest := map[string]string{}
	for _, name := range []string{"used", "old", "young"} {
		if digest[name], _, err = f.Upload(t.Context(), strings.NewReader(name), Upload{}); err != nil {
			t.Fatal(err)
		}
	}
	age := func(name string, d time.Duration) {
		at := time.Now().Add(-d)
		if err := os.Chtimes(f.Path(digest[name]), at, at); err != nil {
			t.Fatal(err)
		}
	}
	there := func(name string) bool {
		_, err := os.Stat(f.Path(digest[name]))
		return err == nil
	}
	age("used", 48*time.Hour)
	age("old", 2*unreferenced)
	age("young", 2*unreferencedShort)
	used := map[string]bool{digest["used"]: true}
	f.Sweep(used)
	if !there("used") || there("old") || !there("young") {
		t.Errorf("used %v, old %v, young %v are there; want the old one gone", there("used"), there("old"), there("young"))
	}
	// One whose object is deleted is kept for a while from then on.
	f.Sweep(nil)
	if !there("used") {
		t.Error("the file of an object that has just been deleted is gone")
	}
	full = errors.New("nearly full")
	f.Sweep(used)
	if there("young") || !there("used") {
		t.Error("where the disk is nearly full, a file without an object stays")
	}

	// An upload that a crash has cut is swept at the next start.
	cut := filepath.Join(dir, uploading+"123")
	if err := os.WriteFile(cut, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.Sweep(used) // it may be under way
	if _, err := os.Stat(cut); err != nil {
		t.Error("an upload under way was swept")
	}
	if _, err := OpenFiles(dir, nil, log); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(cut); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a cut upload is there after a start: %v", err)
	}
	if f.Has(digest["old"]) || !f.Has(digest["used"]) {
		t.Error("Has is wrong")
	}
}

func TestUploadsAskForRoom(t *testing.T) {
	full := errors.New("nearly full")
	asked := 0
	f, err := OpenFiles(t.TempDir(), func() error {
		if asked++; asked > 2 {
			return full
		}
		return nil
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Upload(t.Context(), io.LimitReader(zeros{}, 1<<30), Upload{}); !errors.Is(err, full) {
		t.Errorf("an upload that fills the disk: %v", err)
	}
	if _, _, err := f.Upload(t.Context(), strings.NewReader("x"), Upload{}); !errors.Is(err, full) {
		t.Errorf("without room: %v", err)
	}
	asked = -100
	if _, _, err := f.Upload(t.Context(), strings.NewReader(""), Upload{}); !errors.Is(err, reconcile.ErrInvalid) {
		t.Errorf("an empty file: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := f.Upload(gone, strings.NewReader("x"), Upload{}); !errors.Is(err, context.Canceled) {
		t.Errorf("the client left: %v", err)
	}
	left, err := os.ReadDir(f.dir)
	if err != nil || len(left) != 0 {
		t.Errorf("failed uploads left %v, %v", left, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
