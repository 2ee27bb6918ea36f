package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

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
		return m.await(u)
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

// errMoved is returned by an edit of an upgrade that is elsewhere by now.
var errMoved = errors.New("the upgrade went on or ended")

func (m *Manager) again() bool {
	m.tries++
	return m.tries < sourceTries
}

// enter brings an upgrade to a stage, on the disk before it returns.
func (m *Manager) enter(number int, stage Stage, message string) error {
	m.Log.Info("upgrade", "number", number, "stage", string(stage), "message", message)
	return m.certainly(func(s *state) error {
		if u := s.Current; u != nil && u.Number == number {
			u.Stage, u.Message, u.Changed = stage, message, m.Now()
		}
		return nil
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
		s.Current.FailedStage, s.Current.Log, s.Current.Boots = at, u.Log, u.Boots
		s.end(Failed, reason, m.Now())
		if remember {
			s.refuse(u.To, reason, m.Now())
		}
	})
	m.Log.Error("upgrade failed", "number", u.Number, "to", u.To, "stage", string(at), "reason", reason)
	m.Host.Note("UpgradeFailed", fmt.Sprintf("to %s, at stage %s: %s", u.To, at, reason), true)
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
	m.settlePins()
	if m.Cache != nil {
		m.Cache.Trim()
	}
	pause := m.repair(ctx) // before an upgrade may begin
	return min(pause, m.follow(ctx))
}

// follow does what the policy wants, and returns when to look again.
func (m *Manager) follow(ctx context.Context) time.Duration {
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

// repairEvery is how often the ESP is compared with its copies.
const repairEvery = 24 * time.Hour

// repair has the ESP repaired once the running version was found good, and then
// now and then. It returns when to look again.
func (m *Manager) repair(ctx context.Context) time.Duration {
	if since := time.Since(m.repaired); !m.repaired.IsZero() && since < repairEvery {
		return repairEvery - since
	}
	if !m.Facts().Good {
		return tick
	}
	m.repaired = time.Now()
	paths, err := m.Slots.Repair(ctx, m.Copies)
	for _, path := range paths {
		m.Log.Warn("the ESP was repaired", "file", path)
		m.Host.Note("ESPRepaired", path+" was missing or damaged, and was written again", true)
	}
	if err != nil && ctx.Err() == nil {
		m.Log.Error("repair the ESP", "error", err)
		m.Host.Note("ESPDamaged", err.Error(), true)
	}
	if err == nil {
		m.replaceLoader()
	}
	return repairEvery
}

// replaceLoader takes the boot loader to that of the running version, by way of a
// start that tries it.
func (m *Manager) replaceLoader() {
	step, err := m.Slots.ReplaceLoader(m.Firmware, m.Copies.Files)
	if err != nil {
		m.Log.Warn("the boot loader stays as it is", "error", err)
		return
	}
	if step == m.loader {
		return
	}
	m.loader = step
	m.Log.Info("boot loader", "step", string(step))
	switch step {
	case slot.LoaderStaged:
		m.Host.Note("BootLoaderStaged", "the next start of the machine tries the boot loader of "+m.Running(), false)
	case slot.LoaderReplaced:
		m.Host.Note("BootLoaderReplaced", "the machine was started by the boot loader of "+m.Running()+", which is kept", false)
	case slot.LoaderRefused:
		m.Host.Note("BootLoaderRefused", "the firmware did not start the boot loader of "+m.Running()+": the one before stays, until a release brings another", true)
	}
}

// blocked says why the machine must not restart now for the current upgrade, ""
// where it may.
func (m *Manager) blocked(s *state, now time.Time) string {
	u := s.Current
	if s.Hold != nil {
		return "upgrades are held by " + s.Hold.whose()
	}
	if s.Pin != "" && u.To != s.Pin {
		return "the version is pinned to " + s.Pin
	}
	if p := s.NoReturn; !u.Options.Force && p.closes(u.To) {
		return p.String() + ": cancel the upgrade, or begin it again with --force"
	}
	if u.Options.DownloadOnly {
		return "only the download was requested: run oscine upgrade to continue"
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
		return fmt.Sprintf("for a window (UTC): %v", windows)
	}
	if locks := s.locks(now); len(locks) > 0 && !u.Options.OverrideLocks {
		return fmt.Sprintf("lock %s is held by %s", locks[0].Name, locks[0].whose())
	}
	return ""
}

// await waits for an upgrade's time, and then has the machine restart into it.
// Nothing that holds it back can come between the look and the decision.
func (m *Manager) await(u *Upgrade) time.Duration {
	before := m.Host.Before()
	err := m.certainly(func(s *state) error {
		c := s.Current
		if c == nil || c.Number != u.Number || c.Stage != Armed {
			return errMoved
		}
		if why := m.blocked(s, m.Now()); why != "" {
			return errors.New("waits: " + why)
		}
		c.Stage, c.Message, c.Changed, c.BootID = Rebooting, "stopping what runs", m.Now(), m.BootID
		if c.Before == nil { // an earlier try's is the better one: it is from a boot that was long up
			c.Before = &before
		}
		return nil
	})
	if errors.Is(err, errMoved) {
		return 0
	}
	if err != nil {
		m.say(u.Number, err.Error())
		return tick
	}
	_ = os.Remove(m.BootLog) // of an earlier trial
	m.Host.Note("UpgradeRebooting", fmt.Sprintf("restarting into %s", u.To), false)
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
