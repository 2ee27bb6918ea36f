package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update"
)

// Stage is how far an upgrade is.
type Stage string

// The stages, in their order.
const (
	Downloading Stage = "downloading" // into the idle slot
	Verified    Stage = "verified"    // read back from there
	Written     Stage = "written"     // its kernel image is on the ESP, hidden from the boot loader
	Armed       Stage = "armed"       // waits for its time
	Rebooting   Stage = "rebooting"   // the boot loader starts it next
	Trial       Stage = "trial"       // it runs, and is being checked
	Good        Stage = "good"        // it is kept
	Failed      Stage = "failed"      // the version before runs, or still runs
	Cancelled   Stage = "cancelled"   // by a person
)

// Ended reports whether nothing more will happen.
func (s Stage) Ended() bool { return s == Good || s == Failed || s == Cancelled }

// Upgrade is one try to go to a release.
type Upgrade struct {
	Number  int    `json:"number"` // counts up
	From    string `json:"from"`   // version
	To      string `json:"to"`     // version; as it was asked for, until it is found
	Source  string `json:"source"`
	Slot    string `json:"slot,omitempty"` // that it is written to
	By      string `json:"by"`             // who asked; "policy" for the node itself
	Stage   Stage  `json:"stage"`
	Message string `json:"message,omitempty"` // what it waits for, or why it failed

	Began   time.Time  `json:"began"`
	Changed time.Time  `json:"changed"` // when it came to this stage
	Ended   *time.Time `json:"ended,omitempty"`

	FailedStage Stage    `json:"failedStage,omitempty"` // the stage that failed
	Log         []string `json:"log,omitempty"`         // the end of what the failed boot said
	Boots       int      `json:"boots,omitempty"`       // how often it was started, where it failed

	Options  Options          `json:"options"`
	Before   *Before          `json:"before,omitempty"` // how the node was
	BootID   string           `json:"bootID,omitempty"` // of the boot that armed it
	Missed   int              `json:"missed,omitempty"` // restarts that did not start it
	Manifest *update.Manifest `json:"manifest,omitempty"`
	Files    []Received       `json:"files,omitempty"` // that were fetched, in their order
}

// clone is a copy that does not change with u.
func (u *Upgrade) clone() *Upgrade {
	c := *u
	c.Files = slices.Clone(u.Files)
	return &c
}

// Received is how much of a file of a release came from where.
type Received struct {
	Name  string `json:"name"`
	Peer  string `json:"peer,omitempty"` // empty for the source itself
	Bytes int64  `json:"bytes"`
}

// Options are the choices of one who asks for an upgrade.
type Options struct {
	NotBefore     time.Time             `json:"notBefore,omitzero"` // of the restart
	Windows       []object.UpdateWindow `json:"windows,omitempty"`  // for the restart; nil: those of the Machine
	Anytime       bool                  `json:"anytime,omitempty"`  // whatever the windows of the Machine
	OverrideLocks bool                  `json:"overrideLocks,omitempty"`
	Force         bool                  `json:"force,omitempty"`        // also a version that failed before
	DownloadOnly  bool                  `json:"downloadOnly,omitempty"` // stop before the restart, until asked again
	GateDeadline  time.Duration         `json:"gateDeadline,omitempty"` // for the checks; 0: that of the Machine
}

// Before is how the node was before the restart: what the new version must bring
// back.
type Before struct {
	Objects []string `json:"objects,omitempty"` // that ran, as Kind/name
	Network bool     `json:"network,omitempty"` // it had an address
}

// Lock keeps the node from restarting for an upgrade.
type Lock struct {
	Name   string    `json:"name"`
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // zero: until it is given back
	// NoReturn says that its holder changes data so that older versions cannot use it.
	NoReturn bool `json:"noReturn,omitempty"`
}

// whose says who made it, and why where that was said.
func (l *Lock) whose() string {
	if l.Reason == "" {
		return l.By
	}
	return l.By + ": " + l.Reason
}

// NoReturn is a point of no return: an application has changed its data under a
// version, so that an older one may not have it work.
type NoReturn struct {
	Version string `json:"version"`
	Lock    `json:"lock"`
}

// closes reports that a version is from before the point; p may be nil.
func (p *NoReturn) closes(version string) bool {
	return p != nil && version != "" && release.CompareVersions(version, p.Version) < 0
}

// String says what was changed, when and by whom.
func (p *NoReturn) String() string {
	return fmt.Sprintf("%s has changed its data for %s on %s (by %s), and may not work with an older version",
		p.Name, p.Version, p.Since.UTC().Format("2006-01-02 15:04 MST"), p.whose())
}

// Refusal is a version that failed here.
type Refusal struct {
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// state is what is kept on the disk.
type state struct {
	Number  int                `json:"number"`
	Current *Upgrade           `json:"current,omitempty"`
	History []*Upgrade         `json:"history,omitempty"` // the oldest first
	Refused map[string]Refusal `json:"refused,omitempty"` // by version
	Built   time.Time          `json:"built,omitzero"`    // when the newest release that was good here was made
	Floor   string             `json:"floor,omitempty"`   // no version before it is taken
	Hold    *Lock              `json:"hold,omitempty"`    // no upgrade begins
	Pin     string             `json:"pin,omitempty"`     // the only version that is taken
	Locks   []Lock             `json:"locks,omitempty"`
	// NoReturn is the newest point of no return that was declared; nil for none.
	NoReturn *NoReturn     `json:"noReturn,omitempty"`
	Ended    map[Stage]int `json:"ended,omitempty"` // how many, since the machine was installed

	// Releases are the versions in the slots that were found good here, at most two.
	Releases []*update.Manifest `json:"releases,omitempty"`
	// Packs are the digests of packs that verified releases pin, each with the version,
	// as long as they are here or on their way.
	Packs map[string]string `json:"packs,omitempty"`
	// Verities name the hash trees of these, where the release says so.
	Verities map[string]string `json:"verities,omitempty"`
}

// Bounds of what is kept.
const (
	maxHistory = 50
	maxRefused = 100
	maxLocks   = 64
	maxMissed  = 3
	maxFiles   = 1024    // of one upgrade
	maxState   = 8 << 20 // bytes
)

func readState(file string) (*state, error) {
	s := &state{}
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil && info.Size() > maxState {
		err = fmt.Errorf("it has %d bytes", info.Size())
	}
	if err != nil {
		return s, fmt.Errorf("read the state of upgrades: %w", err)
	}
	raw, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(raw, s)
	}
	if err != nil {
		return &state{}, fmt.Errorf("read the state of upgrades: %s: %w", file, err)
	}
	return s, nil
}

// clone is a copy whose edits leave s as it is. What neither is ever edited is shared.
func (s *state) clone() *state {
	c := *s
	if s.Current != nil {
		c.Current = s.Current.clone()
	}
	c.History, c.Locks = slices.Clone(s.History), slices.Clone(s.Locks)
	c.Refused, c.Ended, c.Packs = maps.Clone(s.Refused), maps.Clone(s.Ended), maps.Clone(s.Packs)
	c.Verities = maps.Clone(s.Verities)
	c.Releases = slices.Clone(s.Releases)
	return &c
}

func (s *state) write(file string) error {
	raw, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(file, raw, 0o600); err != nil {
		return fmt.Errorf("write the state of upgrades: %w", err)
	}
	return nil
}

// end moves the current upgrade into the history.
func (s *state) end(stage Stage, message string, now time.Time) {
	u := s.Current
	u.Stage, u.Message, u.Changed, u.Ended = stage, message, now, &now
	s.History = append(s.History, u)
	if len(s.History) > maxHistory {
		s.History = s.History[len(s.History)-maxHistory:]
	}
	s.Current = nil
	if s.Ended == nil {
		s.Ended = map[Stage]int{}
	}
	s.Ended[stage]++
}

// refuse remembers that a version failed.
func (s *state) refuse(version, reason string, now time.Time) {
	if s.Refused == nil {
		s.Refused = map[string]Refusal{}
	}
	s.Refused[version] = Refusal{reason, now}
	for len(s.Refused) > maxRefused {
		oldest := ""
		for v, r := range s.Refused {
			if oldest == "" || r.At.Before(s.Refused[oldest].At) {
				oldest = v
			}
		}
		delete(s.Refused, oldest)
	}
}
