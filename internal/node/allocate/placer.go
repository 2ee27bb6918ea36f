package allocate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
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
// use.
type Placer struct {
	log *slog.Logger

	// shared holds, for readers, the CPUs of placements without any of their own,
	// by name: nobody who looks waits for a search or for the disk.
	shared atomic.Pointer[map[string]string]

	mu    sync.Mutex
	state *place.State
	cdi   map[string]string // CDI names by device
	// yielded are the requests of objects that have finished and gave back
	// their part: their gang is not placed with them.
	yielded map[string]place.Request
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
	return &Placer{log: log, state: state, cdi: cdiNames(m), yielded: map[string]place.Request{}}, nil
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
		p.mu.Lock()
		err = p.state.Adopt(held)
		p.changed()
		p.mu.Unlock()
	}
	if err != nil {
		p.log.Warn("a stored placement does not fit this machine any more; placing again", "object", obj.Key().ID(), "error", err)
	}
}

// Place returns the object's placement: the one it has where its request is
// unchanged, else a new one, stored before it is returned. Where nothing is
// free the smallest loss among batch work makes room, and a gang's members may
// have to move: who lost or changed their placement is returned by name with the
// reason, on an error too, and has to be told.
func (p *Placer) Place(ctx context.Context, s Store, obj object.Object) (placed *Placement, displaced map[string]error, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.changed()
	return p.place(ctx, s, obj, false)
}

// place is Place, which may take from stricter classes than batch where displace
// says so. The caller holds p.mu.
func (p *Placer) place(ctx context.Context, s Store, obj object.Object, displace bool) (placed *Placement, displaced map[string]error, err error) {
	req, err := requestOf(obj)
	if err != nil {
		return nil, nil, err
	}
	delete(p.yielded, req.Name)
	old, had := p.state.Placement(req.Name)
	if had && sameRequest(&old.Request, &req) {
		return p.placement(&old), nil, nil
	}
	c := &change{ctx: ctx, state: p.state, displace: displace, moved: map[string]error{}}
	if gang := object.GangOf(obj); gang != nil {
		err = p.placeGang(c, s, gang, req.Name)
	} else if err = p.makeRoom(c, req); err == nil {
		err = c.store(s, []object.Object{obj})
	}
	if err != nil {
		return nil, c.undo(), err
	}
	given, _ := p.state.Placement(req.Name)
	return p.placement(&given), c.displaced(req.Name), nil
}

// placement names the devices of what is held. The caller holds p.mu.
func (p *Placer) placement(held *place.Placement) *Placement {
	return &Placement{Placement: *held, Devices: p.cdiNames(held)}
}

// makeRoom places a request, taking from looser classes what it must. A refusal
// names whom it might take from if it were told to.
func (p *Placer) makeRoom(c *change, req place.Request) error {
	c.take(req.Name, nil)
	err := c.give(req)
	var refusal *place.Unsatisfied
	if !errors.As(err, &refusal) {
		return err
	}
	plan, planErr := p.state.Preempt(c.ctx, req, func(held *place.Request) bool { return !c.displace && held.Class != place.Batch })
	if planErr != nil {
		if wider, planErr := p.state.Preempt(c.ctx, req, nil); planErr == nil {
			refusal.Failures = append(refusal.Failures, place.Failure{
				Constraint: "class", Problem: "room can be made only by stopping " + p.withClasses(wider.Victims),
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
func (p *Placer) withClasses(names []string) string {
	for i, name := range names {
		held, _ := p.state.Placement(name)
		names[i] = fmt.Sprintf("%s of class %s", name, held.Request.Class)
	}
	return strings.Join(names, ", ")
}

// change is a set of placements that were taken away and given, to be undone
// as a whole where one of its steps fails.
type change struct {
	ctx   context.Context
	state *place.State
	taken []place.Placement
	given []place.Placement
	moved map[string]error // whose placement is gone or another, and why
	// displace says that stricter classes than batch may lose their placement.
	displace bool
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

// store records what was given, each under its object.
func (c *change) store(s Store, objects []object.Object) error {
	var placed []Placed
	for _, given := range c.given {
		for _, obj := range objects {
			if obj.Key().ID() == given.Request.Name {
				placed = append(placed, Placed{obj, given})
			}
		}
	}
	if err := s.SetPlacements(placed); err != nil {
		return fmt.Errorf("store the placement: %w", err)
	}
	return nil
}

// displaced are those that moved, except for the caller's own.
func (c *change) displaced(asked string) map[string]error {
	delete(c.moved, asked)
	if len(c.moved) == 0 {
		return nil
	}
	return c.moved
}

// undo puts back what was. It returns who could not get their place back.
func (c *change) undo() map[string]error {
	for _, g := range c.given {
		c.state.Release(g.Request.Name)
	}
	lost := map[string]error{}
	for _, old := range c.taken {
		if err := c.state.Adopt(old); err != nil {
			lost[old.Request.Name] = err
		}
	}
	if len(lost) == 0 {
		return nil
	}
	return lost
}

// EachShared calls f with the CPUs that every placement without any of its own
// has now. None changes meanwhile.
func (p *Placer) EachShared(f func(name string, cpus []int)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, held := range p.state.Placements() {
		if !held.Request.Exclusive {
			f(held.Request.Name, held.CPUs)
		}
	}
}

// Now brings a placement that is shown up to date: the CPUs of a shared one
// change as others come and go. It does not wait for a placement under way.
func (p *Placer) Now(id string, shown *object.PlacementStatus) *object.PlacementStatus {
	shared := p.shared.Load()
	if shown == nil || shown.Exclusive || shared == nil {
		return shown
	}
	cpus, ok := (*shared)[id]
	if !ok {
		return shown
	}
	st := *shown
	st.CPUs = cpus
	return &st
}

// changed shows to readers what has changed. The caller holds p.mu.
func (p *Placer) changed() {
	shared := map[string]string{}
	for _, held := range p.state.Placements() {
		if !held.Request.Exclusive {
			shared[held.Request.Name] = place.FormatCPUs(held.CPUs)
		}
	}
	p.shared.Store(&shared)
}

// Existing tells placement which partitions there are on the devices: those
// that no placement has are somebody else's.
func (p *Placer) Existing(m *hardware.Machine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range m.Accelerators {
		p.state.Existing(m.Accelerators[i].ID, inventory.Partitions(&m.Accelerators[i]))
	}
}

// Release gives back an object's part of the machine. It reports whether there
// was any.
func (p *Placer) Release(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.changed()
	delete(p.yielded, id)
	return p.state.Release(id)
}

// Yield gives back the part of an object that has finished and stays so until
// it is placed again, and forgets it in the store. It reports whether there was
// any.
func (p *Placer) Yield(s Store, obj object.Object) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.changed()
	req, err := requestOf(obj)
	if err != nil {
		return false, err
	}
	p.yielded[req.Name] = req
	if !p.state.Release(req.Name) {
		return false, nil
	}
	if err := s.ForgetPlacement(obj); err != nil {
		return true, fmt.Errorf("store that %s has no placement: %w", req.Name, err)
	}
	return true, nil
}

// Lend places a request that is stored nowhere and displaces nobody, until
// Release.
func (p *Placer) Lend(ctx context.Context, req place.Request) (place.Placement, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.changed()
	return p.state.Place(ctx, req)
}

// Holders are the names of the placements that have a device.
func (p *Placer) Holders(device string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for _, held := range p.state.Placements() {
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
	defer p.changed()
	state, lost, err := p.state.Rebase(inventory.Machine(m, p.state.Machine().Name))
	if err != nil {
		return nil, err
	}
	displaced = map[string]error{}
	for _, l := range lost {
		displaced[l.Placement.Request.Name] = l.Why
	}
	p.state, p.cdi = state, cdiNames(m)
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
