package model

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/gguf"
)

// maxBytes bounds one model.
const maxBytes = 64 << 30

// Beginnings of the names of what is no model yet.
const (
	uploading = ".upload-"  // of no use after a crash
	partial   = ".partial-" // an upload or download that can be resumed, with the digest that it will have
	tagged    = ".tag-"     // holds the digest to which a source led last
)

// unreferenced is how long a file is kept that no object refers to: an upload
// comes before the object, and a deleted one may be applied again.
const (
	unreferenced      = time.Hour
	unreferencedShort = 5 * time.Minute // where the disk is nearly full
)

// Files is the folder of models, each under the digest of its content: a file, or
// the unpacked folder of a model of several files. It is safe for concurrent use.
type Files struct {
	dir  string
	room func() error
	log  *slog.Logger

	// Pinned returns the digest of the file of a name that the running release of Oscine
	// pins, "" for none. Nil means that it pins none. Set it before the first use.
	Pinned func(name string) string

	mu        sync.Mutex      // held while a model appears, is found or is removed
	receiving map[string]bool // digests of uploads under way
}

// OpenFiles opens or makes the folder and sweeps uploads that a crash has cut.
// room refuses what would fill the disk.
func OpenFiles(dir string, room func() error, log *slog.Logger) (*Files, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("make the model folder: %w", err)
	}
	f := &Files{dir: dir, room: room, log: log, receiving: map[string]bool{}}
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

// List lists the stored models by digest.
func (f *Files) List() ([]File, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, fmt.Errorf("list the model files: %w", err)
	}
	var list []File
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || strings.HasPrefix(e.Name(), ".") {
			continue // gone meanwhile, or not there yet
		}
		list = append(list, File{"sha256:" + e.Name(), f.size(e.Name(), info), info.ModTime()})
	}
	return list, nil
}

// size is how many bytes the files of a stored model have.
func (f *Files) size(name string, info fs.FileInfo) int64 {
	if !info.IsDir() {
		return info.Size()
	}
	total := int64(0)
	_ = filepath.WalkDir(filepath.Join(f.dir, name), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // gone meanwhile
		}
		if info, err := d.Info(); err == nil {
			total += info.Size()
		}
		return nil
	})
	return total
}

// Remove removes the model of a digest.
func (f *Files) Remove(digest string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(os.RemoveAll(f.Path(digest)), durable.SyncDir(f.dir)); err != nil {
		return fmt.Errorf("remove the model file %s: %w", digest, err)
	}
	return nil
}

// Sweep removes files that no object refers to, as a source or by their digest, and that nobody has touched for
// a while, a shorter one where the disk is nearly full. A file that is referred to
// counts as touched.
func (f *Files) Sweep(referred map[string]bool) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		f.log.Warn("model files are not swept", "error", err)
		return
	}
	kept := map[string]bool{}
	for source := range referred {
		digest := f.Digest(source)
		kept[strings.TrimPrefix(digest, "sha256:")] = true
		kept[tagName(source)], kept[tagName(digest)], kept[signedName(digest)] = true, true, true
	}
	keep := unreferenced
	if f.room() != nil {
		keep = unreferencedShort
	}
	for _, e := range entries {
		unfinished, cut := strings.CutPrefix(e.Name(), partial)
		if strings.HasPrefix(e.Name(), uploading) || cut && f.receives("sha256:"+unfinished) {
			continue
		}
		if kept[e.Name()] {
			f.Has(e.Name())
			continue
		}
		f.mu.Lock()
		info, err := e.Info()
		if err == nil && time.Since(info.ModTime()) > keep {
			f.remove(e.Name(), map[bool]string{true: "its upload was not resumed", false: "no object refers to it"}[cut])
		}
		f.mu.Unlock()
	}
}

func (f *Files) remove(name, why string) {
	if err := os.RemoveAll(filepath.Join(f.dir, name)); err != nil {
		f.log.Warn("a model file cannot be removed", "error", err)
		return
	}
	f.log.Info("a model file was removed", "file", name, "reason", why)
}

// Header returns the header of a stored language model; nil for any other model.
func (f *Files) Header(digest string) []byte {
	file, err := os.Open(f.Path(digest))
	if err != nil {
		return nil
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	var header bytes.Buffer
	if _, err := gguf.Read(io.TeeReader(file, &header), info.Size()); err != nil {
		return nil
	}
	return header.Bytes()
}
