package repository

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"time"

	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/delta"
)

// Comparison tells how large the update between two releases is.
type Comparison struct {
	Contents []Sizes `json:"contents"` // image and root
}

// Sizes are those of one content, in bytes.
type Sizes struct {
	Name  string `json:"name"`
	Size  int64  `json:"size"`  // of the content
	Full  int64  `json:"full"`  // of its full transfer
	Delta int64  `json:"delta"` // of what is offered: the delta, or the full transfer where that is smaller
	// Decoding is the time that applying the delta took, with reading the result
	// back, in nanoseconds.
	Decoding time.Duration `json:"decoding"`
}

// Total adds up the contents.
func (c *Comparison) Total() Sizes {
	total := Sizes{Name: "total"}
	for _, s := range c.Contents {
		total.Size, total.Full, total.Delta, total.Decoding = total.Size+s.Size, total.Full+s.Full, total.Delta+s.Delta, total.Decoding+s.Decoding
	}
	return total
}

// Compare makes full transfers of parts and deltas from old to them, and applies
// those.
func Compare(ctx context.Context, old, parts *Parts) (*Comparison, error) {
	dir, err := os.MkdirTemp("", "oscine-delta-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	oldImage, oldRoot, err := old.contents()
	if err != nil {
		return nil, err
	}
	image, root, err := parts.contents()
	if err != nil {
		return nil, err
	}
	c := new(Comparison)
	for _, x := range []struct {
		name         string
		content, old *delta.Content
	}{{"image", image, oldImage}, {"root", root, oldRoot}} {
		s, err := compareOne(ctx, dir, x.content, x.old)
		if err != nil {
			return nil, err
		}
		s.Name = x.name
		c.Contents = append(c.Contents, s)
	}
	return c, nil
}

func compareOne(ctx context.Context, dir string, content, old *delta.Content) (Sizes, error) {
	s := Sizes{Size: content.Size}
	full, err := makeIn(ctx, dir, content, nil)
	if err != nil {
		return s, err
	}
	defer full.file.Close()
	small, err := makeIn(ctx, dir, content, old)
	if err != nil {
		return s, err
	}
	defer small.file.Close()
	s.Full, s.Delta = full.Size, min(full.Size, small.Size)
	sum, err := digestOf(content.Data, content.Size)
	if err != nil {
		return s, err
	}
	slot, err := os.CreateTemp(dir, "slot-")
	if err != nil {
		return s, err
	}
	defer slot.Close()
	began := time.Now()
	err = delta.Apply(ctx, delta.Job{
		Content: &update.Content{Size: content.Size, SHA256: sum}, Transfer: small.Transfer, Slot: slot,
		Base: &update.Base{Size: old.Size, Data: old.Data},
		Open: func(_ context.Context, at int64) (io.ReadCloser, error) {
			return io.NopCloser(io.NewSectionReader(small.file, at, small.Size-at)), nil
		},
	})
	s.Decoding = time.Since(began)
	return s, err
}

type made struct {
	update.Transfer
	file *os.File
}

func makeIn(ctx context.Context, dir string, content, old *delta.Content) (*made, error) {
	name := "full"
	if old != nil {
		name = "delta"
	}
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	t, err := delta.Make(ctx, content, old, f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &made{t, f}, nil
}
