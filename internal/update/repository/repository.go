package repository

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/update/keys"
)

// Reasons to refuse a change.
var (
	// ErrBusy: another process changes the folder.
	ErrBusy = errdefs.ErrAborted.WithMessage("another oscine release changes this folder")
	// ErrThere: the folder has releases already.
	ErrThere = errdefs.ErrAlreadyExists.WithMessage("it is a release folder already")
	// ErrVersion: a release that is not newer than those that are there.
	ErrVersion = errdefs.ErrFailedPrecondition.WithMessage("the version does not increase")
)

// Repository is a release folder. It is not safe for concurrent use; several
// processes keep out of each other's way.
type Repository struct {
	dir     string
	keys    []*keys.Key
	options Options
}

// Options choose how metadata is made. The zero value of a field is its default.
type Options struct {
	Expiry Expiry
	Now    func() time.Time // [time.Now]
}

// Expiry says how long metadata of each role is good for. The fresher the role,
// the sooner a node notices that news are kept from it.
type Expiry struct {
	Root      time.Duration // 365 days
	Targets   time.Duration // 180 days
	Snapshot  time.Duration // 30 days
	Timestamp time.Duration // 7 days
}

const day = 24 * time.Hour

func (o *Options) fill() {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&o.Expiry.Root, 365*day)
	set(&o.Expiry.Targets, 180*day)
	set(&o.Expiry.Snapshot, 30*day)
	set(&o.Expiry.Timestamp, 7*day)
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Open is a release folder with the keys that are at hand; it may not be there
// yet.
func Open(dir string, have []*keys.Key, options Options) *Repository {
	options.fill()
	return &Repository{dir: dir, keys: have, options: options}
}

// Keys are those at hand.
func (r *Repository) Keys() []*keys.Key { return r.keys }

func (r *Repository) metadata(name string) string { return filepath.Join(r.dir, "metadata", name) }
func (r *Repository) target(path string) string   { return filepath.Join(r.dir, "targets", path) }
func (r *Repository) staged() string              { return filepath.Join(r.dir, ".staged") }

// lock keeps other processes out until the function that it returns is called.
func (r *Repository) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(r.dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w: try again when it is done", r.dir, ErrBusy)
		}
		return nil, err
	}
	return func() { f.Close() }, nil
}

// change loads the state, has it changed, signs it and publishes it, or stages
// it where signatures are missing.
func (r *Repository) change(do func(*state) error) (*Result, error) {
	unlock, err := r.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	s, err := r.load()
	if err != nil {
		return nil, err
	}
	if err := do(s); err != nil {
		return nil, err
	}
	return r.finish(s)
}

// Setup chooses the keys of a new release folder by their names, which are
// roles, and how many of each must sign.
type Setup struct {
	Threshold map[string]int // by role; 1 where it is missing
}

// Releases is the role to which the top targets may delegate releases, so that
// a build server signs them with a key of its own while the targets key, which
// names that key, stays offline.
const Releases = "releases"

// releasePaths are what the role [Releases] may sign: the files of a release, and
// what it pins.
var releasePaths = []string{"*/*/*", "*/*/packs/*", "*/*/models/*"}

// Init makes a release folder without releases. Each of the four top roles needs
// as many keys as must sign; keys named releases make a delegation.
func (r *Repository) Init(setup Setup) (*Result, error) {
	if err := durable.MkdirAll(r.dir, 0o755); err != nil {
		return nil, err
	}
	unlock, err := r.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if version, err := r.newestRoot(); err != nil || version > 0 {
		return nil, errors.Join(err, fmt.Errorf("%s: %w", r.dir, ErrThere))
	}
	s := &state{
		root: metadata.Root(), targets: map[string]*targets{metadata.TARGETS: metadata.Targets()},
		changed: map[string]bool{},
	}
	s.root.Signed.ConsistentSnapshot = true
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		n := max(setup.Threshold[role], 1)
		for _, k := range r.named(role) {
			if err := s.root.Signed.AddKey(k.Public, role); err != nil {
				return nil, err
			}
		}
		if got := len(s.root.Signed.Roles[role].KeyIDs); got < n {
			return nil, fmt.Errorf("the role %s needs %d keys and there are %d: make them with oscine release keys generate --role %s", role, n, got, role)
		}
		s.root.Signed.Roles[role].Threshold = n
	}
	r.touchRoot(s)
	r.touchTargets(s, metadata.TARGETS)
	if k := r.named(Releases); len(k) > 0 {
		if err := r.delegate(s, Releases, releasePaths, k, max(setup.Threshold[Releases], 1)); err != nil {
			return nil, err
		}
	}
	return r.finish(s)
}

// named returns the keys for a role.
func (r *Repository) named(role string) (found []*keys.Key) {
	for _, k := range r.keys {
		if k.Name == role {
			found = append(found, k)
		}
	}
	return found
}

// Sign adds the signatures of the keys at hand to what is staged, and publishes
// it when there are enough. With nothing staged it makes snapshot and timestamp
// new, which keeps the folder from expiring.
func (r *Repository) Sign() (*Result, error) {
	return r.change(func(*state) error { return nil })
}
