package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path"
	"strings"
	"sync"
	"time"

	"oscine.dev/oscine/internal/disk"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
)

// Reasons of events about packs.
const (
	reasonPackDamaged  = "PackDamaged"
	reasonPackRepaired = "PackRepaired"
)

// How often packs are looked at without an event of the kernel, how long the node waits
// before it repairs the same pack once more, and after how long without damage it starts
// from the shortest wait.
const (
	damageInterval = 30 * time.Second
	firstRefetch   = 30 * time.Second
	lastRefetch    = time.Hour
	forgetDamage   = time.Hour
)

// damage is what the node knows of packs that are or were damaged.
type damage struct {
	changed chan struct{} // holds one token where packs are to be looked at

	mu    sync.Mutex
	packs map[string]*damagedPack // by name
}

type damagedPack struct {
	digest   string
	damaged  bool          // and not repaired yet
	whole    bool          // its file is intact: only what runs from it has to restart
	repaired time.Time     // when it was repaired last
	next     time.Time     // of the next repair, at the earliest
	wait     time.Duration // from that one to the next
}

func newDamage() *damage {
	return &damage{changed: make(chan struct{}, 1), packs: map[string]*damagedPack{}}
}

// wake has the packs looked at soon.
func (d *damage) wake() {
	select {
	case d.changed <- struct{}{}:
	default: // they will be
	}
}

// found notes that a pack is damaged, or was only read wrong, and reports whether that
// is new.
func (d *damage) found(p *pack.Info, whole bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	known := d.packs[p.Name]
	if known == nil || known.digest != p.Digest || !known.damaged && time.Since(known.repaired) > forgetDamage {
		known = &damagedPack{digest: p.Digest, wait: firstRefetch}
		d.packs[p.Name] = known
	}
	fresh := !known.damaged || known.whole != whole
	known.damaged, known.whole = true, whole
	return fresh
}

// due reports whether a damaged pack is to be made good now, or what runs from one that
// is whole is to start again, and when the next time is.
func (d *damage) due(name string, whole bool) (next time.Time, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	known := d.packs[name]
	if known == nil || !known.damaged || known.whole != whole || time.Now().Before(known.next) {
		return time.Time{}, false
	}
	known.next = time.Now().Add(known.wait)
	known.wait = min(2*known.wait, lastRefetch)
	return known.next, true
}

// repaired notes that a pack is good, and returns the digest that it had when it was
// damaged; "" where it was not. The wait stays: a disk may damage it again.
func (d *damage) repaired(name string) (digest string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	known := d.packs[name]
	if known == nil || !known.damaged {
		return ""
	}
	known.damaged, known.whole, known.repaired = false, false, time.Now()
	return known.digest
}

// watch calls look at first, and when there may be damage, until ctx ends.
func (d *damage) watch(ctx context.Context, events <-chan hardware.Event, look func()) {
	tick := time.NewTicker(damageInterval)
	defer tick.Stop()
	for {
		look()
		for due := false; !due; {
			select {
			case <-ctx.Done():
				return
			case e, ok := <-events:
				if !ok {
					events = nil
				}
				due = ok && mappingChanged(e)
			case <-d.changed:
				due = true
			case <-tick.C:
				due = true
			}
		}
	}
}

// mappingChanged reports whether an event tells of a mapping that changed: so the kernel
// announces a block that does not have its hash.
func mappingChanged(e hardware.Event) bool {
	return e.Subsystem == "block" && e.Action == "change" && strings.HasPrefix(path.Base(e.Path), "dm-")
}

// watchPacks looks for packs of which a block was read that does not have its hash,
// and makes them good where it can, until ctx ends.
func (n *Node) watchPacks(ctx context.Context) {
	events, err := hardware.ListenEvents(ctx)
	if err != nil {
		n.log.Info("damaged packs are noticed late", "error", err, "interval", damageInterval)
	}
	n.damage.watch(ctx, events, func() { n.checkPacks(ctx) })
}

// checkPacks tells of damaged packs and fetches those again whose source is known.
func (n *Node) checkPacks(ctx context.Context) {
	found, err := n.packs.FindDamage()
	if err != nil {
		n.log.Warn("damaged packs", "error", err)
	}
	for i := range found {
		if p := &found[i]; p.Next != "" {
			n.olderDamaged(&p.Info)
		} else if p.Whole && n.damage.found(&p.Info, true) {
			n.notePack(reasonPackDamaged, p.Name, p.Digest, fmt.Sprintf("a block of the pack %s did not have its hash when it was read; its file is whole now", p.Name))
		}
	}
	packs, err := n.packs.List()
	if err != nil {
		n.log.Warn("damaged packs", "error", err)
	}
	for i := range packs {
		if p := &packs[i]; !p.Damaged.IsZero() {
			n.refetch(ctx, p)
		} else if _, ok := n.damage.due(p.Name, true); ok {
			n.packRepaired(p)
		}
	}
}

// olderDamaged has what runs on an older version of a pack start again: a block of it was
// read that does not have its hash.
func (n *Node) olderDamaged(p *pack.Info) {
	message := fmt.Sprintf("a block of the pack %s %s, which is kept for what runs on it, did not have its hash when it was read: that restarts, on the newest version where the file is damaged", p.Name, p.Version)
	n.restart(n.notePack(reasonPackDamaged, p.Name, p.Digest, message))
}

// refetch tells that a pack is damaged, once, and fetches it again where its source is
// known and the last try was long enough ago.
func (n *Node) refetch(ctx context.Context, p *pack.Info) {
	if n.damage.found(p, false) {
		n.notePack(reasonPackDamaged, p.Name, p.Digest, fmt.Sprintf("the file of the pack %s is damaged: what it holds does not have its hash, or cannot be read; %s", p.Name, p.Repair()))
	}
	next, ok := n.damage.due(p.Name, false)
	if !ok {
		return
	}
	var err error
	switch {
	case p.Source != "":
		_, _, err = n.PullPack(ctx, p.Source, p.PlainHTTP, func(int64, int64) {})
	case p.Release != "":
		if err = n.stageAgain(ctx, p); err == nil {
			n.packInstalled(p)
		}
	}
	if err != nil && ctx.Err() == nil {
		n.notePack(reasonPackDamaged, p.Name, p.Digest, fmt.Sprintf("the damaged pack %s cannot be fetched again: %v; the next try is in %s", p.Name, err, time.Until(next).Round(time.Second)))
	}
}

// stageAgain fetches a pack of the running release.
func (n *Node) stageAgain(ctx context.Context, p *pack.Info) error {
	if err := n.disk.Room(); err != nil {
		return err
	}
	return n.packs.Stage(ctx, p.Release, p.Digest, func(have io.Reader, w io.Writer) error {
		return n.upgrades.FetchPack(ctx, p.Digest, have, disk.AskingTo(w, n.disk.Room))
	})
}

// packRepaired has what runs from a damaged pack start again, from the good one.
func (n *Node) packRepaired(p *pack.Info) {
	digest := n.damage.repaired(p.Name)
	if digest == "" {
		return
	}
	n.restart(n.notePack(reasonPackRepaired, p.Name, digest, fmt.Sprintf("the pack %s is good again: what ran from the damaged one restarts", p.Name)))
}

// restart starts again what runs of objects that a pack's damage hit.
func (n *Node) restart(users []object.State) {
	for _, state := range users {
		if phase := state.Status.Common().Phase; phase == object.Stopped || phase == object.Exited {
			continue
		}
		if err := n.loop.RestartObject(n.life, state.Key); err != nil {
			n.log.Warn("restart what ran from a damaged pack", "object", state.Key, "error", err)
		}
	}
}

// notePack records what happened to the pack of a name and digest, also for each of the
// objects that run on it, which it returns.
func (n *Node) notePack(reason, name, digest, message string) (users []object.State) {
	level, warning := slog.LevelWarn, reason != reasonPackRepaired
	if !warning {
		level = slog.LevelInfo
	}
	n.log.Log(n.life, level, message, "digest", digest)
	n.events.Add(Event{Reason: reason, Message: message, Warning: warning})
	users = usersOf(name, digest, n.loop.Get("", ""))
	for _, state := range users {
		n.events.Add(Event{Kind: state.Key.Kind, Name: state.Key.Name, Reason: reason, Message: message, Warning: warning})
	}
	return users
}
