package source

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/delta"
)

// Bounds of what a client reads.
const (
	maxReleases = 256 // manifests for one architecture and flavour
	retries     = 5   // of one file, when the source cannot be read
)

// Open is a source of releases at a location: the path of a folder, such as a
// mounted stick, a file, http or https address, or a reference with oci://. It reads nothing yet but the
// trusted root and its own state.
func Open(where string, options update.Options) (update.Source, error) {
	return open(where, options)
}

func open(where string, options update.Options) (*source, error) {
	if options.Now == nil {
		options.Now = time.Now
	}
	trust, err := newTrust(options)
	if err != nil {
		return nil, err
	}
	at, err := locate(where, options)
	if err != nil {
		return nil, err
	}
	s := &source{where: where, at: at, trust: trust, wait: time.Second}
	s.limit = newLimit(options.BytesPerSecond)
	return s, nil
}

type source struct {
	where string
	at    location
	trust *trust
	limit *limit
	wait  time.Duration // before the first retry
}

// Close implements [update.Source].
func (s *source) Close() error {
	s.at.close()
	return nil
}

// Releases implements [update.Source].
func (s *source) Releases(ctx context.Context, arch, flavour string) ([]*update.Manifest, error) {
	view, err := s.refresh(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.where, err)
	}
	var all []*update.Manifest
	for name, info := range view.targets {
		version, ok := manifestFor(name, arch, flavour)
		if !ok {
			continue
		}
		if len(all) == maxReleases {
			return nil, fmt.Errorf("%s: %w: more than %d releases", s.where, update.ErrManifest, maxReleases)
		}
		m, err := s.manifest(ctx, name, info)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", s.where, name, err)
		}
		if m.Version != version || m.Arch != arch || m.Flavour != flavour {
			return nil, fmt.Errorf("%s: %s: %w: it describes %s for %s-%s", s.where, name, update.ErrManifest, m.Version, m.Arch, m.Flavour)
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *update.Manifest) int {
		return cmp.Or(-release.CompareVersions(a.Version, b.Version), cmp.Compare(a.Version, b.Version))
	})
	return all, nil
}

// manifestFor returns the version of the release whose manifest a target is, if
// it is one for arch and flavour.
func manifestFor(name, arch, flavour string) (version string, ok bool) {
	dir, file := path.Split(name)
	version, machine := path.Split(path.Clean(dir))
	return path.Clean(version), file == update.ManifestName && machine == arch+"-"+flavour && release.ValidVersion(path.Clean(version))
}

func (s *source) manifest(ctx context.Context, name string, info *metadata.TargetFiles) (*update.Manifest, error) {
	text, err := s.readAll(ctx, s.trust.fileOf(name, info), min(info.Length, update.MaxManifest), true)
	if err != nil {
		return nil, err
	}
	if err := info.VerifyLengthHashes(text); err != nil {
		return nil, fmt.Errorf("%w: %w", update.ErrDamaged, err)
	}
	return update.ParseManifest(text)
}

// Fetch implements [update.Source].
func (s *source) Fetch(ctx context.Context, content *update.Content, base *update.Base, slot update.Slot, report func(update.Progress)) error {
	transfer := content.Best(base)
	if transfer.Base == "" {
		base = nil
	}
	err := s.apply(ctx, content, transfer, base, slot, report)
	if errors.Is(err, delta.ErrBase) {
		err = s.apply(ctx, content, content.Full, nil, slot, report)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.where, err)
	}
	return nil
}

// apply makes content by one transfer.
func (s *source) apply(ctx context.Context, content *update.Content, transfer update.Transfer, base *update.Base, slot update.Slot, report func(update.Progress)) error {
	return delta.Apply(ctx, delta.Job{
		Content: content, Transfer: transfer, Base: base, Slot: slot, Report: report,
		Open: func(ctx context.Context, at int64) (io.ReadCloser, error) {
			return s.stream(ctx, hashed(transfer.Path, transfer.SHA256), at)
		},
	})
}

// FetchPin implements [update.Source].
func (s *source) FetchPin(ctx context.Context, pin update.Pin, have io.Reader, w io.Writer, report func(update.Progress)) error {
	sum, at := sha256.New(), int64(0)
	if have != nil {
		n, err := io.Copy(sum, io.LimitReader(have, pin.Size))
		if err != nil {
			return fmt.Errorf("read what is there of %s: %w", pin.Name, err)
		}
		at = n
	}
	progress := update.Progress{Path: pin.Path, Done: at, Size: pin.Size, ToFetch: pin.Size - at}
	if at < pin.Size {
		stream, err := s.stream(ctx, hashed(pin.Path, pin.SHA256), at)
		if err != nil {
			return fmt.Errorf("%s: %w", s.where, err)
		}
		defer stream.Close()
		counted := writerFunc(func(p []byte) (int, error) {
			progress.Done, progress.Fetched = progress.Done+int64(len(p)), progress.Fetched+int64(len(p))
			if report != nil {
				report(progress)
			}
			return len(p), nil
		})
		if _, err := io.CopyN(io.MultiWriter(w, sum, counted), stream, pin.Size-at); err != nil {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("%w: %s ends too early", update.ErrDamaged, pin.Path)
			}
			return fmt.Errorf("%s: %w", s.where, err)
		}
	}
	if update.Digest(sum.Sum(nil)) != pin.SHA256 {
		return fmt.Errorf("%s: %w: %s: remove what is there of it and fetch it again", s.where, update.ErrDamaged, pin.Path)
	}
	return nil
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// hashed is the file of a target, with its digest in its name (TUF
// specification, section 6.2).
func hashed(name string, sum update.Digest) string {
	return path.Join("targets", path.Dir(name), sum.String()+"."+path.Base(name))
}

// fileOf is the file of a target of the metadata.
func (t *trust) fileOf(name string, info *metadata.TargetFiles) string {
	if !t.set.Root.Signed.ConsistentSnapshot {
		return path.Join("targets", name)
	}
	algorithm := "sha256"
	if _, ok := info.Hashes[algorithm]; !ok {
		algorithm = "sha512"
	}
	return path.Join("targets", path.Dir(name), hex.EncodeToString(info.Hashes[algorithm])+"."+path.Base(name))
}
