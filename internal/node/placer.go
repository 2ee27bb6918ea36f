package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/inventory"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/place"
)

// sysRoot is where the live machine's sysfs and procfs hang.
const sysRoot = "/"

// placer gives objects their part of the machine and remembers it in the
// store, so that a restart arrives at the same placement.
type placer struct {
	log *slog.Logger

	mu    sync.Mutex
	state *place.State
	cdi   map[string]string // CDI names by device
}

// Placement is an object's part of the machine.
type Placement struct {
	place.Placement
	Devices []string // CDI names

	// What a container needs beside, where a device is shared; see shares.
	Env    []string
	Mounts []container.Mount
}

// PlacementStatus is a placement as it is shown to people.
type PlacementStatus struct {
	CPUs      string   `json:"cpus"`
	NUMANodes string   `json:"numaNodes,omitempty"`
	Exclusive bool     `json:"exclusive,omitempty"`
	Devices   []string `json:"devices,omitempty"`
	Sharing   []string `json:"sharing,omitempty"` // of devices that are not whole: how, and why so
	Reason    string   `json:"reason"`
	RunnerUp  string   `json:"runnerUp,omitempty"`
}

func newPlacer(ctx context.Context, drivers *drivers, log *slog.Logger) (*placer, error) {
	m, err := hardware.Discover(sysRoot)
	if err != nil {
		return nil, fmt.Errorf("read the machine's hardware: %w", err)
	}
	m = drivers.complete(ctx, m)
	for _, gap := range m.Gaps {
		log.Debug("hardware gap", "path", gap.Path, "reason", gap.Reason)
	}
	hostname, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("read the host name: %w", err)
	}
	state, err := place.NewState(inventory.Machine(m, hostname))
	if err != nil {
		return nil, err
	}
	return &placer{log: log, state: state, cdi: cdiNames(m)}, nil
}

// adopt gives out what a stored record says. One that no longer fits is
// reported and placed anew when its controller starts.
func (p *placer) adopt(rec record) {
	if rec.Placement == nil {
		return
	}
	var held place.Placement
	err := json.Unmarshal(rec.Placement, &held)
	if err == nil {
		p.mu.Lock()
		err = p.state.Adopt(held)
		p.mu.Unlock()
	}
	if err != nil {
		p.log.Warn("a stored placement does not fit this machine any more; placing anew", "object", keyOf(rec.Object).String(), "error", err)
	}
}

// place returns the object's placement: the one it has where its request is
// unchanged, else a new one, stored before it is returned. Where nothing is
// free the smallest loss among looser classes makes room; its names are
// returned with the reason.
func (p *placer) place(s *store, obj object.Object) (placed *Placement, displaced map[string]error, err error) {
	req, err := placeRequest(obj)
	if err != nil {
		return nil, nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old, had := p.state.Placement(req.Name)
	if had && sameRequest(&old.Request, &req) {
		return &Placement{Placement: old, Devices: p.cdiNames(&old)}, nil, nil
	}
	if gang := gangOf(obj); gang != nil {
		placed, err = p.placeGang(s, gang, req.Name)
		return placed, nil, err
	}
	p.state.Release(req.Name)
	given, displaced, err := p.makeRoom(req)
	if err != nil {
		if had {
			err = errors.Join(err, p.state.Adopt(old))
		}
		return nil, nil, err
	}
	if err := s.place(obj.ObjectKind(), obj.ObjectName(), given); err != nil {
		p.state.Release(req.Name)
		return nil, displaced, fmt.Errorf("store the placement: %w", err)
	}
	return &Placement{Placement: given, Devices: p.cdiNames(&given)}, displaced, nil
}

// eachShared calls f with the CPUs that every placement without any of its own
// has now. None changes meanwhile.
func (p *placer) eachShared(f func(name string, cpus []int)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, held := range p.state.Placements() {
		if !held.Request.Exclusive {
			f(held.Request.Name, held.CPUs)
		}
	}
}

// now brings a placement that is shown up to date: the CPUs of a shared one
// change as others come and go.
func (p *placer) now(key objectKey, shown *PlacementStatus) *PlacementStatus {
	if shown == nil || shown.Exclusive {
		return shown
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	held, ok := p.state.Placement(key.id())
	if !ok {
		return shown
	}
	st := *shown
	st.CPUs = place.FormatCPUs(held.CPUs)
	return &st
}

// makeRoom places a request, taking from looser classes what it must.
func (p *placer) makeRoom(req place.Request) (place.Placement, map[string]error, error) {
	given, err := p.state.Place(req)
	if !isUnsatisfied(err) {
		return given, nil, err
	}
	plan, planErr := p.state.Preempt(req)
	if planErr != nil {
		return place.Placement{}, nil, err
	}
	displaced := map[string]error{}
	for _, victim := range plan.Victims {
		p.state.Release(victim)
		displaced[victim] = fmt.Errorf("%s of class %s needs its place", req.Name, req.Class)
	}
	given, err = p.state.Place(req)
	return given, displaced, err
}

// cdiNames names the devices of a placement for the container runtime.
func (p *placer) cdiNames(held *place.Placement) []string {
	var names []string
	for _, d := range held.Devices {
		if name, ok := p.cdi[d.ID]; ok {
			names = append(names, name)
		}
	}
	return names
}

// existing tells placement which partitions there are on the devices: those
// that no placement has are somebody else's.
func (p *placer) existing(m *hardware.Machine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range m.Accelerators {
		p.state.Existing(m.Accelerators[i].ID, inventory.Partitions(&m.Accelerators[i]))
	}
}

func (p *placer) release(key objectKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Release(key.id())
}

func sameRequest(a, b *place.Request) bool {
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	return errA == nil && errB == nil && string(x) == string(y)
}

func isUnsatisfied(err error) bool {
	var u *place.Unsatisfied
	return errors.As(err, &u)
}

// placeRequest turns a manifest's resources into a request of the engine.
func placeRequest(obj object.Object) (place.Request, error) {
	switch obj := obj.(type) {
	case *object.Workload:
		return obj.Spec.Resources.Request(keyOf(obj).id(), obj.Spec.Class)
	case *object.Model:
		return obj.Spec.Resources.Request(keyOf(obj).id(), obj.Spec.Class)
	}
	return place.Request{}, fmt.Errorf("%w: a %s is not placed", ErrInvalid, obj.ObjectKind())
}

func (p *Placement) status() *PlacementStatus {
	st := &PlacementStatus{
		CPUs: place.FormatCPUs(p.CPUs), NUMANodes: place.FormatCPUs(p.NUMANodes),
		Exclusive: p.Request.Exclusive, Reason: p.Reason,
	}
	for _, d := range p.Placement.Devices {
		st.Devices = append(st.Devices, d.ID)
		if !d.Fraction.Whole() {
			st.Sharing = append(st.Sharing, fmt.Sprintf("%s by %s: %s", d.ID, d.Sharing, d.Why))
		}
	}
	if r := p.RunnerUp; r != nil {
		st.RunnerUp = fmt.Sprintf("CPUs %s: %s", place.FormatCPUs(r.CPUs), r.Why)
	}
	return st
}

// defaultPIDs bounds the processes and threads of an object that names none.
const defaultPIDs = 1024

// limits is what the container runtime has the kernel enforce of a placement.
// The CPUs of a shared one change with its neighbours and are the isolator's;
// its share is a weight, and a quota only where the manifest asks for one.
func (p *Placement) limits(r *object.Resources) container.Limits {
	quota, _ := r.CPULimit.MilliValue() // checked with the manifest
	l := container.Limits{
		MemoryNodes: place.FormatCPUs(p.NUMANodes), MemoryBytes: p.Request.Memory,
		MilliCPU: quota, PIDs: int64(r.PIDs),
	}
	if p.Request.Exclusive {
		l.CPUs = place.FormatCPUs(p.CPUs)
	}
	if l.PIDs == 0 {
		l.PIDs = defaultPIDs
	}
	return l
}
