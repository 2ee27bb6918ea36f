package repository

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

type (
	root      = metadata.Metadata[metadata.RootType]
	targets   = metadata.Metadata[metadata.TargetsType]
	snapshot  = metadata.Metadata[metadata.SnapshotType]
	timestamp = metadata.Metadata[metadata.TimestampType]
)

// maxMetadata bounds one file of metadata in bytes.
const maxMetadata = 16 << 20

// state is all metadata of a folder: as published, or with what is staged.
type state struct {
	root      *root
	published *root               // that clients know; nil before the first publication
	targets   map[string]*targets // by role, delegated ones too
	snapshot  *snapshot
	timestamp *timestamp

	changed map[string]bool // roles that differ from what is published
}

// load reads the newest metadata of the folder, with what is staged over it.
func (r *Repository) load() (*state, error) {
	s := &state{targets: map[string]*targets{}, changed: map[string]bool{}}
	version, err := r.newestRoot()
	if err != nil {
		return nil, err
	}
	if version > 0 {
		if err := r.loadPublished(s, version); err != nil {
			return nil, err
		}
	}
	if err := r.loadStaged(s); err != nil {
		return nil, err
	}
	if s.root == nil {
		return nil, fmt.Errorf("%s is no release folder: make one with oscine release init: %w", r.dir, fs.ErrNotExist)
	}
	return s, nil
}

func (r *Repository) loadPublished(s *state, version int64) (err error) {
	if s.root, err = read(metadata.Root(), r.metadata(strconv.FormatInt(version, 10)+".root.json")); err != nil {
		return err
	}
	if s.published, err = copyOf(s.root, metadata.Root()); err != nil {
		return err
	}
	if s.timestamp, err = read(metadata.Timestamp(), r.metadata("timestamp.json")); err != nil {
		return err
	}
	name := func(version int64, role string) string {
		return r.metadata(fmt.Sprintf("%d.%s.json", version, role))
	}
	info, ok := s.timestamp.Signed.Meta["snapshot.json"]
	if !ok {
		return errors.New("timestamp.json names no snapshot")
	}
	if s.snapshot, err = read(metadata.Snapshot(), name(info.Version, "snapshot")); err != nil {
		return err
	}
	for file, info := range s.snapshot.Signed.Meta {
		role := strings.TrimSuffix(file, ".json")
		if s.targets[role], err = read(metadata.Targets(), name(info.Version, role)); err != nil {
			return err
		}
	}
	return nil
}

func (r *Repository) loadStaged(s *state) error {
	entries, err := os.ReadDir(r.staged())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		role, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		file := filepath.Join(r.staged(), e.Name())
		switch role {
		case metadata.ROOT:
			s.root, err = read(metadata.Root(), file)
		case metadata.SNAPSHOT:
			s.snapshot, err = read(metadata.Snapshot(), file)
		case metadata.TIMESTAMP:
			s.timestamp, err = read(metadata.Timestamp(), file)
		default:
			s.targets[role], err = read(metadata.Targets(), file)
		}
		if err != nil {
			return err
		}
		s.changed[role] = true
	}
	return nil
}

// newestRoot is the version of the newest root; 0 where there is none.
func (r *Repository) newestRoot() (int64, error) {
	files, err := filepath.Glob(r.metadata("*.root.json"))
	if err != nil {
		return 0, err
	}
	newest := int64(0)
	for _, file := range files {
		text, _ := strings.CutSuffix(filepath.Base(file), ".root.json")
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			newest = max(newest, n)
		}
	}
	return newest, nil
}

func read[T metadata.Roles](empty *metadata.Metadata[T], file string) (*metadata.Metadata[T], error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxMetadata {
		return nil, fmt.Errorf("%s is larger than %d bytes", file, maxMetadata)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	m, err := empty.FromBytes(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return m, nil
}

func copyOf[T metadata.Roles](m, empty *metadata.Metadata[T]) (*metadata.Metadata[T], error) {
	text, err := m.ToBytes(false)
	if err != nil {
		return nil, err
	}
	return empty.FromBytes(text)
}

// roles lists the roles of targets, each after the one that delegates to it.
func (s *state) roles() []string {
	rest := slices.DeleteFunc(slices.Sorted(maps.Keys(s.targets)), func(r string) bool { return r == metadata.TARGETS })
	return append([]string{metadata.TARGETS}, rest...)
}
