package model

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/disk"
	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/modelpack"
)

// Pulled is a model that was fetched from a registry.
type Pulled struct {
	Digest    string // of its manifest, under which it is stored
	Reference string // with that digest
	Format    string // ending of the model's file where it is one
	SizeBytes int64
}

// Digest is the digest under which the files of a model's source are stored: of a
// reference with a tag the one to which it led last, "" where it never did, and of a
// file of the running release the pinned one, "" for none.
func (f *Files) Digest(source string) string {
	if digestRE.MatchString(source) {
		return source
	}
	if name, ok := object.ReleaseModel(source); ok {
		if f.Pinned == nil {
			return ""
		}
		return f.Pinned(name)
	}
	r, err := artifact.Parse(source)
	if err != nil {
		return ""
	}
	if d := r.Digest(); d != "" {
		return d
	}
	digest, _ := f.recorded(source)
	return digest
}

// Format is the ending of the name that the file of a digest had where it was pulled
// from, "" where it is not known.
func (f *Files) Format(digest string) string {
	_, format := f.recorded(digest)
	return format
}

// recorded is what was written about a source or digest.
func (f *Files) recorded(of string) (digest, format string) {
	text, err := os.ReadFile(filepath.Join(f.dir, tagName(of)))
	if err != nil {
		return "", ""
	}
	digest, format, _ = strings.Cut(string(text), "\n")
	if !digestRE.MatchString(digest) {
		return "", ""
	}
	return digest, format
}

// record writes that a source or digest leads to a digest.
func (f *Files) record(of string, p *Pulled) error {
	return durable.WriteFile(filepath.Join(f.dir, tagName(of)), []byte(p.Digest+"\n"+p.Format), 0o600)
}

func tagName(source string) string {
	sum := sha256.Sum256([]byte(source))
	return tagged + hex.EncodeToString(sum[:])
}

// Pull fetches the model that a source names, HOST/REPOSITORY:TAG or @DIGEST with
// oci:// before it, unless it is here. One with a tag that cannot be asked is the
// one that it was last, if that is here. Progress is told how many bytes of how
// many have come. A download that was cut goes on with another Pull.
func (f *Files) Pull(ctx context.Context, source string, access artifact.Access, arch string, progress func(received, size int64)) (*Pulled, error) {
	r, err := artifact.Parse(source)
	if err != nil {
		return nil, err
	}
	if r.Local() {
		return nil, fmt.Errorf("%w: %s is a folder, which the node does not read: oscine serve and oscine model pull send it from your computer", artifact.ErrReference, r)
	}
	if d := r.Digest(); d != "" && f.Has(d) {
		return f.there(r, d)
	}
	store, err := artifact.Open(ctx, r, access)
	if err != nil {
		return nil, err
	}
	m, err := modelpack.Find(ctx, store, arch)
	if err != nil {
		if last := f.Digest(source); errdefs.IsUnavailable(err) && last != "" && f.Has(last) {
			f.log.Warn("a registry cannot be asked for a newer model, the last one is taken", "source", source, "digest", last, "error", err)
			return f.there(r, last)
		}
		return nil, err
	}
	p := &Pulled{Digest: m.Digest, Reference: m.Reference, Format: m.Format, SizeBytes: m.SizeBytes}
	if r.Digest() != "" && r.Digest() != m.Digest { // of an index, which names a manifest for each architecture
		p.Digest, p.Reference = r.Digest(), r.String()
	}
	if !f.Has(p.Digest) {
		if err := f.pull(ctx, p.Digest, m, store, disk.AskingFor(f.room, func(n int64) { progress(n, m.SizeBytes) })); err != nil {
			return nil, fmt.Errorf("pull the model %s: %w", r, err)
		}
	}
	if err := errors.Join(f.record(p.Digest, p), f.record(source, p)); err != nil {
		return nil, fmt.Errorf("pull the model %s: %w", r, err)
	}
	return p, nil
}

// there is a model that is stored already.
func (f *Files) there(r artifact.Reference, digest string) (*Pulled, error) {
	info, err := os.Stat(f.Path(digest))
	if err != nil {
		return nil, err
	}
	return &Pulled{Digest: digest, Reference: r.Pinned(digest).String(), Format: f.Format(digest), SizeBytes: f.size(strings.TrimPrefix(digest, "sha256:"), info)}, nil
}

// pull stores a model under a digest.
func (f *Files) pull(ctx context.Context, digest string, m *modelpack.Model, store *artifact.Store, progress func(int64) error) error {
	if err := f.room(); err != nil {
		return err
	}
	f.mu.Lock()
	busy := f.receiving[digest]
	f.receiving[digest] = true
	f.mu.Unlock()
	if busy {
		return fmt.Errorf("%w: it is being fetched already: wait for that, or try again when it has ended", errdefs.ErrUnavailable)
	}
	defer func() {
		f.mu.Lock()
		delete(f.receiving, digest)
		f.mu.Unlock()
	}()
	work := f.partial(digest)
	if err := os.MkdirAll(work, 0o700); err != nil {
		return err
	}
	out, err := os.MkdirTemp(f.dir, uploading+"*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(out)
	if err := m.Fetch(ctx, store, work, out, progress); err != nil {
		if ctx.Err() != nil || errdefs.IsUnavailable(err) {
			return err // what has come stays for a while
		}
		return errors.Join(err, os.RemoveAll(work))
	}
	if err := f.takeIn(out, digest); err != nil {
		return err
	}
	return os.RemoveAll(work)
}

// takeIn gives what lies in a folder the name of a digest: the folder, or the only
// file in it.
func (f *Files) takeIn(out, digest string) error {
	entries, err := os.ReadDir(out)
	if err != nil {
		return err
	}
	from := out
	if len(entries) == 1 && entries[0].Type().IsRegular() {
		from = filepath.Join(out, entries[0].Name())
	} else if err := os.Chmod(out, 0o755); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := os.RemoveAll(f.Path(digest)); err != nil { // nothing is served from what has no name yet
		return err
	}
	return durable.Rename(from, f.Path(digest))
}
