package model

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/node/reconcile"
)

// maxBytes bounds one model file.
const maxBytes = 64 << 30

// uploading begins the names of files whose upload has not ended.
const uploading = ".upload-"

// unreferenced is how long a file is kept that no object refers to: an upload
// comes before the object, and a deleted one may be applied again.
const (
	unreferenced      = time.Hour
	unreferencedShort = 5 * time.Minute // where the disk is nearly full
)

// Files is the folder of model files, each under the digest of its content. It
// is safe for concurrent use.
type Files struct {
	dir  string
	room func() error
	log  *slog.Logger

	mu sync.Mutex // held while a file appears, is found or is removed
}

// OpenFiles opens or makes the folder and sweeps uploads that a crash has cut.
// room refuses what would fill the disk.
func OpenFiles(dir string, room func() error, log *slog.Logger) (*Files, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("make the model folder: %w", err)
	}
	f := &Files{dir: dir, room: room, log: log}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the model folder: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), uploading) {
			f.remove(e.Name(), "its upload was cut")
		}
	}
	return f, nil
}

// Path is where the file of a digest lies.
func (f *Files) Path(digest string) string {
	return filepath.Join(f.dir, strings.TrimPrefix(digest, "sha256:"))
}

// Upload stores a file under the digest of its content, which it returns with
// the size in bytes. A file that is there already is kept. The name is on disk
// when it returns.
func (f *Files) Upload(ctx context.Context, r io.Reader) (digest string, size int64, err error) {
	if err := f.room(); err != nil {
		return "", 0, fmt.Errorf("store the model: %w", err)
	}
	tmp, err := os.CreateTemp(f.dir, uploading+"*")
	if err != nil {
		return "", 0, fmt.Errorf("store the model: %w", err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	hash := sha256.New()
	size, err = io.Copy(io.MultiWriter(tmp, hash), io.LimitReader(Asking(r, f.room), maxBytes+1))
	switch {
	case err != nil:
		return "", 0, fmt.Errorf("store the model: %w", err)
	case size > maxBytes:
		return "", 0, fmt.Errorf("%w: the model is larger than %d bytes", reconcile.ErrInvalid, int64(maxBytes))
	case size == 0:
		return "", 0, fmt.Errorf("%w: the model file is empty", reconcile.ErrInvalid)
	case ctx.Err() != nil:
		return "", 0, ctx.Err()
	}
	// Workers read it under user ids of their own.
	if err := errors.Join(tmp.Chmod(0o444), tmp.Sync(), tmp.Close()); err != nil {
		return "", 0, fmt.Errorf("store the model: %w", err)
	}
	digest = "sha256:" + hex.EncodeToString(hash.Sum(nil))
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := durable.Rename(tmp.Name(), f.Path(digest)); err != nil {
		return "", 0, fmt.Errorf("store the model: %w", err)
	}
	return digest, size, nil
}

// Has reports whether the file of a digest is there. If so, it stays for a while
// though no object refers to it yet.
func (f *Files) Has(digest string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	return os.Chtimes(f.Path(digest), now, now) == nil
}

// File is a stored model file.
type File struct {
	Digest string
	Size   int64     // bytes
	Used   time.Time // uploaded or referred to most lately
}

// List lists the stored files by digest.
func (f *Files) List() ([]File, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, fmt.Errorf("list the model files: %w", err)
	}
	var list []File
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || strings.HasPrefix(e.Name(), uploading) {
			continue // gone meanwhile, or not there yet
		}
		list = append(list, File{"sha256:" + e.Name(), info.Size(), info.ModTime()})
	}
	return list, nil
}

// Remove removes the file of a digest.
func (f *Files) Remove(digest string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := durable.Remove(f.Path(digest)); err != nil {
		return fmt.Errorf("remove the model file %s: %w", digest, err)
	}
	return nil
}

// Sweep removes files that no object refers to and that nobody has touched for
// a while, a shorter one where the disk is nearly full. A file that is referred to
// counts as touched.
func (f *Files) Sweep(referred map[string]bool) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		f.log.Warn("model files are not swept", "error", err)
		return
	}
	keep := unreferenced
	if f.room() != nil {
		keep = unreferencedShort
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), uploading) {
			continue
		}
		if referred["sha256:"+e.Name()] {
			f.Has(e.Name())
			continue
		}
		f.mu.Lock()
		info, err := e.Info()
		if err == nil && time.Since(info.ModTime()) > keep {
			f.remove(e.Name(), "no object refers to it")
		}
		f.mu.Unlock()
	}
}

func (f *Files) remove(name, why string) {
	if err := os.Remove(filepath.Join(f.dir, name)); err != nil {
		f.log.Warn("a model file cannot be removed", "error", err)
		return
	}
	f.log.Info("a model file was removed", "file", name, "reason", why)
}

// Asking reads what is to be stored as long as there is room, asked for now and
// then.
func Asking(r io.Reader, room func() error) io.Reader { return &asking{r: r, room: room} }

type asking struct {
	r    io.Reader
	room func() error
	read int64 // since room was asked for
}

// askEvery is how many bytes are read before there has to be room again.
const askEvery = 16 << 20

func (a *asking) Read(p []byte) (int, error) {
	if a.read >= askEvery {
		a.read = 0
		if err := a.room(); err != nil {
			return 0, err
		}
	}
	n, err := a.r.Read(p)
	a.read += int64(n)
	return n, err
}
