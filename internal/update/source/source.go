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

	"oscine.dev/oscine/internal/bounded"
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
	s := &source{where: where, at: at, trust: trust, options: options, peers: newPeers(options), wait: time.Second, pause: busyPause}
	s.rate = bounded.NewRate(options.BytesPerSecond)
	return s, nil
}

type source struct {
	where   string
	at      location
	trust   *trust
	options update.Options
	rate    *bounded.Rate // of what comes from at
	wait    time.Duration // before the first retry

	peers  []*peer
	via    *peer         // whose metadata counts; nil for the source's own
	pause  time.Duration // before a busy peer is asked again
	waited time.Duration // for busy peers
	near   int64         // bytes of the transfer under way that come from peers or not at all
}

// Close implements [update.Source].
func (s *source) Close() error {
	s.at.close()
	for _, p := range s.peers {
		p.web.close()
	}
	return nil
}

// described is where the metadata and the manifests come from.
func (s *source) described() location {
	if s.via != nil {
		return s.via.web
	}
	return s.at
}

// Releases implements [update.Source].
func (s *source) Releases(ctx context.Context, arch, flavour string) ([]*update.Manifest, error) {
	s.via = nil
	all, err := s.releases(ctx, arch, flavour)
	if err == nil {
		return all, nil
	}
	err = fmt.Errorf("%s: %w", s.where, err)
	if !errors.Is(err, update.ErrUnreachable) {
		return nil, err
	}
	// A peer's copy is as good as a stick's: signed, and refused once it has expired.
	for _, p := range s.peers {
		if !p.asked() {
			continue
		}
		s.via = p
		all, failed := s.releases(ctx, arch, flavour)
		if failed == nil {
			return all, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		s.trouble(p, failed)
		err = fmt.Errorf("%w; peer %s: %v", err, p.name, failed) // the source's failure is what counts
	}
	s.via = nil
	return nil, err
}

func (s *source) releases(ctx context.Context, arch, flavour string) ([]*update.Manifest, error) {
	view, err := s.refresh(ctx)
	if err != nil {
		return nil, err
	}
	var all []*update.Manifest
	for name, info := range view.targets {
		version, ok := manifestFor(name, arch, flavour)
		if !ok {
			continue
		}
		if len(all) == maxReleases {
			return nil, fmt.Errorf("%w: more than %d releases", update.ErrManifest, maxReleases)
		}
		m, err := s.manifest(ctx, name, info)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if m.Version != version || m.Arch != arch || m.Flavour != flavour {
			return nil, fmt.Errorf("%s: %w: it describes %s for %s-%s", name, update.ErrManifest, m.Version, m.Arch, m.Flavour)
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
	text, err := s.manifestText(ctx, name, info)
	if err != nil {
		return nil, err
	}
	if err := info.VerifyLengthHashes(text); err != nil {
		return nil, fmt.Errorf("%w: %w", update.ErrDamaged, err)
	}
	return update.ParseManifest(text)
}

// manifestText reads a manifest, by way of the cache where there is one.
func (s *source) manifestText(ctx context.Context, name string, info *metadata.TargetFiles) ([]byte, error) {
	length, file := min(info.Length, update.MaxManifest), s.trust.fileOf(name, info)
	sum := info.Hashes["sha256"]
	if s.options.Cache == nil || len(sum) != len(update.Digest{}) {
		return s.readAll(ctx, file, length, true)
	}
	var fetched []byte
	kept, err := s.options.Cache.Add(update.Digest(sum), length, func(have io.Reader, w io.Writer) error {
		var err error
		if fetched, err = s.readAll(ctx, file, length, true); err != nil {
			return err
		}
		at, err := io.Copy(io.Discard, have)
		if err == nil {
			_, err = w.Write(fetched[min(at, int64(len(fetched))):])
		}
		return err
	})
	if err != nil {
		if fetched != nil { // it could not be kept, or is not what was signed
			return fetched, nil
		}
		if errors.Is(err, update.ErrNotKept) {
			return s.readAll(ctx, file, length, true)
		}
		return nil, err
	}
	defer kept.Close()
	text, err := io.ReadAll(io.NewSectionReader(kept, 0, length))
	if err != nil || info.VerifyLengthHashes(text) != nil { // damaged on the disk, since it was stored
		s.options.Cache.Remove(update.Digest(sum))
		return s.readAll(ctx, file, length, true)
	}
	return text, nil
}

// Fetch implements [update.Source]. What the slot holds by then stays where a peer has to
// be left out.
func (s *source) Fetch(ctx context.Context, content *update.Content, base *update.Base, slot update.Slot, report func(update.Progress)) error {
	for {
		transfer, _ := s.Choose(ctx, content, base)
		best := content.Best(base)
		s.near = transfer.Size - best.Size // where less is left, finishing takes less than beginning with the best
		err := s.apply(ctx, content, transfer, base, slot, report)
		s.near = 0
		if errors.Is(err, errNoPeer) {
			err = s.apply(ctx, content, best, base, slot, report)
		}
		if errors.Is(err, delta.ErrBase) {
			err = s.apply(ctx, content, content.Full, nil, slot, report)
		}
		if s.blame(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.where, err)
		}
		return nil
	}
}

// apply makes content by one transfer.
func (s *source) apply(ctx context.Context, content *update.Content, transfer update.Transfer, base *update.Base, slot update.Slot, report func(update.Progress)) error {
	job := delta.Job{Content: content, Transfer: transfer, Base: base, Slot: slot}
	if transfer.Base == "" {
		job.Base = nil
	}
	err := s.applyCached(ctx, job, report)
	if errors.Is(err, update.ErrNotKept) {
		err = s.applyStreamed(ctx, job, report)
	}
	return err
}

// applyStreamed applies a transfer while it comes.
func (s *source) applyStreamed(ctx context.Context, job delta.Job, report func(update.Progress)) error {
	var from *stream
	job.Open = func(ctx context.Context, at int64) (io.ReadCloser, error) {
		var err error
		from, err = s.stream(ctx, hashed(job.Transfer.Path, job.Transfer.SHA256), at, false)
		return from, err
	}
	if report != nil {
		job.Report = func(p update.Progress) {
			p.From = from.from.String()
			report(p)
		}
	}
	return delta.Apply(ctx, job)
}

// applyCached stores a transfer for peers, and applies it then. ErrNotKept where it is not stored.
func (s *source) applyCached(ctx context.Context, job delta.Job, report func(update.Progress)) error {
	t := job.Transfer
	if s.options.Cache == nil {
		return update.ErrNotKept
	}
	file, err := s.options.Cache.Add(t.SHA256, t.Size, func(have io.Reader, w io.Writer) error {
		pin := update.Pin{Name: t.Path, Path: t.Path, Size: t.Size, SHA256: t.SHA256}
		return s.fetchWhole(ctx, pin, have, w, func(p update.Progress) {
			if p.Delta = job.Base != nil; report != nil {
				report(p)
			}
		})
	})
	if err != nil {
		return err
	}
	defer file.Close()
	job.Report = report
	job.Open = func(_ context.Context, at int64) (io.ReadCloser, error) {
		return io.NopCloser(stored{io.NewSectionReader(file, at, t.Size-at)}), nil
	}
	err = delta.Apply(ctx, job)
	if errors.Is(err, update.ErrDamaged) { // on the disk, since it was stored
		s.options.Cache.Remove(t.SHA256)
		return fmt.Errorf("%w: %w", update.ErrNotKept, err)
	}
	return err
}

// stored reads a file of this node's disk. What the disk cannot read is damaged, and fetched again.
type stored struct{ io.Reader }

func (s stored) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", update.ErrDamaged, err)
	}
	return n, err
}

// FetchPin implements [update.Source].
func (s *source) FetchPin(ctx context.Context, pin update.Pin, have io.Reader, w io.Writer, report func(update.Progress)) error {
	err := s.fetchWhole(ctx, pin, have, w, report)
	if s.blame(err) {
		err = fmt.Errorf("%w: %w", update.ErrPeer, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.where, err)
	}
	return nil
}

// fetchWhole writes a file from where have ends, and checks all of it.
func (s *source) fetchWhole(ctx context.Context, pin update.Pin, have io.Reader, w io.Writer, report func(update.Progress)) error {
	sum, at := sha256.New(), int64(0)
	if have != nil {
		n, err := io.Copy(sum, io.LimitReader(stored{have}, pin.Size))
		if err != nil {
			return fmt.Errorf("read what is there of %s: %w", pin.Name, err)
		}
		at = n
	}
	progress := update.Progress{Path: pin.Path, Done: at, Size: pin.Size, ToFetch: pin.Size - at}
	if at < pin.Size {
		from, err := s.stream(ctx, hashed(pin.Path, pin.SHA256), at, false)
		if err != nil {
			return err
		}
		defer from.Close()
		counted := writerFunc(func(p []byte) (int, error) {
			progress.Done, progress.Fetched = progress.Done+int64(len(p)), progress.Fetched+int64(len(p))
			if progress.From = from.from.String(); report != nil {
				report(progress)
			}
			return len(p), nil
		})
		if _, err := io.CopyN(io.MultiWriter(w, sum, counted), from, pin.Size-at); err != nil {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("%w: %s ends too early", update.ErrDamaged, pin.Path)
			}
			return err
		}
	}
	if update.Digest(sum.Sum(nil)) != pin.SHA256 {
		return fmt.Errorf("%w: %s: remove what is there of it and fetch it again", update.ErrDamaged, pin.Path)
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
