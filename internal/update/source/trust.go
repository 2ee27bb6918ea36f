package source

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/update"
)

// Bounds of metadata, in bytes and in steps.
const (
	maxRoot      = 512 << 10
	maxTimestamp = 16 << 10
	maxSnapshot  = 2 << 20
	maxTargets   = 5 << 20
	maxRotations = 256 // of root at once
	maxRoles     = 32  // of targets
)

// trust is the metadata that a node believes, and where it keeps it.
type trust struct {
	dir     string // of this root's state
	set     *trustedmetadata.TrustedMetadata
	options update.Options
}

func newTrust(options update.Options) (*trust, error) {
	if len(options.Root) == 0 {
		return nil, fmt.Errorf("%w: there is no trusted root: build one into the image, or set spec.update.root", update.ErrSignature)
	}
	if options.State == "" {
		return nil, errors.New("the source has no folder for its state")
	}
	t := &trust{options: options, dir: stateOf(options)}
	if err := durable.MkdirAll(t.dir, 0o700); err != nil {
		return nil, fmt.Errorf("keep the state of the source: %w", err)
	}
	return t, t.reset()
}

// stateOf is the folder of a root's state: what was seen under another root says nothing
// under this one.
func stateOf(o update.Options) string {
	return filepath.Join(o.State, fmt.Sprintf("%x", sha256.Sum256(o.Root))[:16])
}

// now is the clock, or the time that is surely past where the clock is behind.
func (t *trust) now() time.Time {
	now := t.options.Now()
	if now.Before(t.options.NotBefore) {
		now = t.options.NotBefore
	}
	return now.UTC()
}

// reset begins from the newest root that was believed.
func (t *trust) reset() error {
	set, err := trustedmetadata.New(t.options.Root)
	if err != nil {
		return fmt.Errorf("%w: the trusted root itself: %w", update.ErrSignature, err)
	}
	t.set = set
	if kept, err := t.load("root"); err == nil {
		newer, err := trustedmetadata.New(kept)
		if err == nil && newer.Root.Signed.Version > set.Root.Signed.Version {
			t.set = newer
		}
	}
	t.set.RefTime = t.now()
	return nil
}

// load reads kept metadata. What is damaged is as if it were not there: the
// trusted root remains, and the source has the rest.
func (t *trust) load(role string) ([]byte, error) {
	file := filepath.Join(t.dir, role+".json")
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxTargets {
		return nil, fs.ErrInvalid
	}
	return os.ReadFile(file)
}

func (t *trust) keep(role string, text []byte) error {
	if err := durable.WriteFile(filepath.Join(t.dir, role+".json"), text, 0o600); err != nil {
		return fmt.Errorf("keep the state of the source: %w", err)
	}
	return nil
}

// Metadata returns metadata that was believed last, by its name in a release folder's
// metadata, or fs.ErrNotExist. It is for peers, who check it again.
func Metadata(o update.Options, name string) ([]byte, error) {
	t := &trust{dir: stateOf(o)}
	role, ok := strings.CutSuffix(name, ".json")
	if !ok {
		return nil, fs.ErrNotExist
	}
	if role == "timestamp" || strings.HasSuffix(role, ".root") && number(strings.TrimSuffix(role, ".root")) {
		return t.load(role)
	}
	version, role, ok := strings.Cut(role, ".")
	if !ok || !number(version) || !roleName(role) {
		return nil, fs.ErrNotExist
	}
	if role != metadata.SNAPSHOT {
		role = "targets." + role
	}
	text, err := t.load(role)
	if err != nil {
		return nil, err
	}
	var kept struct {
		Signed struct {
			Version json.Number `json:"version"`
		} `json:"signed"`
	}
	if err := json.Unmarshal(text, &kept); err != nil || kept.Signed.Version.String() != version {
		return nil, fs.ErrNotExist
	}
	return text, nil
}

func number(text string) bool {
	n, err := strconv.ParseInt(text, 10, 64)
	return err == nil && n > 0 && strconv.FormatInt(n, 10) == text
}

// view is what the metadata offers.
type view struct {
	targets map[string]*metadata.TargetFiles // by path
}

// refresh brings the metadata up to date: root by root, then timestamp, snapshot
// and targets (TUF specification, sections 5.3 to 5.6).
func (s *source) refresh(ctx context.Context) (*view, error) {
	if err := s.trust.reset(); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{s.roots, s.timestamp, s.snapshot} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return s.targets(ctx)
}

func (s *source) roots(ctx context.Context) error {
	set := s.trust.set
	for range maxRotations {
		name := fmt.Sprintf("metadata/%d.root.json", set.Root.Signed.Version+1)
		text, err := s.readAll(ctx, name, maxRoot, false)
		if errors.Is(err, fs.ErrNotExist) {
			return s.expired(set.Root.Signed.Expires, "root", update.ErrExpired)
		}
		if err != nil {
			return err
		}
		if _, err := set.UpdateRoot(text); err != nil {
			return refused("root", err)
		}
		if err := s.trust.keep("root", text); err != nil {
			return err
		}
		if err := s.trust.keep(strconv.FormatInt(set.Root.Signed.Version, 10)+".root", text); err != nil { // for peers
			return err
		}
	}
	return fmt.Errorf("%w: root was rotated more than %d times at once", update.ErrTooLong, maxRotations)
}

// expired compares with the clock.
func (s *source) expired(at time.Time, role string, kind error) error {
	now := s.trust.now()
	if at.After(now) {
		return nil
	}
	return fmt.Errorf("%w: %s was good until %s, this node's time is %s: ask the publisher to sign again, and check the node's clock",
		kind, role, at.Format(time.RFC3339), now.Format(time.RFC3339))
}

func (s *source) timestamp(ctx context.Context) error {
	set := s.trust.set
	if kept, err := s.trust.load("timestamp"); err == nil {
		// One that is past its time is an error and still keeps older ones away. One
		// that the keys of a newer root did not sign does not count.
		_, err := set.UpdateTimestamp(kept)
		if err != nil && !errors.Is(err, &metadata.ErrExpiredMetadata{}) {
			set.Timestamp = nil
		}
	}
	text, err := s.readAll(ctx, "metadata/timestamp.json", maxTimestamp, false)
	if err != nil {
		return missing("timestamp", err)
	}
	_, err = set.UpdateTimestamp(text)
	switch {
	case errors.Is(err, &metadata.ErrEqualVersionNumber{}):
		return s.expired(set.Timestamp.Signed.Expires, "timestamp", update.ErrFrozen)
	case errors.Is(err, &metadata.ErrExpiredMetadata{}):
		if failed := s.trust.keep("timestamp", text); failed != nil { // it is newer than the last one
			return failed
		}
		return s.expired(set.Timestamp.Signed.Expires, "timestamp", update.ErrFrozen)
	case err != nil:
		return refused("timestamp", err)
	}
	return s.trust.keep("timestamp", text)
}

func (s *source) snapshot(ctx context.Context) error {
	set := s.trust.set
	if kept, err := s.trust.load("snapshot"); err == nil {
		if _, err := set.UpdateSnapshot(kept, true); err == nil {
			return s.expired(set.Snapshot.Signed.Expires, "snapshot", update.ErrExpired)
		}
	}
	info, ok := set.Timestamp.Signed.Meta["snapshot.json"]
	if !ok {
		return fmt.Errorf("%w: timestamp names no snapshot", update.ErrMixed)
	}
	text, err := s.role(ctx, "snapshot", info, maxSnapshot)
	if err != nil {
		return err
	}
	if _, err := set.UpdateSnapshot(text, false); err != nil {
		if errors.Is(err, &metadata.ErrExpiredMetadata{}) {
			return s.expired(set.Snapshot.Signed.Expires, "snapshot", update.ErrExpired)
		}
		return s.mixed("snapshot", err)
	}
	return s.trust.keep("snapshot", text)
}

// targets walks the delegations, those that come first before others and each
// once, and collects what each may offer (TUF specification, section 5.6.7).
func (s *source) targets(ctx context.Context) (*view, error) {
	v := &view{targets: map[string]*metadata.TargetFiles{}}
	open, seen := []delegation{{metadata.TARGETS, metadata.ROOT, func(string) bool { return true }}}, map[string]bool{}
	for len(open) > 0 {
		d := open[0]
		open = open[1:]
		if seen[d.role] {
			continue
		}
		if seen[d.role] = true; len(seen) > maxRoles {
			return nil, fmt.Errorf("%w: more than %d roles of targets", update.ErrTooLong, maxRoles)
		}
		m, err := s.loadTargets(ctx, d.role, d.parent)
		if err != nil {
			return nil, err
		}
		for path, info := range m.Signed.Targets {
			if _, known := v.targets[path]; !known && d.may(path) {
				v.targets[path] = info
			}
		}
		if m.Signed.Delegations != nil {
			open = d.children(m.Signed.Delegations.Roles, open)
		}
	}
	return v, nil
}

// delegation is a role that may offer some paths.
type delegation struct {
	role, parent string
	may          func(path string) bool
}

// children puts the roles that d delegates to before the others. Once a
// terminating one is responsible for a path, those after it are not.
func (d delegation) children(roles []metadata.DelegatedRole, others []delegation) []delegation {
	var all []delegation
	taken := func(string) bool { return false }
	for _, r := range roles {
		before, covers := taken, func(path string) bool {
			ok, err := r.IsDelegatedPath(path)
			return err == nil && ok && d.may(path)
		}
		all = append(all, delegation{r.Name, d.role, func(path string) bool { return covers(path) && !before(path) }})
		if r.Terminating {
			taken = func(path string) bool { return before(path) || covers(path) }
		}
	}
	for _, o := range others {
		all = append(all, delegation{o.role, o.parent, func(path string) bool { return o.may(path) && !taken(path) }})
	}
	return all
}

func (s *source) loadTargets(ctx context.Context, role, parent string) (*metadata.Metadata[metadata.TargetsType], error) {
	set := s.trust.set
	if !roleName(role) {
		return nil, fmt.Errorf("%w: a role named %.80q", update.ErrManifest, role)
	}
	if kept, err := s.trust.load("targets." + role); err == nil {
		if m, err := set.UpdateDelegatedTargets(kept, role, parent); err == nil {
			return m, nil
		}
	}
	info, ok := set.Snapshot.Signed.Meta[role+".json"]
	if !ok {
		return nil, fmt.Errorf("%w: snapshot does not name %s", update.ErrMixed, role)
	}
	text, err := s.role(ctx, role, info, maxTargets)
	if err != nil {
		return nil, err
	}
	m, err := set.UpdateDelegatedTargets(text, role, parent)
	if errors.Is(err, &metadata.ErrExpiredMetadata{}) {
		return nil, fmt.Errorf("%w: %s: this node's time is %s: ask the publisher to sign again, and check the node's clock", update.ErrExpired, role, s.trust.now().Format(time.RFC3339))
	}
	if err != nil {
		return nil, s.mixed(role, err)
	}
	return m, s.trust.keep("targets."+role, text)
}

// roleName keeps the names of roles apart from paths.
func roleName(role string) bool {
	return role != "" && len(role) <= 64 && !slices.ContainsFunc([]rune(role), func(c rune) bool {
		return c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	})
}

// role reads the metadata that another one pins.
func (s *source) role(ctx context.Context, role string, info *metadata.MetaFiles, most int64) ([]byte, error) {
	if info.Length > 0 {
		most = min(most, info.Length)
	}
	name := role + ".json"
	if s.trust.set.Root.Signed.ConsistentSnapshot {
		name = strconv.FormatInt(info.Version, 10) + "." + name
	}
	text, err := s.readAll(ctx, "metadata/"+name, most, info.Length > 0)
	if err != nil {
		return nil, missing(role, err)
	}
	return text, nil
}

// missing tells of metadata that must be there: the publication is not whole.
func missing(role string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s is missing: it is no release folder, or a copy that is not whole (%w)", update.ErrUnreachable, role, err)
	}
	return err
}

// refused gives go-tuf's reasons the names of this package.
func refused(role string, err error) error {
	kind := update.ErrManifest
	switch {
	case errors.Is(err, &metadata.ErrUnsignedMetadata{}):
		kind = update.ErrSignature
	case errors.Is(err, &metadata.ErrBadVersionNumber{}):
		kind = update.ErrRollback
	}
	return fmt.Errorf("%w: %s: %w", kind, role, err)
}

// mixed is refused for what another role pins: there a digest or version that
// does not fit means parts of different publications, unless it went back.
func (s *source) mixed(role string, err error) error {
	if errors.Is(err, &metadata.ErrLengthOrHashMismatch{}) || errors.Is(err, &metadata.ErrBadVersionNumber{}) && !s.wentBack(role) {
		return fmt.Errorf("%w: %s: %w", update.ErrMixed, role, err)
	}
	return refused(role, err)
}

// wentBack reports whether a snapshot that is pinned and signed lists older
// metadata than the one before it.
func (s *source) wentBack(role string) bool {
	set := s.trust.set
	return role == metadata.SNAPSHOT && set.Snapshot != nil && set.Timestamp.Signed.Meta["snapshot.json"].Version > set.Snapshot.Signed.Version
}
