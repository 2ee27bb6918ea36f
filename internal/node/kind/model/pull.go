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
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/disk"
	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/bucket"
	"oscine.dev/oscine/internal/serve/modelpack"
)

// Pulled is a model that was fetched from a registry or bucket.
type Pulled struct {
	Digest    string // under which it is stored: of its manifest in a registry, of its content in a bucket
	Reference string // with that digest; in a bucket as a manifest has it
	Format    string // ending of the model's file where it is one
	SizeBytes int64

	version string // of what is in a bucket; see bucket.Model
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
	if s, ok := object.ParseS3(source); ok && s.Digest != "" {
		return s.Digest
	}
	if r, err := artifact.Parse(source); err == nil && r.Digest() != "" {
		return r.Digest()
	}
	return f.recorded(source).Digest
}

// Format is the ending of the name that the file of a digest had where it was pulled
// from, "" where it is not known.
func (f *Files) Format(digest string) string {
	return f.recorded(digest).Format
}

// recorded is what was written about a source or digest; all is empty for none.
func (f *Files) recorded(of string) (p Pulled) {
	text, err := os.ReadFile(filepath.Join(f.dir, tagName(of)))
	if err != nil {
		return Pulled{}
	}
	var rest string
	p.Digest, rest, _ = strings.Cut(string(text), "\n")
	p.Format, p.version, _ = strings.Cut(rest, "\n")
	if !digestRE.MatchString(p.Digest) {
		return Pulled{}
	}
	return p
}

// record writes that a source or digest leads to a digest.
func (f *Files) record(of string, p *Pulled) error {
	text := p.Digest + "\n" + p.Format
	if p.version != "" {
		text += "\n" + p.version
	}
	return durable.WriteFile(filepath.Join(f.dir, tagName(of)), []byte(text), 0o600)
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
		return f.there(d, r.Pinned(d).String())
	}
	store, err := artifact.Open(ctx, r, access)
	if err != nil {
		return nil, err
	}
	m, err := modelpack.Find(ctx, store, arch)
	if err != nil {
		if last := f.Digest(source); errdefs.IsUnavailable(err) && last != "" && f.Has(last) {
			f.log.Warn("a registry cannot be asked for a newer model, the last one is taken", "source", source, "digest", last, "error", err)
			return f.there(last, r.Pinned(last).String())
		}
		return nil, err
	}
	p := &Pulled{Digest: m.Digest, Reference: m.Reference, Format: m.Format, SizeBytes: m.SizeBytes}
	if r.Digest() != "" && r.Digest() != m.Digest { // of an index, which names a manifest for each architecture
		p.Digest, p.Reference = r.Digest(), r.String()
	}
	if !f.Has(p.Digest) {
		told := disk.AskingFor(f.room, func(n int64) { progress(n, m.SizeBytes) })
		err := f.pull(ctx, p.Digest, func(work, out string) (string, error) {
			return p.Digest, m.Fetch(ctx, store, work, out, told)
		})
		if err != nil {
			return nil, fmt.Errorf("pull the model %s: %w", r, err)
		}
	}
	if err := errors.Join(f.record(p.Digest, p), f.record(source, p)); err != nil {
		return nil, fmt.Errorf("pull the model %s: %w", r, err)
	}
	return p, nil
}

// PullBucket fetches the model that a source in a bucket names, unless it is here in the same
// version. What cannot be asked for is the one that it was last, if that is here.
// Progress is told how many bytes of how many have come. A download that was cut goes on
// with another PullBucket.
func (f *Files) PullBucket(ctx context.Context, source string, access bucket.Access, progress func(received, size int64)) (*Pulled, error) {
	s, ok := object.ParseS3(source)
	if !ok {
		return nil, fmt.Errorf("%w: %.300q: write it as s3://BUCKET/KEY", bucket.ErrModel, source)
	}
	if s.Digest != "" && f.Has(s.Digest) {
		return f.there(s.Digest, source)
	}
	id := access.SourceID(source)
	last := f.recorded(id)
	m, err := bucket.Find(ctx, s, access)
	unasked := errdefs.IsUnavailable(err)
	if err != nil && !unasked {
		return nil, err
	}
	if last.Digest != "" && (unasked || last.version == m.Version) && f.Has(last.Digest) {
		if unasked {
			f.log.Warn("a bucket cannot be asked for a newer model, the last one is taken", "source", source, "digest", last.Digest, "error", err)
		}
		s.Digest = last.Digest
		return f.there(last.Digest, s.String())
	}
	if err != nil {
		return nil, err
	}
	p := &Pulled{Format: m.Format, SizeBytes: m.SizeBytes, version: m.Version}
	told := disk.AskingFor(f.room, func(n int64) { progress(n, m.SizeBytes) })
	err = f.pull(ctx, m.Version, func(work, out string) (string, error) {
		var err error
		p.Digest, err = m.Fetch(ctx, work, out, told)
		return p.Digest, err
	})
	if err == nil {
		err = errors.Join(f.record(p.Digest, p), f.record(id, p))
	}
	if err != nil {
		return nil, fmt.Errorf("pull the model %s: %w", s, err)
	}
	s.Digest = p.Digest
	p.Reference = s.String()
	return p, nil
}

// there is a model that is stored already.
func (f *Files) there(digest, reference string) (*Pulled, error) {
	info, err := os.Stat(f.Path(digest))
	if err != nil {
		return nil, err
	}
	return &Pulled{Digest: digest, Reference: reference, Format: f.Format(digest), SizeBytes: f.size(strings.TrimPrefix(digest, "sha256:"), info)}, nil
}

// pull stores what fetch downloads into the folder out, under the digest that it
// returns. What is not whole yet lies in the folder work, which a next pull with the same ID
// finds again. The ID has a digest's form.
func (f *Files) pull(ctx context.Context, id string, fetch func(work, out string) (digest string, err error)) error {
	if err := f.room(); err != nil {
		return err
	}
	f.mu.Lock()
	busy := f.receiving[id]
	f.receiving[id] = true
	f.mu.Unlock()
	if busy {
		return fmt.Errorf("%w: it is being fetched already: wait for that, or try again when it has ended", errdefs.ErrUnavailable)
	}
	defer func() {
		f.mu.Lock()
		delete(f.receiving, id)
		f.mu.Unlock()
	}()
	work := f.partial(id)
	if err := os.MkdirAll(work, 0o700); err != nil {
		return err
	}
	out, err := os.MkdirTemp(f.dir, uploading+"*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(out)
	digest, err := fetch(work, out)
	if err != nil {
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
// file in it. What has that name already stays: it was uploaded, or pulled from
// elsewhere, and may be served.
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
	if now := time.Now(); os.Chtimes(f.Path(digest), now, now) == nil { // as Has
		return nil
	}
	return durable.Rename(from, f.Path(digest))
}
