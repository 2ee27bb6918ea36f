package node

import (
	"context"
	"fmt"
	"io"
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

// How often packs are looked at without an event of the kernel, and how long the node
// waits before it tries again to fetch a damaged one.
const (
	damageInterval = 30 * time.Second
	firstRefetch   = 30 * time.Second
	lastRefetch    = time.Hour
)

// damage is what the node knows of damaged packs that are not good again.
type damage struct {
	changed chan struct{} // holds one token where packs are to be looked at

	mu    sync.Mutex
	packs map[string]*damagedPack // by name
}

type damagedPack struct {
	digest string
	next   time.Time // when it is fetched again
	wait   time.Duration
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

// of returns what is known of a damaged pack.
func (d *damage) of(p *pack.Info) *damagedPack {
	d.mu.Lock()
	defer d.mu.Unlock()
	known := d.packs[p.Name]
	if known == nil || known.digest != p.Digest {
		known = &damagedPack{digest: p.Digest, wait: firstRefetch}
		d.packs[p.Name] = known
	}
	return known
}

// repaired forgets that a pack was damaged, and returns the digest that it had; "" where
// it was not.
func (d *damage) repaired(name string) (digest string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if known := d.packs[name]; known != nil {
		digest = known.digest
	}
	delete(d.packs, name)
	return digest
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
		if p := &found[i]; p.Whole {
			n.notePack(reasonPackDamaged, &p.Info, fmt.Sprintf("a block of the pack %s did not have its hash when it was read; its file is whole now", p.Name))
			n.damage.of(&p.Info)
			n.packRepaired(&p.Info)
		}
	}
	packs, err := n.packs.List()
	if err != nil {
		n.log.Warn("damaged packs", "error", err)
	}
	for i := range packs {
		if p := &packs[i]; !p.Damaged.IsZero() {
			n.refetch(ctx, p)
		}
	}
}

// refetch tells that a pack is damaged, once, and fetches it again where its source is
// known and the last try was long enough ago.
func (n *Node) refetch(ctx context.Context, p *pack.Info) {
	known := n.damage.of(p)
	if known.next.IsZero() {
		n.notePack(reasonPackDamaged, p, fmt.Sprintf("the file of the pack %s is damaged: a block does not have its hash, and cannot be read; %s", p.Name, p.Repair()))
	} else if time.Now().Before(known.next) {
		return
	}
	known.next = time.Now().Add(known.wait)
	known.wait = min(2*known.wait, lastRefetch)
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
		n.notePack(reasonPackDamaged, p, fmt.Sprintf("the damaged pack %s cannot be fetched again: %v; the next try is in %s", p.Name, err, time.Until(known.next).Round(time.Second)))
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
	n.notePack(reasonPackRepaired, p, fmt.Sprintf("the pack %s is good again: what ran from the damaged one restarts", p.Name))
	for _, state := range n.usersOf(digest) {
		if phase := state.Status.Common().Phase; phase == object.Stopped || phase == object.Exited {
			continue
		}
		if err := n.loop.RestartObject(n.life, state.Key); err != nil {
			n.log.Warn("restart what ran from a damaged pack", "object", state.Key, "error", err)
		}
	}
}

// notePack records what happened to a pack, for each model that runs on it as well.
func (n *Node) notePack(reason string, p *pack.Info, message string) {
	warning := reason != reasonPackRepaired
	n.log.Warn(message, "digest", p.Digest)
	n.events.Add(Event{Reason: reason, Message: message, Warning: warning})
	for _, state := range n.usersOf(p.Digest) {
		n.events.Add(Event{Kind: state.Key.Kind, Name: state.Key.Name, Reason: reason, Message: message, Warning: warning})
	}
}

// usersOf are the models that run on the pack of a digest.
func (n *Node) usersOf(digest string) (users []object.State) {
	for _, state := range n.loop.Get(object.KindModel, "") {
		if st, ok := state.Status.(*object.ModelStatus); ok && st.Pack == digest {
			users = append(users, state)
		}
	}
	return users
}
