package repository

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"oscine.dev/oscine/internal/durable"
)

// Result tells what a change came to.
type Result struct {
	Published bool             `json:"published"`
	Versions  map[string]int64 `json:"versions"` // of what was published or staged, by role
	// Missing says for each role that lacks signatures why; the change is staged
	// then.
	Missing map[string]string `json:"missing,omitempty"`
}

func (r *Repository) expires(after time.Duration) time.Time {
	return r.options.Now().Add(after).UTC().Truncate(time.Second)
}

// touch prepares a role for another version: the next one, unless a change of
// it is staged already.
func touch[T metadata.Roles](s *state, role string, m *metadata.Metadata[T], version *int64) {
	if !s.changed[role] && len(m.Signatures) > 0 {
		*version++
	}
	m.ClearSignatures()
	s.changed[role] = true
}

func (r *Repository) touchRoot(s *state) {
	touch(s, metadata.ROOT, s.root, &s.root.Signed.Version)
	s.root.Signed.Expires = r.expires(r.options.Expiry.Root)
}

func (r *Repository) touchTargets(s *state, role string) {
	m := s.targets[role]
	touch(s, role, m, &m.Signed.Version)
	m.Signed.Expires = r.expires(r.options.Expiry.Targets)
}

// finish signs, and publishes or stages.
func (r *Repository) finish(s *state) (*Result, error) {
	missing := map[string]string{}
	note := func(role string, err error) {
		if err != nil {
			missing[role] = err.Error()
		}
	}
	if s.changed[metadata.ROOT] {
		note(metadata.ROOT, r.signRoot(s))
	}
	for _, role := range s.roles() {
		if s.changed[role] {
			note(role, r.signTargets(s, role))
		}
	}
	if len(missing) == 0 {
		if err := r.makeSnapshot(s); err != nil {
			return nil, err
		}
		note(metadata.SNAPSHOT, signBy(r, s.root, metadata.SNAPSHOT, s.snapshot))
	}
	if len(missing) == 0 {
		if err := r.makeTimestamp(s); err != nil {
			return nil, err
		}
		note(metadata.TIMESTAMP, signBy(r, s.root, metadata.TIMESTAMP, s.timestamp))
	}
	result := &Result{Published: len(missing) == 0, Versions: s.versions(), Missing: missing}
	if !result.Published {
		return result, r.stage(s)
	}
	return result, r.publish(s)
}

// signBy adds signatures of the keys at hand and reports an error while there
// are too few.
func signBy[D, T metadata.Roles](r *Repository, delegator *metadata.Metadata[D], role string, m *metadata.Metadata[T]) error {
	for _, k := range r.keys {
		signed := slices.ContainsFunc(m.Signatures, func(s metadata.Signature) bool { return s.KeyID == k.ID })
		if k.Signer == nil || signed || !slices.Contains(keyIDs(delegator, role), k.ID) {
			continue
		}
		if _, err := m.Sign(k.Signer); err != nil {
			return err
		}
	}
	return delegator.VerifyDelegate(role, m)
}

func keyIDs(delegator any, role string) []string {
	switch d := delegator.(type) {
	case *root:
		if role, ok := d.Signed.Roles[role]; ok {
			return role.KeyIDs
		}
	case *targets:
		if d.Signed.Delegations != nil {
			for _, delegated := range d.Signed.Delegations.Roles {
				if delegated.Name == role {
					return delegated.KeyIDs
				}
			}
		}
	}
	return nil
}

// signRoot needs the old keys and the new ones.
func (r *Repository) signRoot(s *state) error {
	err := signBy(r, s.root, metadata.ROOT, s.root)
	if s.published != nil {
		err = errors.Join(err, signBy(r, s.published, metadata.ROOT, s.root))
	}
	return err
}

func (r *Repository) signTargets(s *state, role string) error {
	if role == metadata.TARGETS {
		return signBy(r, s.root, role, s.targets[role])
	}
	return signBy(r, s.targets[metadata.TARGETS], role, s.targets[role])
}

// makeSnapshot makes another snapshot, unless one of the same is staged and
// waits for signatures.
func (r *Repository) makeSnapshot(s *state) error {
	if s.snapshot == nil {
		s.snapshot = metadata.Snapshot()
	}
	meta := map[string]*metadata.MetaFiles{}
	for role, m := range s.targets {
		info, err := metaOf(m, m.Signed.Version)
		if err != nil {
			return err
		}
		meta[role+".json"] = info
	}
	if s.changed[metadata.SNAPSHOT] && sameMeta(meta, s.snapshot.Signed.Meta) {
		return nil
	}
	touch(s, metadata.SNAPSHOT, s.snapshot, &s.snapshot.Signed.Version)
	s.snapshot.Signed.Expires = r.expires(r.options.Expiry.Snapshot)
	s.snapshot.Signed.Meta = meta
	return nil
}

// makeTimestamp does the same for the timestamp.
func (r *Repository) makeTimestamp(s *state) error {
	if s.timestamp == nil {
		s.timestamp = metadata.Timestamp()
	}
	info, err := metaOf(s.snapshot, s.snapshot.Signed.Version)
	if err != nil {
		return err
	}
	meta := map[string]*metadata.MetaFiles{"snapshot.json": info}
	if s.changed[metadata.TIMESTAMP] && sameMeta(meta, s.timestamp.Signed.Meta) {
		return nil
	}
	touch(s, metadata.TIMESTAMP, s.timestamp, &s.timestamp.Signed.Version)
	s.timestamp.Signed.Expires = r.expires(r.options.Expiry.Timestamp)
	s.timestamp.Signed.Meta = meta
	return nil
}

func sameMeta(a, b map[string]*metadata.MetaFiles) bool {
	return maps.EqualFunc(a, b, func(x, y *metadata.MetaFiles) bool {
		return x.Version == y.Version && x.Length == y.Length && bytes.Equal(x.Hashes["sha256"], y.Hashes["sha256"])
	})
}

// metaOf pins a file of metadata.
func metaOf[T metadata.Roles](m *metadata.Metadata[T], version int64) (*metadata.MetaFiles, error) {
	text, err := m.ToBytes(true)
	if err != nil {
		return nil, err
	}
	info, sum := metadata.MetaFile(version), sha256.Sum256(text)
	info.Length, info.Hashes = int64(len(text)), metadata.Hashes{"sha256": sum[:]}
	return info, nil
}

// versions are those of the changed roles.
func (s *state) versions() map[string]int64 {
	all := map[string]int64{}
	note := func(role string, version int64) {
		if s.changed[role] {
			all[role] = version
		}
	}
	note(metadata.ROOT, s.root.Signed.Version)
	for role, m := range s.targets {
		note(role, m.Signed.Version)
	}
	if s.snapshot != nil {
		note(metadata.SNAPSHOT, s.snapshot.Signed.Version)
	}
	if s.timestamp != nil {
		note(metadata.TIMESTAMP, s.timestamp.Signed.Version)
	}
	return all
}

// file is one file of metadata to write.
type file struct {
	role    string
	version int64
	text    []byte
}

// files are the changed roles, in the order of publication.
func (s *state) files() (all []file, err error) {
	add := func(role string, version int64, text []byte, failed error) {
		if s.changed[role] {
			all, err = append(all, file{role, version, text}), errors.Join(err, failed)
		}
	}
	text, failed := s.root.ToBytes(true)
	add(metadata.ROOT, s.root.Signed.Version, text, failed)
	for _, role := range s.roles() {
		text, failed = s.targets[role].ToBytes(true)
		add(role, s.targets[role].Signed.Version, text, failed)
	}
	if s.snapshot != nil {
		text, failed = s.snapshot.ToBytes(true)
		add(metadata.SNAPSHOT, s.snapshot.Signed.Version, text, failed)
	}
	if s.timestamp != nil {
		text, failed = s.timestamp.ToBytes(true)
		add(metadata.TIMESTAMP, s.timestamp.Signed.Version, text, failed)
	}
	return all, err
}

// publish writes versioned files and replaces timestamp.json last: until then
// every reader sees the state before.
func (r *Repository) publish(s *state) error {
	files, err := s.files()
	if err != nil {
		return err
	}
	if err := durable.MkdirAll(r.metadata(""), 0o755); err != nil {
		return err
	}
	for _, f := range files {
		name := strconv.FormatInt(f.version, 10) + "." + f.role + ".json"
		if f.role == metadata.TIMESTAMP {
			name = "timestamp.json"
		}
		if err := durable.WriteFile(r.metadata(name), f.text, 0o644); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	return os.RemoveAll(r.staged())
}

func (r *Repository) stage(s *state) error {
	files, err := s.files()
	if err != nil {
		return err
	}
	if err := durable.MkdirAll(r.staged(), 0o755); err != nil {
		return err
	}
	for _, f := range files {
		if err := durable.WriteFile(filepath.Join(r.staged(), f.role+".json"), f.text, 0o644); err != nil {
			return fmt.Errorf("stage: %w", err)
		}
	}
	return nil
}
