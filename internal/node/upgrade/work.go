package upgrade

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update"
	"oscine.dev/oscine/internal/update/slot"
)

const (
	// tick is how often the node looks whether the time of an upgrade has come.
	tick = 15 * time.Second
	// sourcePause is the wait after a source could not be read; it doubles up to
	// sourceMost, and sourceTries in a row are made.
	sourcePause = 5 * time.Second
	sourceMost  = 5 * time.Minute
	sourceTries = 12
	// rebootPatience is how long a restart that was asked for may take.
	rebootPatience = 5 * time.Minute
	// dataReserve is what stays free on the data partition, in bytes.
	dataReserve = 16 << 20
)

// Run does what is due until ctx ends. The node calls it once its API answers: the
// checks of a version on trial begin with it.
func (m *Manager) Run(ctx context.Context) {
	if m.Slots == nil {
		return
	}
	m.settle(ctx)
	for {
		pause := m.step(ctx)
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-time.After(pause):
		}
	}
}

// step does what is due now, and returns when to look again.
func (m *Manager) step(ctx context.Context) time.Duration {
	u := m.current()
	if u == nil {
		return m.idle(ctx)
	}
	stepping, cancel := context.WithCancel(ctx)
	defer cancel()
	m.mu.Lock()
	m.cancel = cancel
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.cancel, m.progress = nil, nil
		m.mu.Unlock()
	}()
	var err error
	switch u.Stage {
	case Downloading, Verified:
		err = m.fetch(stepping, u)
	case Written:
		err = m.enter(u.Number, Armed, "")
		if err == nil {
			m.Host.Note("UpgradeReady", fmt.Sprintf("%s is in slot %s and waits for its time", u.To, u.Slot), false)
		}
	case Armed:
		return m.await(stepping, u)
	case Rebooting:
		return m.restart(stepping, u)
	default: // on trial: settle is at it
		return tick
	}
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		return tick // the daemon stops; the next one goes on
	case stepping.Err() != nil:
		return 0 // cancelled
	case errors.Is(err, update.ErrUnreachable) && m.again():
		pause := min(sourcePause<<min(m.tries-1, 10), sourceMost)
		m.say(u.Number, fmt.Sprintf("%v: trying again in %s", err, pause))
		return pause
	}
	m.fail(u, u.Stage, err.Error(), false)
	return 0
}

func (m *Manager) again() bool {
	m.tries++
	return m.tries < sourceTries
}

// enter brings an upgrade to a stage, on the disk before it returns.
func (m *Manager) enter(number int, stage Stage, message string) error {
	m.Log.Info("upgrade", "number", number, "stage", string(stage), "message", message)
	return m.certainly(func(s *state) {
		if u := s.Current; u != nil && u.Number == number {
			u.Stage, u.Message, u.Changed = stage, message, m.Now()
		}
	})
}

// say tells people what an upgrade waits for.
func (m *Manager) say(number int, message string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.state.Current; u != nil && u.Number == number {
		u.Message = message
	}
}

// fail ends an upgrade.
func (m *Manager) fail(u *Upgrade, at Stage, reason string, remember bool) {
	m.change(func(s *state) {
		if s.Current == nil || s.Current.Number != u.Number {
			return
		}
		s.Current.FailedAt, s.Current.Log, s.Current.Boots = at, u.Log, u.Boots
		s.end(Failed, reason, m.Now())
		if remember {
			s.refuse(u.To, reason, m.Now())
		}
	})
	m.Log.Error("upgrade failed", "number", u.Number, "to", u.To, "stage", string(at), "reason", reason)
	m.Host.Note("UpgradeFailed", fmt.Sprintf("to %s, while %s: %s", u.To, at, reason), true)
	if err := m.Slots.Disarm(); err != nil {
		m.Log.Warn("upgrades: clean up the ESP", "error", err)
	}
}

// idle cleans up after a cancelled upgrade, and does what the policy wants.
func (m *Manager) idle(ctx context.Context) time.Duration {
	m.mu.Lock()
	cancelled := len(m.state.History) > 0 && m.state.History[len(m.state.History)-1].Stage == Cancelled
	m.mu.Unlock()
	if cancelled {
		if state, err := m.Slots.State(); err == nil && state.Idle.Health == slot.Staged {
			if err := m.Slots.Disarm(); err != nil {
				m.Log.Warn("upgrades: clean up the ESP", "error", err)
			}
		}
	}
	if m.Machine.Policy == "" || m.Machine.Policy == object.UpdateManual || m.Machine.Source == "" {
		return time.Hour
	}
	// The monotonic clock: one that jumps neither hurries nor delays it.
	if since := time.Since(m.checked); !m.checked.IsZero() && since < m.Machine.CheckEvery.Std() {
		return min(m.Machine.CheckEvery.Std()-since, time.Hour)
	}
	m.checked = time.Now()
	found, err := m.wanted(ctx)
	if err != nil {
		m.Log.Warn("look for a release", "source", m.Machine.Source, "error", err)
		return tick
	}
	if found == "" {
		return tick
	}
	_, err = m.Start(Request{To: found, By: "policy", Options: Options{DownloadOnly: m.Machine.Policy == object.UpdateDownload}})
	if err != nil {
		m.Log.Warn("begin the upgrade that the policy wants", "to", found, "error", err)
	}
	return tick
}

// wanted returns the version that the policy would go to, "" for none.
func (m *Manager) wanted(ctx context.Context) (string, error) {
	source, err := m.open(m.Machine.Source)
	if err != nil {
		return "", err
	}
	defer source.Close()
	slots, err := m.Slots.State()
	if err != nil {
		return "", err
	}
	all, err := source.Releases(ctx, m.Arch, release.Flavour(m.Kernel))
	if err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range all {
		if r.Newer(slots.Active.Version) && m.state.allowed(r.Version, false) == nil && r.Allowed(m.Arch, release.Flavour(m.Kernel), slots.Active.Version, m.state.Floor) == nil {
			return r.Version, nil
		}
	}
	return "", nil
}

// open opens a source with the node's trust.
func (m *Manager) open(source string) (update.Source, error) {
	root := m.Root
	if m.Machine.Root != "" {
		root = []byte(m.Machine.Root)
	}
	bandwidth, _ := m.Machine.Bandwidth.Value() // checked when the Machine was read
	return m.Open(source, update.Options{Root: root, State: filepath.Join(m.Dir, "trust"), NotBefore: m.built(), Now: m.Now, BytesPerSecond: bandwidth})
}

// built is when the newest release that was found good here was made: that time is
// past, whatever the clock shows.
func (m *Manager) built() (newest time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range m.state.History {
		if u.Stage == Good && u.Manifest != nil && u.Manifest.Built.After(newest) {
			newest = u.Manifest.Built
		}
	}
	return newest
}

// choose finds the release that is asked for and refuses one that cannot work.
func (m *Manager) choose(ctx context.Context, source update.Source, to string, o Options) (*update.Manifest, error) {
	slots, err := m.Slots.State()
	if err != nil {
		return nil, err
	}
	flavour := release.Flavour(m.Kernel)
	all, err := source.Releases(ctx, m.Arch, flavour)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	floor, pin := m.state.Floor, m.state.Pin
	m.mu.Unlock()
	if to == "" {
		to = pin
	}
	var chosen *update.Manifest
	for _, r := range all {
		if to == "" || r.Version == to {
			chosen = r
			break
		}
	}
	switch {
	case chosen == nil && to != "":
		return nil, fmt.Errorf("%w: %s for %s with the kernel %s; it offers %d others", update.ErrNotOffered, to, m.Arch, flavour, len(all))
	case chosen == nil:
		return nil, fmt.Errorf("%w for %s with the kernel %s", update.ErrNotOffered, m.Arch, flavour)
	case to == "" && !chosen.Newer(slots.Active.Version) && chosen.Version != slots.Active.Version:
		return nil, fmt.Errorf("%w: the newest is %s, older than the running %s: go back with --to %s", slot.ErrRunning, chosen.Version, slots.Active.Version, chosen.Version)
	}
	m.mu.Lock()
	err = m.state.allowed(chosen.Version, o.Force)
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := chosen.Allowed(m.Arch, flavour, slots.Active.Version, floor); err != nil {
		return nil, err
	}
	return chosen, m.Slots.Check(chosen)
}

// Plan says what Start would do, and changes nothing.
func (m *Manager) Plan(ctx context.Context, r Request) (*update.Manifest, update.Transfer, error) {
	if m.Slots == nil {
		return nil, update.Transfer{}, ErrNotHere
	}
	if r.Source == "" {
		r.Source = m.Machine.Source
	}
	if r.Source == "" {
		return nil, update.Transfer{}, fmt.Errorf("%w: name one, or set spec.update.source of the Machine", ErrNoSource)
	}
	source, err := m.open(r.Source)
	if err != nil {
		return nil, update.Transfer{}, err
	}
	defer source.Close()
	chosen, err := m.choose(ctx, source, r.To, r.Options)
	if err != nil {
		return nil, update.Transfer{}, err
	}
	base, closer, err := m.Slots.Running()
	if err != nil {
		return nil, update.Transfer{}, err
	}
	defer closer.Close()
	return chosen, chosen.Root.Best(base), nil
}

// fetch brings the release onto the disk, checked, with its kernel image hidden
// from the boot loader. What was fetched before is not fetched again.
func (m *Manager) fetch(ctx context.Context, u *Upgrade) error {
	source, err := m.open(u.Source)
	if err != nil {
		return err
	}
	defer source.Close()
	r, err := m.choose(ctx, source, u.To, u.Options)
	if err != nil {
		return err
	}
	m.tries = 0
	err = m.certainly(func(s *state) {
		if c := s.Current; c != nil && c.Number == u.Number {
			c.To, c.Manifest, c.Stage, c.Message = r.Version, r, Downloading, ""
		}
	})
	if err != nil {
		return err
	}
	u.To = r.Version
	m.Host.Note("UpgradeBegun", fmt.Sprintf("from %s to %s, from %s", u.From, u.To, u.Source), false)
	image, err := m.fetchImage(ctx, source, r)
	if err != nil {
		return err
	}
	verity, err := m.Slots.CheckImage(r, image)
	if err != nil {
		return err
	}
	// From here the idle slot is no version to go back to.
	if err := m.Slots.Clear(); err != nil {
		return err
	}
	if err := m.fetchRoot(ctx, source, r); err != nil {
		return err
	}
	if err := m.Slots.CheckRoot(ctx, verity); err != nil {
		return err
	}
	if err := m.enter(u.Number, Verified, ""); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := m.Slots.Stage(r.Version, image); err != nil {
		return err
	}
	_ = os.Remove(m.imageFile()) // it is on the ESP now; what stays is overwritten next time
	return m.enter(u.Number, Written, "")
}

func (m *Manager) imageFile() string { return filepath.Join(m.Dir, "image") }

// fetchImage returns the kernel image of a release.
func (m *Manager) fetchImage(ctx context.Context, source update.Source, r *update.Manifest) ([]byte, error) {
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(m.imageFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err == nil && int64(fs.Bavail)*int64(fs.Frsize) < r.Image.Size+dataReserve {
		return nil, fmt.Errorf("%w: its kernel image has %d bytes, the data partition has %d free: see oscine info", slot.ErrNoRoom, r.Image.Size, int64(fs.Bavail)*int64(fs.Frsize))
	}
	if err := f.Truncate(r.Image.Size); err != nil {
		return nil, err
	}
	if err := source.Fetch(ctx, &r.Image, m.imageBase(), f, m.report); err != nil {
		return nil, fmt.Errorf("fetch the kernel image: %w", err)
	}
	image := make([]byte, r.Image.Size)
	_, err = io.ReadFull(io.NewSectionReader(f, 0, r.Image.Size), image)
	return image, err
}

// imageBase is the running kernel image, as a base for deltas; nil where it cannot
// be read.
func (m *Manager) imageBase() *update.Base {
	image, err := m.Slots.RunningImage()
	if err != nil {
		return nil
	}
	return &update.Base{ID: update.Digest(sha256.Sum256(image)).String(), Size: int64(len(image)), Data: bytes.NewReader(image)}
}

func (m *Manager) fetchRoot(ctx context.Context, source update.Source, r *update.Manifest) error {
	idle, err := m.Slots.Idle()
	if err != nil {
		return err
	}
	defer idle.Close()
	base, closer, err := m.Slots.Running()
	if err != nil {
		return err
	}
	defer closer.Close()
	if err := source.Fetch(ctx, &r.Root, base, idle, m.report); err != nil {
		return fmt.Errorf("fetch the root: %w", err)
	}
	return nil
}

func (m *Manager) report(p update.Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.progress = &p
}

// blocked says why the machine must not restart now, "" where it may.
func (m *Manager) blocked(u *Upgrade) string {
	now := m.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state.Hold != nil {
		return "upgrades are held: " + m.state.Hold.Reason
	}
	if u.Options.DownloadOnly {
		return "only the download was asked for: go on with oscine upgrade"
	}
	if now.Before(u.Options.NotBefore) {
		return "until " + u.Options.NotBefore.UTC().Format("2006-01-02 15:04:05 MST")
	}
	windows := u.Options.Windows
	if windows == nil && !u.Options.Anytime {
		windows = m.Machine.Windows
	}
	open := len(windows) == 0
	for i := range windows {
		open = open || windows[i].Contains(now)
	}
	if !open {
		return fmt.Sprintf("for a window: %v, in UTC", windows)
	}
	if locks := m.state.locks(now); len(locks) > 0 && !u.Options.OverrideLocks {
		return fmt.Sprintf("lock %s is held by %s: %s", locks[0].Name, locks[0].By, locks[0].Reason)
	}
	return ""
}

// await waits for an upgrade's time, and then has the machine restart into it.
func (m *Manager) await(ctx context.Context, u *Upgrade) time.Duration {
	if why := m.blocked(u); why != "" {
		m.say(u.Number, "waits: "+why)
		return tick
	}
	before := m.Host.Before()
	err := m.certainly(func(s *state) {
		if c := s.Current; c != nil && c.Number == u.Number {
			c.Stage, c.Message, c.Changed, c.Before, c.BootID = Rebooting, "stopping what runs", m.Now(), &before, m.BootID
		}
	})
	if err != nil {
		m.say(u.Number, err.Error())
		return tick
	}
	_ = os.Remove(m.BootLog) // of an earlier trial
	m.Host.Note("UpgradeRestarts", fmt.Sprintf("restarting into %s", u.To), false)
	return 0
}

// restart stops what runs, hands the new version to the boot loader and restarts
// the machine.
func (m *Manager) restart(ctx context.Context, u *Upgrade) time.Duration {
	if since := time.Since(m.asked); since < rebootPatience {
		return rebootPatience - since
	}
	m.asked = time.Now()
	m.Host.Drain(ctx)
	if err := m.Slots.Arm(u.To); err != nil {
		m.fail(u, Rebooting, err.Error(), false)
		// What was stopped starts with the next daemon.
		if err := m.Tell(release.Notification{Request: release.RequestReboot}); err != nil {
			m.Log.Error("upgrades: ask for a restart", "error", err)
		}
		return rebootPatience
	}
	if err := m.Tell(release.Notification{Request: release.RequestReboot}); err != nil {
		m.Log.Error("upgrades: ask for the restart", "error", err)
	}
	return rebootPatience
}
