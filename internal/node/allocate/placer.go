package allocate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/inventory"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/place"
)

// Placer gives objects their part of the machine and remembers it in a Store,
// so that a restart arrives at the same placement. It is safe for concurrent
// use: a search runs on a copy of what is given out, so that neither those who
// look nor other searches wait for it.
type Placer struct {
	log *slog.Logger

	// state is what is given out. It is read without mu, and never changed in
	// place: who changes it, with mu held, puts another.
	state atomic.Pointer[place.State]

	mu  sync.Mutex
	cdi map[string]string // CDI names by device
	// yielded are the requests of objects that finished or were stopped and gave
	// back their part: their gang is not placed with them. It is put, not changed.
	yielded  map[string]place.Request
	searches map[*change]bool // under way
}

// NewPlacer places on the machine of a map, of which nothing is given out yet.
func NewPlacer(m *hardware.Machine, name string, log *slog.Logger) (*Placer, error) {
	for _, gap := range m.Gaps {
		log.Debug("hardware gap", "path", gap.Path, "reason", gap.Reason)
	}
	state, err := place.NewState(inventory.Machine(m, name))
	if err != nil {
		return nil, err
	}
	return newPlacer(log, state, cdiNames(m)), nil
}

func newPlacer(log *slog.Logger, state *place.State, cdi map[string]string) *Placer {
	p := &Placer{log: log, cdi: cdi, yielded: map[string]place.Request{}, searches: map[*change]bool{}}
	p.state.Store(state)
	return p
}

// edit changes what is given out by f, unless that fails.
func (p *Placer) edit(f func(*place.State) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.state.Load().Clone()
	err := f(next)
	if err == nil {
		p.state.Store(next)
	}
	return err
}

// Adopt gives out what is stored of an object's placement. One that no longer
// fits is reported and placed again when its controller starts.
func (p *Placer) Adopt(obj object.Object, stored json.RawMessage) {
	if stored == nil {
		return
	}
	var held place.Placement
	err := json.Unmarshal(stored, &held)
	if err == nil && held.Request.Name != obj.Key().ID() {
		err = fmt.Errorf("it is the placement of %q", held.Request.Name)
	}
	if err == nil {
		err = p.edit(func(state *place.State) error { return state.Adopt(held) })
	}
	if err != nil {
		p.log.Warn("a stored placement does not fit this machine any more; placing again", "object", obj.Key().ID(), "error", err)
	}
}

// Place returns the object's placement: the one it has where its request is
// unchanged, else a new one, stored before it is returned. Where nothing is
// free the smallest loss among batch work makes room, and a gang's members may
// have to move: who lost or changed their placement is returned by name with the
// reason, and has to be told.
func (p *Placer) Place(ctx context.Context, s Store, obj object.Object) (placed *Placement, displaced map[string]error, err error) {
	return p.place(ctx, s, obj, false)
}

// maxTries is how often a search is repeated because others changed what it
// started from; after that they wait for it once.
const maxTries = 3

// place is Place, which may take from stricter classes than batch where displace
// says so.
func (p *Placer) place(ctx context.Context, s Store, obj object.Object, displace bool) (placed *Placement, displaced map[string]error, err error) {
	req, err := requestOf(obj)
	if err != nil {
		return nil, nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.yielded[req.Name]; ok {
		p.yielded = maps.Clone(p.yielded)
		delete(p.yielded, req.Name)
	}
	for try := 1; ; try++ {
		base := p.state.Load()
		if held, had := base.Placement(req.Name); had && sameRequest(&held.Request, &req) {
			return p.placement(&held), nil, nil
		}
		c := &change{ctx: ctx, base: base, state: base.Clone(), yielded: p.yielded, displace: displace, moved: map[string]error{}}
		p.searches[c] = true
		if try <= maxTries {
			p.mu.Unlock()
		}
		err := c.search(s, obj, req)
		if try <= maxTries {
			p.mu.Lock()
		}
		delete(p.searches, c)
		if done, err := p.accept(c, s, err); err != nil {
			return nil, nil, err
		} else if done {
			given, _ := c.state.Placement(req.Name)
			return p.placement(&given), c.displaced(req.Name), nil
		}
	}
}

// accept makes what a search has found so, or reports that it has to be
// repeated. A refusal counts as an error where nothing has changed meanwhile.
// The caller holds p.mu.
func (p *Placer) accept(c *change, s Store, failed error) (done bool, err error) {
	same := p.state.Load() == c.base
	if failed != nil {
		if same || !Unsatisfied(failed) {
			return false, failed
		}
		return false, nil
	}
	if c.outdated {
		return false, nil
	}
	next, err := p.state.Load().Merge(c.base, c.state)
	if err != nil {
		return false, nil
	}
	if err := s.SetPlacements(c.placed); err != nil {
		return false, fmt.Errorf("store the placement: %w", err)
	}
	p.state.Store(next)
	return true, nil
}

// search places an object on the copy of what is given out.
func (c *change) search(s Store, obj object.Object, req place.Request) error {
	if gang := object.GangOf(obj); gang != nil {
		return c.placeGang(s, gang, req.Name)
	}
	if err := c.makeRoom(req); err != nil {
		return err
	}
	c.record([]object.Object{obj})
	return nil
}

// placement names the devices of what is held. The caller holds p.mu.
func (p *Placer) placement(held *place.Placement) *Placement {
	return &Placement{Placement: *held, Devices: p.cdiNames(held)}
}

// makeRoom places a request, taking from looser classes what it must. A refusal
// names whom it might take from if it were told to.
func (c *change) makeRoom(req place.Request) error {
	c.take(req.Name, nil)
	err := c.give(req)
	var refusal *place.Unsatisfied
	if !errors.As(err, &refusal) {
		return err
	}
	plan, planErr := c.state.Preempt(c.ctx, req, func(held *place.Request) bool { return !c.displace && held.Class != place.Batch })
	if planErr != nil {
		if wider, planErr := c.state.Preempt(c.ctx, req, nil); planErr == nil {
			refusal.Failures = append(refusal.Failures, place.Failure{
				Constraint: "class", Problem: "room can be made only by stopping " + c.withClasses(wider.Victims),
				Remedy: "apply it again with --displace",
			})
		}
		return err
	}
	for _, victim := range plan.Victims {
		c.take(victim, fmt.Errorf("%s of class %s needs its place", req.Name, req.Class))
	}
	return c.give(req)
}

// withClasses names placements with their classes.
func (c *change) withClasses(names []string) string {
	for i, name := range names {
		held, _ := c.state.Placement(name)
		names[i] = fmt.Sprintf("%s of class %s", name, held.Request.Class)
	}
	return strings.Join(names, ", ")
}

// change is a search for placements on a copy of what is given out. Where it
// fails, the copy is thrown away.
type change struct {
	ctx     context.Context
	base    *place.State // of which state is a copy
	state   *place.State
	yielded map[string]place.Request
	// displace says that stricter classes than batch may lose their placement.
	displace bool

	taken  []place.Placement
	given  []place.Placement
	moved  map[string]error // whose placement is gone or another, and why
	placed []Placed         // to be stored

	// outdated says that an object has given back its part for good, or for now,
	// since the search began: it may have been given one. Guarded by Placer.mu.
	outdated bool
}

// take releases a placement. A reason says that its owner has to be told.
func (c *change) take(name string, reason error) {
	old, had := c.state.Placement(name)
	if !had {
		return
	}
	c.taken = append(c.taken, old)
	c.state.Release(name)
	if reason != nil {
		c.moved[name] = reason
	}
}

func (c *change) give(reqs ...place.Request) error {
	given, err := c.state.PlaceAll(c.ctx, reqs)
	c.given = append(c.given, given...)
	return err
}

// record notes what was given, each under its object, to be stored.
func (c *change) record(objects []object.Object) {
	for _, given := range c.given {
		for _, obj := range objects {
			if obj.Key().ID() == given.Request.Name {
				c.placed = append(c.placed, Placed{obj, given})
			}
		}
	}
}

// displaced are those that moved, except for the caller's own.
func (c *change) displaced(asked string) map[string]error {
	delete(c.moved, asked)
	if len(c.moved) == 0 {
		return nil
	}
	return c.moved
}

// Shared are the CPUs that every placement without any of its own has now, by
// name.
func (p *Placer) Shared() map[string][]int {
	shared := map[string][]int{}
	for _, held := range p.state.Load().Placements() {
		if !held.Request.Exclusive {
			shared[held.Request.Name] = held.CPUs
		}
	}
	return shared
}

// Now brings a placement that is shown up to date: the CPUs of a shared one
// change as others come and go.
func (p *Placer) Now(id string, shown *object.PlacementStatus) *object.PlacementStatus {
	if shown == nil || shown.Exclusive {
		return shown
	}
	held, ok := p.state.Load().Placement(id)
	if !ok || held.Request.Exclusive {
		return shown
	}
	st := *shown
	st.CPUs = place.FormatCPUs(held.CPUs)
	return &st
}

// Holds reports whether an object has a part of the machine.
func (p *Placer) Holds(id string) bool {
	_, ok := p.state.Load().Placement(id)
	return ok
}

// Existing tells placement which partitions there are on the devices: those
// that no placement has are somebody else's.
func (p *Placer) Existing(m *hardware.Machine) {
	_ = p.edit(func(state *place.State) error { // it never fails
		for i := range m.Accelerators {
			state.Existing(m.Accelerators[i].ID, inventory.Partitions(&m.Accelerators[i]))
		}
		return nil
	})
}

// Release gives back an object's part of the machine. It reports whether there
// was any.
func (p *Placer) Release(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.yielded[id]; ok {
		p.yielded = maps.Clone(p.yielded)
		delete(p.yielded, id)
	}
	return p.release(id)
}

// release gives back a part. The caller holds p.mu.
func (p *Placer) release(id string) bool {
	for c := range p.searches {
		c.outdated = true
	}
	next := p.state.Load().Clone()
	if !next.Release(id) {
		return false
	}
	p.state.Store(next)
	return true
}

// Yield gives back the part of an object that has finished or was stopped, and
// stays so until it is placed again, and forgets it in the store. It reports
// whether it still had any.
func (p *Placer) Yield(s Store, obj object.Object) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	req, err := requestOf(obj)
	if err != nil {
		return false, err
	}
	p.yielded = maps.Clone(p.yielded)
	p.yielded[req.Name] = req
	return p.forget(s, obj)
}

// GiveUp gives back the part of an object that cannot start, and forgets it in the
// store. It reports whether there was any.
func (p *Placer) GiveUp(s Store, obj object.Object) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.forget(s, obj)
}

// forget gives back a part, here and in the store. The caller holds p.mu.
func (p *Placer) forget(s Store, obj object.Object) (bool, error) {
	had := p.release(obj.Key().ID())
	if err := s.ForgetPlacement(obj); err != nil {
		return had, fmt.Errorf("store that %s has no placement: %w", obj.Key().ID(), err)
	}
	return had, nil
}

// Lend places a request that is stored nowhere and displaces nobody, until
// Release.
func (p *Placer) Lend(ctx context.Context, req place.Request) (lent place.Placement, err error) {
	err = p.edit(func(state *place.State) error {
		lent, err = state.Place(ctx, req)
		return err
	})
	return lent, err
}

// LendTo is Lend for an object, with the devices that it gets.
func (p *Placer) LendTo(ctx context.Context, obj object.Object) (*Placement, error) {
	req, err := requestOf(obj)
	if err != nil {
		return nil, err
	}
	lent, err := p.Lend(ctx, req)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.placement(&lent), nil
}

// FitsWithout reports whether an object would get a part of the machine if others
// gave back theirs.
func (p *Placer) FitsWithout(ctx context.Context, obj object.Object, others []string) bool {
	return p.without(ctx, obj, func(name string) bool { return slices.Contains(others, name) }) == nil
}

// CheckFits returns why an object gets no part of the machine even if it is alone
// there, nil where it does.
func (p *Placer) CheckFits(ctx context.Context, obj object.Object) error {
	return p.without(ctx, obj, func(string) bool { return true })
}

// without tries to place an object on a copy without some others.
func (p *Placer) without(ctx context.Context, obj object.Object, others func(name string) bool) error {
	req, err := requestOf(obj)
	if err != nil {
		return err
	}
	state := p.state.Load().Clone()
	for _, held := range state.Placements() {
		if others(held.Request.Name) {
			state.Release(held.Request.Name)
		}
	}
	_, err = state.Place(ctx, req)
	return err
}

// Holders are the names of the placements that have a device.
func (p *Placer) Holders(device string) []string {
	var names []string
	for _, held := range p.state.Load().Placements() {
		for _, d := range held.Devices {
			if d.ID == device {
				names = append(names, held.Request.Name)
				break
			}
		}
	}
	return names
}

// Renew exchanges the machine under the placements and returns, by name, those
// that no longer fit it, with the reason.
func (p *Placer) Renew(m *hardware.Machine) (displaced map[string]error, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.state.Load()
	state, lost, err := old.Rebase(inventory.Machine(m, old.Machine().Name))
	if err != nil {
		return nil, err
	}
	displaced = map[string]error{}
	for _, l := range lost {
		displaced[l.Placement.Request.Name] = l.Why
	}
	p.state.Store(state)
	p.cdi = cdiNames(m)
	return displaced, nil
}

// cdiNames names the devices of a placement for the container runtime. The
// caller holds p.mu.
func (p *Placer) cdiNames(held *place.Placement) []string {
	var names []string
	for _, d := range held.Devices {
		if name, ok := p.cdi[d.ID]; ok {
			names = append(names, name)
		}
	}
	return names
}

// cdiNames maps accelerators to their CDI devices.
func cdiNames(m *hardware.Machine) map[string]string {
	names := map[string]string{}
	for _, spec := range hardware.CDI(m) {
		for _, d := range spec.Devices {
			names[d.Name] = spec.Kind + "=" + d.Name
		}
	}
	delete(names, "all")
	return names
}

var errMoved = errors.New("its gang was placed again to make room for all members, and its place is another")
