package model

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"oscine.dev/oscine/internal/pack"
)

// Packs holds the engines; see pack.Store.
type Packs interface {
	Candidates(q pack.Question) ([]pack.Info, error)
	// Mount mounts the pack of a digest.
	Mount(digest string) (*pack.Info, string, error)
	// Successor returns the version that took the place of the one of a digest, on which
	// a user runs, and why the user could not go there; nil: none did.
	Successor(user, digest string) (next *pack.Info, why string)
	Stay(user, digest, why string) error
	Moved(user, digest string) error
}

// candidates finds the packs for a model, by what it asks for and by its files:
// those that it may use, the one that the rules prefer first.
func (c *controller) candidates(w *work) ([]pack.Info, error) {
	m := w.model
	q := pack.Question{Engine: m.Spec.Engine, Suffix: cmp.Or(m.Spec.Format, c.o.Files.Format(w.digest)), Protocols: c.o.Protocols}
	if w.stays {
		q.User = c.key.String()
	}
	if err := look(&q, c.o.Files.Path(w.digest)); err != nil {
		return nil, fmt.Errorf("open the model's file: %w", err)
	}
	packs, err := c.o.Packs.Candidates(q)
	if err != nil {
		return nil, err
	}
	memory, _ := m.Spec.Resources.Memory.Value() // checked with the manifest
	var devices []pack.Device
	if w.placement != nil { // else it asks for none
		for _, name := range w.placement.Devices {
			devices = append(devices, c.o.Device(name))
		}
	}
	var usable []pack.Info
	var refused error
	for _, p := range packs {
		if err := p.CheckUse(devices, memory); err != nil {
			refused = errors.Join(refused, err)
			continue
		}
		usable = append(usable, p)
	}
	if len(usable) == 0 {
		return nil, refused
	}
	// A model that asked for a device is to compute on it, where nothing else is faster.
	slices.SortStableFunc(usable, func(a, b pack.Info) int { return cmp.Compare(len(b.Requires.Devices), len(a.Requires.Devices)) })
	return usable, nil
}

// maxLooked bounds the files of a folder by which a model is known.
const maxLooked = 256

// look fills in what a model's file, or those at the top of its folder, begin with.
func look(q *pack.Question, model string) (err error) {
	info, err := os.Stat(model)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		q.Head, err = head(model)
		return err
	}
	entries, err := os.ReadDir(model)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || len(q.Files) == maxLooked {
			continue
		}
		first, err := head(filepath.Join(model, e.Name()))
		if err != nil {
			return err
		}
		q.Files = append(q.Files, pack.FolderFile{Name: e.Name(), Head: first})
	}
	if len(q.Files) == 0 {
		return errors.New("the model's folder has no file at its top, only folders: serve the one that holds the model")
	}
	return nil
}

// head reads what a file begins with.
func head(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	first := make([]byte, pack.HeadBytes)
	n, err := io.ReadFull(f, first)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return first[:n], nil
}
