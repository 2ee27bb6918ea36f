package upgrade

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/share"
	"oscine.dev/oscine/internal/update/slot"
)

// Reasons to refuse a call.
var (
	// ErrBusy: another upgrade is under way.
	ErrBusy = errdefs.ErrFailedPrecondition.WithMessage("another upgrade is under way")
	// ErrHeld: a person holds or pins the node's version.
	ErrHeld = errdefs.ErrFailedPrecondition.WithMessage("upgrades of this node are held")
	// ErrFailedBefore: the version failed on this node.
	ErrFailedBefore = errdefs.ErrFailedPrecondition.WithMessage("this version failed here before")
	// ErrNoReturn: an application changed its data under a later version.
	ErrNoReturn = errdefs.ErrFailedPrecondition.WithMessage("a point of no return was passed")
	// ErrNothing: there is no upgrade that could be cancelled.
	ErrNothing = errdefs.ErrNotFound.WithMessage("no upgrade is under way")
	// ErrTooLate: the machine restarts into the new version already.
	ErrTooLate = errdefs.ErrFailedPrecondition.WithMessage("it is too late: the machine restarts, or is on trial")
	// ErrNoSource: nobody said where releases come from.
	ErrNoSource = errdefs.ErrInvalidArgument.WithMessage("no source of releases is given")
	// ErrNotHere: the node runs on another Linux.
	ErrNotHere = errdefs.ErrFailedPrecondition.WithMessage("this node runs on another Linux")
	// ErrNoData: the machine is ours, and its data partition cannot be mounted.
	ErrNoData = errdefs.ErrFailedPrecondition.WithMessage("this node's data partition cannot be mounted")
	// ErrNoLock: no such lock is held.
	ErrNoLock = errdefs.ErrNotFound.WithMessage("no such lock")
)

// Slots is the machine's disk; see slot.Slots.
type Slots interface {
	State() (slot.State, error)
	Check(*update.Manifest) error
	CheckImage(*update.Manifest, []byte) (release.Verity, error)
	Clear() error
	Idle() (slot.Partition, error)
	Running() (*update.Base, io.Closer, error)
	RunningImage() ([]byte, error)
	CheckRoot(context.Context, release.Verity) error
	Stage(version string, image []byte) error
	Arm(version string) error
	Disarm() error
	Repair(context.Context, slot.Copies) ([]string, error)
	ReplaceLoader(slot.Firmware, map[string][]byte) (slot.LoaderStep, error)
}

// Host is what the node does for an upgrade.
type Host interface {
	// Before is how the node is now.
	Before() Before
	// Checks are what the node must pass to be as it was before.
	Checks(before *Before) []Check
	// Drain stops what runs, each within its grace, for a restart of the machine.
	Drain(ctx context.Context)
	// Note records an event.
	Note(reason, message string, warning bool)
}

// Stores are where the packs and models of releases go. Fetch, as their methods call
// it, is given what an earlier try left of a file, and writes what follows.
type Stores interface {
	// HasPack and HasModel report whether the file of a digest is here.
	HasPack(digest string) bool
	HasModel(digest string) bool
	// Left is how many bytes an earlier try left of the file of a digest.
	Left(digest string) int64
	// AddPack stores a pack that counts once a release runs; see pack.Store.Stage.
	AddPack(ctx context.Context, release, digest string, fetch func(have io.Reader, w io.Writer) error) error
	// AddModel stores a model file.
	AddModel(name, digest string, fetch func(have io.Reader, w io.Writer) error) error
	// OpenPack and OpenModel open the file of a digest, or return fs.ErrNotExist.
	OpenPack(digest string) (*os.File, error)
	OpenModel(digest string) (*os.File, error)
	// FitKernel refuses a kernel that installed packs have no modules for; see
	// pack.Store.FitKernel.
	FitKernel(kernel string, pins []string, staged string) error
	// Settle is called while no upgrade is under way; see pack.Store.Settle.
	Settle() (packs []string, err error)
}

// Config says what a Manager works with.
type Config struct {
	File    string // where the state is kept
	Dir     string // for what is fetched
	BootLog string // release.BootLogFile
	BootID  string // of this boot of the kernel
	Arch    string
	Kernel  string // as uname -r prints it
	Machine object.MachineUpdate
	Root    []byte // the trusted TUF root of the image; nil where it has none
	Slots   Slots  // nil where the machine is not ours
	Copies  slot.Copies
	// Firmware starts the boot loader; needed where Slots is.
	Firmware slot.Firmware
	Stores   Stores // for packs and models; needed where Slots is
	Facts    func() release.Facts
	Open     func(source string, o update.Options) (update.Source, error)
	Registry artifact.Access                  // for a source in a registry
	PeerTLS  *tls.Config                      // for the Machine's peers
	Cache    *share.Cache                     // of files for peers; nil where the Machine shares none
	Tell     func(release.Notification) error // PID 1
	Host     Host
	Now      func() time.Time
	Log      *slog.Logger
}

// Manager takes the node from release to release. It is safe for concurrent use.
type Manager struct {
	Config

	wake chan struct{}

	reading sync.Mutex // guards known and read
	known   *slot.State
	read    time.Time

	mu       sync.Mutex
	state    *state
	progress *update.Progress
	waiting  bool               // for a peer, and the current upgrade's message says so
	received map[bool]int64     // bytes since the daemon started, by whether a peer sent them
	cancel   context.CancelFunc // of the step under way
	checked  time.Time          // when the policy looked for a release
	repaired time.Time          // when the ESP was compared with its copies
	loader   slot.LoaderStep    // that was told last
	tries    int                // to reach the source
	asked    time.Time          // when PID 1 was asked to restart
	failing  error              // the last error of writing the state
}

// Open reads the state. Where it cannot be read, that is logged and the node goes
// on without: it is no reason not to run.
func Open(c Config) *Manager {
	if c.Now == nil {
		c.Now = time.Now
	}
	s, err := readState(c.File)
	if err != nil {
		c.Log.Error("upgrades: what was known is lost", "error", err)
	}
	return &Manager{Config: c, state: s, wake: make(chan struct{}, 1), received: map[bool]int64{}}
}

// Pending reports whether the version that runs is on trial and has to pass the
// checks: READY must not mark it good then.
func (m *Manager) Pending() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.state.Current
	if m.Slots == nil || u == nil || !m.Facts().Trial {
		return false
	}
	return u.wentTo(m.Running())
}

// wentTo reports that the version that runs is the new one. The stage does not
// count: its last change may never have reached the disk.
func (u *Upgrade) wentTo(running string) bool {
	return running != "" && running == u.To && running != u.From
}

// change edits the state and writes it. The edit stands even where it cannot be
// written: what the disk holds decides after a restart.
func (m *Manager) change(edit func(*state)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	edit(m.state)
	m.written(m.state.write(m.File))
}

// certainly is change where the next step must not begin before it is on the disk:
// an edit that returns an error, or that cannot be written, is taken back.
func (m *Manager) certainly(edit func(*state) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.state.clone()
	if err := edit(next); err != nil {
		return err
	}
	err := next.write(m.File)
	m.written(err)
	if err == nil {
		m.state = next
	}
	return err
}

// written logs an error of writing the state, the same one once. The caller holds mu.
func (m *Manager) written(err error) {
	if err != nil && (m.failing == nil || m.failing.Error() != err.Error()) {
		m.Log.Error("upgrades", "error", err)
	}
	m.failing = err
}

func (m *Manager) current() *Upgrade {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state.Current == nil {
		return nil
	}
	return m.state.Current.clone()
}

func (m *Manager) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Request asks for an upgrade.
type Request struct {
	Source string // empty: the Machine's
	To     string // version; empty: the newest
	By     string
	Options
}

// Start begins an upgrade, or has one that was only downloaded go on. What can be
// refused before anything is fetched is refused here.
func (m *Manager) Start(r Request) (*Upgrade, error) {
	if m.Slots == nil {
		return nil, m.notHere()
	}
	slots, err := m.Slots.State()
	if err != nil {
		return nil, err
	}
	if slots.Active.Health != slot.Good {
		return nil, fmt.Errorf("%w: %s", slot.ErrOnTrial, slots.Active.Version)
	}
	m.mu.Lock()
	u := m.state.Current
	if u != nil && u.Options.DownloadOnly && !r.DownloadOnly && (r.To == "" || r.To == u.To) {
		number := u.Number
		m.mu.Unlock()
		err := m.certainly(func(s *state) error {
			if s.Current == nil || s.Current.Number != number {
				return ErrNothing // it ended meanwhile
			}
			s.Current.Options, s.Current.By = r.Options, r.By
			return nil
		})
		m.poke()
		return m.current(), err
	}
	defer m.mu.Unlock()
	if u != nil {
		return nil, fmt.Errorf("%w: to %s, %s: see oscine upgrade status, or oscine upgrade cancel", ErrBusy, cmp.Or(u.To, "the newest release"), u.Stage)
	}
	if err := m.state.allowed(r.To, r.Force); err != nil {
		return nil, err
	}
	if r.Source == "" {
		r.Source = m.Machine.Source
	}
	if r.Source == "" {
		return nil, fmt.Errorf("%w: name one, or set spec.update.source of the Machine", ErrNoSource)
	}
	if err := object.CheckReleaseSource(r.Source); err != nil {
		return nil, fmt.Errorf("%w: the source %w", errdefs.ErrInvalidArgument, err)
	}
	now := m.Now()
	m.state.Number++
	m.state.Current = &Upgrade{
		Number: m.state.Number, From: slots.Active.Version, To: r.To, Source: r.Source, Slot: slots.Idle.Slot, By: r.By,
		Stage: Downloading, Began: now, Changed: now, Options: r.Options,
	}
	if err := m.state.write(m.File); err != nil {
		m.state.Current = nil
		return nil, fmt.Errorf("%w: %w", errdefs.ErrResourceExhausted, err)
	}
	m.tries = 0
	m.poke()
	begun := *m.state.Current
	return &begun, nil
}

// allowed refuses a version that a person or a failure excludes.
func (s *state) allowed(version string, force bool) error {
	if s.Hold != nil {
		return fmt.Errorf("%w by %s: end that with oscine upgrade unhold", ErrHeld, s.Hold.whose())
	}
	if s.Pin != "" && version != "" && version != s.Pin {
		return fmt.Errorf("%w: its version is pinned to %s: end that with oscine upgrade unpin", ErrHeld, s.Pin)
	}
	if p := s.NoReturn; !force && p.closes(version) {
		return fmt.Errorf("%w: %s: go there all the same with --force", ErrNoReturn, p)
	}
	if failed, ok := s.Refused[version]; ok && !force {
		return fmt.Errorf("%w, on %s: %s: try it again with --force", ErrFailedBefore, failed.At.UTC().Format("2006-01-02 15:04 MST"), failed.Reason)
	}
	return nil
}

// notHere says why there are no slots.
func (m *Manager) notHere() error {
	return NotHere(m.Facts, "upgrade that by its own means", "to erase it, put an empty file oscine/reset on the ESP with another computer, and restart")
}

// NotHere is why a node has no slots, with what to do then: [ErrNotHere] where facts
// is nil, because Oscine did not start the machine, else [ErrNoData].
func NotHere(facts func() release.Facts, elsewhere, withoutData string) error {
	if facts == nil {
		return fmt.Errorf("%w: %s", ErrNotHere, elsewhere)
	}
	return fmt.Errorf("%w: %s", ErrNoData, withoutData)
}

// Cancel ends an upgrade that has not come to the restart.
func (m *Manager) Cancel(by string) (*Upgrade, error) {
	if m.Slots == nil {
		return nil, m.notHere()
	}
	m.mu.Lock()
	u := m.state.Current
	if u == nil {
		m.mu.Unlock()
		return nil, ErrNothing
	}
	if u.Stage == Rebooting || u.Stage == Trial {
		m.mu.Unlock()
		return nil, ErrTooLate
	}
	if m.cancel != nil {
		m.cancel()
	}
	m.state.end(Cancelled, "by "+by, m.Now())
	err := m.state.write(m.File)
	m.mu.Unlock()
	m.poke() // which takes the kernel image away
	return u, err
}
