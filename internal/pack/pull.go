package pack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/artifact"
)

// partial begins the name of a download that can go on, and its digest ends it.
const partial = "partial-"

// keepPartial is how long a download that was cut is kept.
const keepPartial = 24 * time.Hour

func fresh(e fs.DirEntry) bool {
	info, err := e.Info()
	return err == nil && time.Since(info.ModTime()) < keepPartial
}

// Pull installs the pack of an artifact, as Install does, with the signature that the
// artifact carries: it is checked before anything is downloaded. What a cut left of
// the download is kept for a day, for the next Pull to go on with. Progress is told
// how many bytes are here; its error ends the download.
func (s *Store) Pull(ctx context.Context, a *Artifact, store *artifact.Store, progress func(int64) error) (*Info, error) {
	if err := s.welcome(a.Digest, a.Verity, a.Signature); err != nil {
		return nil, fmt.Errorf("pull %s: %w", a.Reference, err)
	}
	select {
	case s.pulling <- struct{}{}:
		defer func() { <-s.pulling }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := s.dropPartials(a.Digest); err != nil {
		return nil, fmt.Errorf("pull %s: %w", a.Reference, err)
	}
	if p, err := s.Find(a.Name); err == nil && p.Digest == a.Digest && p.Damaged.IsZero() {
		if digest, err := fileDigest(p.File); err == nil && digest == a.Digest {
			return p, nil
		}
	}
	file := s.partialFile(a.Digest)
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", a.Reference, err)
	}
	defer f.Close()
	if err := a.Fetch(ctx, store, f, progress); err != nil {
		if goesOn(ctx, err) {
			return nil, fmt.Errorf("pull %s: %w (the same command goes on where this one ended)", a.Reference, err)
		}
		return nil, errors.Join(fmt.Errorf("pull %s: %w", a.Reference, err), os.Remove(file))
	}
	info, err := s.take(f, a.Digest, a.SizeBytes, a.Signature, a)
	if err != nil {
		os.Remove(file) // unless it has its own name by now
		return nil, err
	}
	return info, nil
}

// dropPartials removes what earlier downloads left long ago, but for the one of digest.
func (s *Store) dropPartials(digest string) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		hex, cut := strings.CutPrefix(e.Name(), partial)
		if cut && "sha256:"+hex != digest && !fresh(e) {
			if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) partialFile(digest string) string {
	return filepath.Join(s.dir, partial+strings.TrimPrefix(digest, "sha256:"))
}

// goesOn reports whether a download that ended with an error is worth keeping.
func goesOn(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errdefs.IsUnavailable(err)
}
