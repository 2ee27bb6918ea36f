package source

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update"
)

// Report is what [Verify] found.
type Report struct {
	Releases []*update.Manifest `json:"releases"` // newest first
	Targets  int                `json:"targets"`  // files
	Bytes    int64              `json:"bytes"`    // of all targets
	// Expires is when metadata expires, by role.
	Expires map[string]time.Time `json:"expires"`
}

// Verify checks a release folder as a node with the trusted root would, and
// further: every target is read and compared with its digest, and every transfer
// of every release is applied, deltas to what the releases in the folder make.
// progress is called with the name of what is checked next; it may be nil.
func Verify(ctx context.Context, where string, options update.Options, progress func(string)) (*Report, error) {
	s, err := open(where, options)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if progress == nil {
		progress = func(string) {}
	}
	r, err := s.verify(ctx, progress)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", where, err)
	}
	return r, nil
}

func (s *source) verify(ctx context.Context, progress func(string)) (*Report, error) {
	view, err := s.refresh(ctx)
	if err != nil {
		return nil, err
	}
	set := s.trust.set
	r := &Report{Targets: len(view.targets), Expires: map[string]time.Time{
		metadata.ROOT: set.Root.Signed.Expires, metadata.SNAPSHOT: set.Snapshot.Signed.Expires, metadata.TIMESTAMP: set.Timestamp.Signed.Expires,
	}}
	for role, m := range set.Targets {
		r.Expires[role] = m.Signed.Expires
	}
	for _, name := range slices.Sorted(maps.Keys(view.targets)) {
		info := view.targets[name]
		progress(name)
		if err := s.checkTarget(ctx, name, info); err != nil {
			return nil, err
		}
		r.Bytes += info.Length
		if path.Base(name) == update.ManifestName {
			m, err := s.manifest(ctx, name, info)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			if version, ok := manifestFor(name, m.Arch, m.Flavour); !ok || version != m.Version {
				return nil, fmt.Errorf("%s: %w: it describes %s for %s-%s", name, update.ErrManifest, m.Version, m.Arch, m.Flavour)
			}
			r.Releases = append(r.Releases, m)
		}
	}
	slices.SortFunc(r.Releases, func(a, b *update.Manifest) int {
		return cmp.Or(-release.CompareVersions(a.Version, b.Version), cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Flavour, b.Flavour))
	})
	return r, s.applyAll(ctx, r.Releases, view, progress)
}

// checkTarget reads a target.
func (s *source) checkTarget(ctx context.Context, name string, info *metadata.TargetFiles) error {
	stream, err := s.stream(ctx, s.trust.fileOf(name, info), 0, false)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer stream.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(stream, info.Length+1))
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	case n > info.Length:
		return fmt.Errorf("%s: %w", name, update.ErrTooLong)
	case n < info.Length || info.Hashes["sha256"].String() != fmt.Sprintf("%x", sum.Sum(nil)):
		return fmt.Errorf("%s: %w", name, update.ErrDamaged)
	}
	return nil
}

// applyAll makes every content by every transfer.
func (s *source) applyAll(ctx context.Context, all []*update.Manifest, view *view, progress func(string)) error {
	dir, err := os.MkdirTemp("", "oscine-verify-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	known := map[string]*update.Content{} // by what deltas call it
	for _, m := range all {
		known[m.RootHash], known[m.Image.SHA256.String()] = &m.Root, &m.Image
		for _, pin := range append(slices.Clone(m.Packs), m.Models...) {
			if info := view.targets[pin.Path]; info == nil || info.Length != pin.Size || info.Hashes["sha256"].String() != pin.SHA256.String() {
				return fmt.Errorf("%s: %w: the metadata has not the %s that it pins", m.Version, update.ErrManifest, pin.Path)
			}
		}
	}
	for _, m := range all {
		for _, c := range []*update.Content{&m.Image, &m.Root} {
			for _, way := range append([]update.Transfer{c.Full}, c.Deltas...) {
				progress("apply " + way.Path)
				if err := s.applyOne(ctx, dir, c, way, known[way.Base]); err != nil {
					return fmt.Errorf("%s: %w", way.Path, err)
				}
			}
		}
	}
	return nil
}

// applyOne makes content by one transfer; a delta whose base is gone from the
// folder was compared with its digest, and that is all that can be done.
func (s *source) applyOne(ctx context.Context, dir string, c *update.Content, way update.Transfer, from *update.Content) (err error) {
	only, base := *c, (*update.Base)(nil)
	only.Full, only.Deltas = way, nil
	if way.Base != "" {
		if from == nil {
			return nil
		}
		old, done, err := s.made(ctx, dir, *from, nil)
		if err != nil {
			return err
		}
		defer done()
		base = &update.Base{ID: way.Base, Size: from.Size, Data: old}
	}
	_, done, err := s.made(ctx, dir, only, base)
	if err != nil {
		return err
	}
	done()
	return nil
}

// made makes content in a file, which done removes.
func (s *source) made(ctx context.Context, dir string, c update.Content, base *update.Base) (f *os.File, done func(), err error) {
	if f, err = os.CreateTemp(dir, "content-"); err != nil {
		return nil, nil, err
	}
	done = func() { f.Close(); os.Remove(f.Name()) }
	if err = s.apply(ctx, &c, c.Full, base, f, nil); err != nil {
		done()
		return nil, nil, err
	}
	return f, done, nil
}
