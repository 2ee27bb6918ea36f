package upgrade

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"oscine.dev/oscine/internal/release"
	"oscine.dev/oscine/internal/update/slot"
)

const (
	// markPatience is how long PID 1 may take to mark the slot good.
	markPatience = 2 * time.Minute
	// slotTries is how often the disk is read, a second apart.
	slotTries = 30
	// keptLines is how much of a failed boot's log is kept.
	keptLines = 30
	maxLine   = 400 // bytes
)

// settle finds out what became of an upgrade that an earlier daemon, or the boot
// before, was at.
func (m *Manager) settle(ctx context.Context) {
	u := m.current()
	if u == nil {
		m.lookForRot(ctx)
		return
	}
	slots, err := m.slots(ctx)
	if err != nil {
		m.Log.Error("upgrades: the slots", "error", err)
		if ctx.Err() == nil && m.Pending() {
			m.goBack(ctx, u, fmt.Errorf("the slots cannot be read: %w", err))
		}
		return
	}
	switch running := slots.Active.Version; {
	case u.wentTo(running):
		m.judge(ctx, u)
	case running != u.From:
		m.fail(u, u.Stage, fmt.Sprintf("the machine runs %s, which is neither the old nor the new version: somebody changed its disk", running), false)
	case u.Stage == Rebooting || u.Stage == Trial:
		m.wentBack(u, &slots)
	case u.Stage != Written && u.Stage != Armed:
		// The fetch goes on.
	case slots.Idle.Version == u.To && slots.Idle.Health == slot.Bad:
		m.wentBack(u, &slots) // it was started, although that was not recorded
	case slots.Idle.Version != u.To || slots.Idle.Health != slot.Staged && slots.Idle.Health != slot.Trial:
		if err := m.enter(u.Number, Downloading, "what was written is not there any more"); err != nil {
			m.Log.Error("upgrades", "error", err)
		}
	}
}

// lookForRot tells that the machine went back to an older version although the
// newer one had been found good: its slot has failed since. It is remembered as a
// version that failed, so that it is told once and not fetched again.
func (m *Manager) lookForRot(ctx context.Context) {
	m.mu.Lock()
	var last *Upgrade
	for _, u := range m.state.History {
		if u.Stage == Good {
			last = u
		}
	}
	m.mu.Unlock()
	if last == nil {
		return
	}
	slots, err := m.slots(ctx)
	if err != nil || slots.Idle.Version != last.To || slots.Idle.Health != slot.Bad {
		return
	}
	why := fmt.Sprintf("it was found good and has failed since, so the machine rolled back to %s: its slot %s may be damaged (see oscine logs init)", slots.Active.Version, slots.Idle.Slot)
	m.mu.Lock()
	if p := m.state.NoReturn; p.closes(slots.Active.Version) {
		why += "; " + p.String()
	}
	m.mu.Unlock()
	told := false
	m.change(func(s *state) {
		if _, told = s.Refused[last.To]; !told {
			s.refuse(last.To, why, m.Now())
		}
	})
	if !told {
		m.Host.Note("UpgradeReverted", last.To+": "+why, true)
	}
}

// slots reads the disk, which may need a moment after a boot.
func (m *Manager) slots(ctx context.Context) (slots slot.State, err error) {
	for range slotTries {
		if slots, err = m.Slots.State(); err == nil {
			return slots, nil
		}
		select {
		case <-ctx.Done():
			return slots, ctx.Err()
		case <-time.After(time.Second):
		}
	}
	return slots, err
}

// judge checks the new version, which runs, and keeps it or has PID 1 go back.
func (m *Manager) judge(ctx context.Context, u *Upgrade) {
	if m.Facts().Trial {
		if err := m.enter(u.Number, Trial, "being checked"); err != nil {
			m.Log.Warn("upgrades", "error", err) // the boot counter decides without it
		}
		began := m.Now()
		checks := append([]Check{m.clockCheck(u)}, m.Host.Checks(u.Before)...)
		err := pass(ctx, checks, cmp.Or(u.Options.GateDeadline, m.Machine.Gate.Deadline.Std()), func(what string) { m.say(u.Number, what) })
		if ctx.Err() != nil {
			return // the next daemon goes on
		}
		if err != nil {
			m.goBack(ctx, u, err)
			return
		}
		m.Log.Info("upgrade: all checks passed", "checks", len(checks), "took", m.Now().Sub(began))
		if err := m.markGood(ctx); err != nil {
			m.goBack(ctx, u, err)
			return
		}
	}
	m.settlePins() // before another upgrade can begin, after which they would not count
	m.change(func(s *state) {
		if s.Current == nil || s.Current.Number != u.Number {
			return
		}
		if r := s.Current.Manifest; r != nil && r.Floor != "" && (s.Floor == "" || release.CompareVersions(r.Floor, s.Floor) > 0) {
			s.Floor = r.Floor
		}
		if r := s.Current.Manifest; r != nil && r.Built.After(s.Built) {
			s.Built = r.Built
		}
		s.keepRelease(s.Current)
		if s.NoReturn.closes(u.To) {
			s.NoReturn = nil // it was forced
		}
		delete(s.Refused, u.To)
		s.end(Good, "", m.Now())
	})
	_ = os.Remove(m.BootLog)
	m.Host.Note("Upgraded", fmt.Sprintf("from %s to %s", u.From, u.To), false)
}

// clockCheck holds that the clock is not before the release was made.
func (m *Manager) clockCheck(u *Upgrade) Check {
	return Check{"clock", func(context.Context) error {
		if r := u.Manifest; r != nil && m.Now().Before(r.Built.Add(-24*time.Hour)) {
			return fmt.Errorf("it shows %s, before this release was made", m.Now().UTC().Format(time.RFC3339))
		}
		return nil
	}}
}

// markGood has PID 1 mark the slot and waits until it did.
func (m *Manager) markGood(ctx context.Context) error {
	if err := m.Tell(release.Notification{Trial: release.TrialGood}); err != nil {
		return fmt.Errorf("tell init that the version is good: %w", err)
	}
	deadline := time.Now().Add(markPatience)
	for !m.Facts().Good {
		if time.Now().After(deadline) {
			return fmt.Errorf("init did not mark the slot good within %s: see oscine logs init", markPatience)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// goBack has the machine restart into the version before, whose daemon ends the
// upgrade.
func (m *Manager) goBack(ctx context.Context, u *Upgrade, why error) {
	reason := "its checks: " + why.Error()
	m.Log.Error("upgrade: going back", "to", u.From, "reason", reason)
	m.Host.Note("UpgradeRollingBack", fmt.Sprintf("from %s to %s: %s", u.To, u.From, reason), true)
	m.change(func(s *state) {
		if s.Current != nil && s.Current.Number == u.Number {
			s.Current.Stage, s.Current.Message, s.Current.Changed = Trial, reason, m.Now()
		}
	})
	for ctx.Err() == nil {
		if err := m.Tell(release.Notification{Trial: release.TrialFailed, Status: why.Error()}); err != nil {
			m.Log.Error("upgrade: tell init to go back", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(rebootPatience):
			m.Log.Error("upgrade: init has not rolled back; is there a previous version?")
		}
	}
}

// wentBack ends an upgrade whose new version was started and is not running, or
// takes it up again where it never was.
func (m *Manager) wentBack(u *Upgrade, slots *slot.State) {
	started := u.BootID != m.BootID
	idle := slots.Idle
	boots, lines := readBootLog(m.BootLog)
	switch {
	case idle.Version == u.To && idle.Health == slot.Staged:
		// Power failed before the boot loader was told.
		m.once(u, Armed, "")
		return
	case !started:
		return // the restart is due still
	case idle.Version == u.To && idle.Health == slot.Trial && idle.Left == release.Tries && boots == 0:
		m.once(u, Armed, "the boot loader started another version: restarting again")
		return
	case idle.Health == slot.Empty && boots == 0 && u.Stage == Rebooting:
		m.once(u, Downloading, "what was written is not there any more, and was never started")
		return
	}
	u.Boots, u.Log = boots, lines
	reason := u.Message
	if u.Stage != Trial || !strings.HasPrefix(reason, "its checks: ") {
		reason = explain(boots, lines, idle)
	}
	m.fail(u, Trial, reason, true)
	_ = os.Remove(m.BootLog)
}

// once brings an upgrade whose version was never started back to a stage, a few
// times. That is not the version's fault, which is not remembered as failed.
func (m *Manager) once(u *Upgrade, stage Stage, message string) {
	if u.Missed >= maxMissed {
		m.fail(u, u.Stage, fmt.Sprintf("the machine restarted %d times without starting it: %s is not first in the boot loader's order, or the firmware starts something else", u.Missed+1, u.To), false)
		return
	}
	err := m.certainly(func(s *state) error {
		if c := s.Current; c != nil && c.Number == u.Number {
			c.Stage, c.Message, c.Changed, c.Missed = stage, message, m.Now(), c.Missed+1
		}
		return nil
	})
	if err != nil {
		m.Log.Error("upgrades", "error", err)
	}
}

// explain says why a version that was started does not run, from what its boots
// left.
func explain(boots int, lines []string, idle slot.Version) string {
	for i := len(lines) - 1; i >= 0; i-- {
		if _, why, ok := strings.Cut(lines[i], "fails its trial: "); ok {
			return why
		}
	}
	for i := len(lines) - 1; i >= 0; i-- {
		if _, why, ok := strings.Cut(lines[i], "cannot start the system: "); ok {
			return why
		}
	}
	if boots == 0 {
		return "it was started and did not get as far as its data partition: its kernel, its initramfs or its root failed (see the machine's console)"
	}
	return fmt.Sprintf("it was started %d times and ended without a log: its kernel crashed, or power failed", boots)
}

// readBootLog counts the boots that a log tells of, and returns its end.
func readBootLog(file string) (boots int, lines []string) {
	f, err := os.Open(file)
	if err != nil {
		return 0, nil
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, 2*release.MaxBootLog))
	if err != nil {
		return 0, nil
	}
	for line := range strings.Lines(string(raw)) {
		line = strings.ToValidUTF8(strings.TrimRight(line, "\n"), "?")
		if len(line) > maxLine {
			line = strings.ToValidUTF8(line[:maxLine], "") + "…"
		}
		if _, text, ok := strings.Cut(line, "] "); ok && strings.HasPrefix(text, release.BootLogAttempt) {
			boots++
		}
		lines = append(lines, line)
	}
	return boots, lines[max(0, len(lines)-keptLines):]
}
