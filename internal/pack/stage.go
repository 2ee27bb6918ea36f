package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/pki"
)

// staged ends the name of the record of a pack that came with a release of Oscine. It
// counts in place of the pack of its name while that release runs: the release
// before, to which the machine may go back, has its own packs still. Settle decides.
const staged = ".staged"

// recordOf returns the name of the pack that a file is a record of.
func recordOf(file string) (name string, ok bool) {
	if name, ok = strings.CutSuffix(file, ".json"); ok {
		return name, true
	}
	if name, ok = strings.CutSuffix(file, staged); ok {
		return name, true
	}
	if name, ok = strings.CutSuffix(file, kept); ok {
		at := strings.LastIndexByte(name, '.')
		return name[:max(at, 0)], at > 0
	}
	return "", false
}

// records reads all records, by the names of their files. One that cannot be read
// does not count. The caller holds s.mu.
func (s *Store) records() (map[string]*record, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	all := map[string]*record{}
	for _, e := range entries {
		if name, ok := recordOf(e.Name()); ok {
			if rec, err := readRecord(filepath.Join(s.dir, e.Name()), name); err == nil {
				if at, ok := s.broken[rec.Digest]; ok {
					rec.Damaged = at
				}
				all[e.Name()] = rec
			}
		}
	}
	return all, nil
}

func (s *Store) stagedFile(name string) string { return filepath.Join(s.dir, name+staged) }

func (s *Store) readStaged(name string) (*record, error) {
	return readRecord(s.stagedFile(name), name)
}

// Holds reports whether the pack of a digest is here, installed or staged.
func (s *Store) Holds(digest string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	records, err := s.records()
	if err != nil {
		return false
	}
	for _, rec := range records {
		if rec.Digest == digest {
			return true
		}
	}
	return false
}

// Open opens the file of the pack of a digest, installed or staged, or returns fs.ErrNotExist.
func (s *Store) Open(digest string) (*os.File, error) {
	if !s.Holds(digest) {
		return nil, fs.ErrNotExist
	}
	return os.Open(s.file(strings.TrimPrefix(digest, "sha256:")))
}

// Left is how many bytes of the pack of a digest a download that was cut left here.
func (s *Store) Left(digest string) int64 {
	info, err := os.Stat(s.partialFile(digest))
	if err != nil {
		return 0
	}
	return info.Size()
}

// installed reports whether a record's file is the installed pack of its name.
func (s *Store) installed(rec *record, records map[string]*record) bool {
	now := records[rec.Manifest.Name+".json"]
	return now != nil && now.Digest == rec.Digest
}

// holdsFor is Holds for a release. One that was staged for another release, which the
// machine did not go to, or that is kept for what runs on it, is staged for this one:
// Settle and sweep would remove it.
func (s *Store) holdsFor(release, digest string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	records, err := s.records()
	if err != nil {
		return false, err
	}
	held := false
	for file, rec := range records {
		if rec.Digest != digest {
			continue
		}
		held = true
		if s.installed(rec, records) || strings.HasSuffix(file, staged) && rec.Release == release {
			continue
		}
		next := *rec
		next.Release, next.Next, next.Stays = release, "", nil
		if err := next.write(s.stagedFile(rec.Manifest.Name)); err != nil {
			return false, err
		}
	}
	return held, nil
}

// Stage stores the pack of a digest that a release of Oscine pins. It counts while
// that release runs; see Settle. Fetch is given what an earlier Stage left of the
// file, and writes what follows. Errors: ErrUntrusted where Pinned does not know the
// digest, ErrNotPack.
func (s *Store) Stage(ctx context.Context, release, digest string, fetch func(have io.Reader, w io.Writer) error) error {
	held, err := s.holdsFor(release, digest)
	if err != nil {
		return err
	}
	if held && !s.damaged(digest) {
		if got, err := fileDigest(s.file(strings.TrimPrefix(digest, "sha256:"))); err == nil && got == digest {
			return nil
		}
	}
	if _, err := s.authentic(digest, "", pki.Signature{}, release); err != nil {
		return err
	}
	select {
	case s.pulling <- struct{}{}:
		defer func() { <-s.pulling }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := s.dropPartials(digest); err != nil {
		return err
	}
	file := s.partialFile(digest)
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := resumed(f, fetch); err != nil {
		if goesOn(ctx, err) {
			return err
		}
		return errors.Join(err, os.Remove(file))
	}
	if err := s.stage(f, release, digest); err != nil {
		os.Remove(file) // unless it has its own name by now
		return err
	}
	return nil
}

// resumed has a file fetched, and fetched again from the start where what was there
// of it is damaged: a power failure may have kept its last bytes from the disk.
func resumed(f *os.File, fetch func(have io.Reader, w io.Writer) error) error {
	at, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	err = fetch(io.NewSectionReader(f, 0, at), f)
	if at == 0 || !errdefs.IsDataLoss(err) {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	return fetch(strings.NewReader(""), f)
}

// stage writes the record of a file that was fetched.
func (s *Store) stage(f *os.File, release, digest string) error {
	if err := f.Sync(); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	got, err := sumOf(io.NewSectionReader(f, 0, info.Size()))
	if err != nil {
		return err
	}
	if got != digest {
		return fmt.Errorf("%w: it has the digest %s instead of %s", ErrDamaged, got, digest)
	}
	s.mounting.Lock()
	defer s.mounting.Unlock()
	manifest, verity, err := s.inspect(f, nil) // its kernel is that of the release, see FitKernel
	if err != nil {
		return err
	}
	rec := record{Digest: digest, SizeBytes: info.Size(), Installed: time.Now().UTC().Truncate(time.Second), Manifest: *manifest, Release: release, Verity: verity}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replace(f.Name(), s.stagedFile(manifest.Name), &rec)
}

// Settle is called once the running release is good and no other is fetched: its staged
// packs take the places of those before them, and others are removed. It returns the
// digests of what releases brought and is installed.
func (s *Store) Settle() (pinned []string, err error) {
	s.mounting.Lock()
	defer s.mounting.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	records, err := s.records()
	if err != nil {
		return nil, err
	}
	var errs []error
	for file, rec := range records {
		if !strings.HasSuffix(file, staged) {
			continue
		}
		if rec.Release != s.Release {
			errs = append(errs, s.dropStaged(rec))
			continue
		}
		before := records[rec.Manifest.Name+".json"]
		if err := durable.Rename(s.stagedFile(rec.Manifest.Name), s.recordFile(rec.Manifest.Name)); err != nil {
			errs = append(errs, err)
			continue
		}
		if before != nil {
			errs = append(errs, s.dropFile(s.info(before)))
		}
	}
	errs = append(errs, s.sweep())
	packs, err := s.all()
	for i := range packs {
		if packs[i].Release != "" {
			pinned = append(pinned, packs[i].Digest)
		}
	}
	return pinned, errors.Join(append(errs, err)...)
}

// dropStaged takes the record first: without it the file does not count.
func (s *Store) dropStaged(rec *record) error {
	if err := durable.Remove(s.stagedFile(rec.Manifest.Name)); err != nil {
		return err
	}
	return s.dropFile(s.info(rec))
}
