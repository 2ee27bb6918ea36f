package configuration

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/object"
)

// Bounds of what is kept.
const (
	maxRevisions = 32
	maxFile      = 4 * object.MaxBytes
)

// Limits of a trial.
const (
	DefaultTrial = 2 * time.Minute
	MinTrial     = 10 * time.Second
	MaxTrial     = time.Hour
)

// Paths are where a Store keeps its files.
type Paths struct {
	Machine string // file of the Machine that was applied or sent
	History string // folder of the revisions and of the trial
	// Given is a Machine file from outside, a hypervisor's or the command line's:
	// it counts until another Machine is applied, and again once it changes. ""
	// for none.
	Given string
}

// Store is a node's Machine with its history. It is safe for concurrent use.
type Store struct {
	paths Paths
	log   *slog.Logger
	check func(*object.Machine) error

	mu      sync.Mutex
	machine *object.Machine // in use
	history []Revision      // the oldest first; the last is in use
	trial   *trial          // nil while nothing is on trial
	restart chan struct{}   // closed when the daemon is to start again
}

// Revision is one configuration that the node had.
type Revision struct {
	Number  int             `json:"number"`  // from 1 upwards
	At      time.Time       `json:"at"`      // when it was applied
	By      string          `json:"by"`      // the client's name; "" for the first
	Note    string          `json:"note"`    // why it was taken back; "" while it was not
	Changes []Change        `json:"changes"` // against the one before
	Machine json.RawMessage `json:"machine"` // as it is kept; holds secrets
}

// trial is a change that is not confirmed. The Machine to return to is in a file
// of its own: renaming that needs no room.
type trial struct {
	Number  int           `json:"number"`  // of the revision on trial
	Within  time.Duration `json:"within"`  // from the daemon's start
	Started bool          `json:"started"` // the daemon has started with it once
}

// Result is what Apply did, or would do.
type Result struct {
	Revision int           // its number; the present one where nothing changes
	Changes  []Change      // none: the Machine is what it was
	Within   time.Duration // in which Confirm must be called
}

// Errors that a caller can act on.
var (
	// ErrOnTrial is returned while an earlier change is neither confirmed nor taken back.
	ErrOnTrial = fmt.Errorf("a change of the Machine is on trial: confirm it, or wait until it is taken back: %w", errdefs.ErrConflict)
	// ErrNoTrial is returned by Confirm where no change is on trial: it was confirmed already, or taken back.
	ErrNoTrial = fmt.Errorf("no change of the Machine is on trial: see oscine config history: %w", errdefs.ErrFailedPrecondition)
)

// Open reads what was kept. A change on trial whose daemon has started before is taken back: that daemon,
// or the machine, went down with it. check finds what only this node can know; it may be nil.
func Open(paths Paths, check func(*object.Machine) error, log *slog.Logger) *Store {
	s := &Store{paths: paths, log: log, check: check, restart: make(chan struct{})}
	if err := s.read(s.historyFile(), &s.history); err != nil {
		// What the node had before is worth less than that it starts.
		log.Error("the history of the Machine is lost", "error", err)
		s.history = nil
	}
	if err := s.read(s.trialFile(), &s.trial); err != nil {
		log.Error("a trial of the Machine cannot be read, and is over", "error", err)
		s.trial = nil
	}
	// A disk that is full or cannot be written keeps no daemon from starting.
	switch {
	case s.trial == nil:
	case s.trial.Started:
		if err := s.takeBack("the node restarted before it was confirmed"); err != nil {
			log.Error("a change of the Machine that is not confirmed stays", "error", err)
		}
	default:
		s.trial.Started = true
		if err := s.write(s.trialFile(), s.trial); err != nil {
			log.Error("a crash will not take the change of the Machine back", "error", err)
		}
	}
	return s
}

func (s *Store) historyFile() string { return filepath.Join(s.paths.History, "revisions.json") }
func (s *Store) trialFile() string   { return filepath.Join(s.paths.History, "trial.json") }

// beforeFile holds the Machine to return to, while another one is on trial.
func (s *Store) beforeFile() string { return filepath.Join(s.paths.History, "before.json") }

// Replaced reports that the Machine file counts, although one is given from outside.
func Replaced(paths Paths) bool {
	replaced, err := os.ReadFile(paths.replaced())
	if err != nil || string(replaced) != paths.givenDigest() {
		return false
	}
	_, err = os.Stat(paths.Machine)
	return err == nil
}

// replaced is the file with the digest of the given Machine that Apply has replaced.
func (p Paths) replaced() string { return filepath.Join(p.History, "given.sha256") }

// givenDigest is "" where no Machine is given.
func (p Paths) givenDigest() string {
	f, err := os.Open(p.Given)
	if err != nil {
		return ""
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, maxFile)); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Use tells the Store with which Machine the daemon has started.
func (s *Store) Use(machine *object.Machine) error {
	raw, err := json.Marshal(machine)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.machine = machine
	var changes []Change
	if len(s.history) > 0 {
		last, err := decode(s.history[len(s.history)-1].Machine)
		if err == nil {
			if changes = Diff(last, machine); len(changes) == 0 {
				return nil
			}
		}
	}
	// The first, or one that came by another way: with the image or from maintenance mode.
	s.add(Revision{At: time.Now(), Changes: changes, Machine: raw})
	return s.write(s.historyFile(), s.history)
}

// add appends a revision; the caller holds mu.
func (s *Store) add(r Revision) int {
	r.Number = 1
	if n := len(s.history); n > 0 {
		r.Number = s.history[n-1].Number + 1
	}
	s.history = append(s.history, r)
	s.history = slices.Delete(s.history, 0, max(len(s.history)-maxRevisions, 0))
	return r.Number
}

// Revision returns one configuration and its number; 0 stands for the one in use. It returns ErrNotFound
// where there is none of that number.
func (s *Store) Revision(number int) (int, *object.Machine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if number == 0 {
		return s.history[len(s.history)-1].Number, s.machine, nil
	}
	for _, r := range s.history {
		if r.Number == number {
			machine, err := decode(r.Machine)
			if err != nil {
				return 0, nil, fmt.Errorf("revision %d is from another release, and cannot be read: %w: %w", number, err, errdefs.ErrFailedPrecondition)
			}
			return number, machine, nil
		}
	}
	return 0, nil, fmt.Errorf("revision %d: %w: see oscine config history", number, errdefs.ErrNotFound)
}

// History returns the revisions, the newest first.
func (s *Store) History() []Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Clone(s.history)
	slices.Reverse(list)
	return list
}

// Restart is closed when the daemon is to start again, with another Machine.
func (s *Store) Restart() <-chan struct{} { return s.restart }

// decode reads a Machine that was kept.
func decode(raw json.RawMessage) (*object.Machine, error) {
	return object.ParseMachine(bytes.NewReader(raw))
}

// read decodes a file; one that is absent changes nothing.
func (s *Store) read(path string, v any) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Size() > maxRevisions*maxFile {
		return fmt.Errorf("%s has %d bytes", path, info.Size())
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

func (s *Store) write(path string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := durable.MkdirAll(s.paths.History, 0o700); err != nil {
		return err
	}
	return durable.WriteFile(path, raw, 0o600)
}
