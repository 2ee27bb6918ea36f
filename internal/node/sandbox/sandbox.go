package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
)

// Runtime runs containers; see container.Runtime.
type Runtime interface {
	Start(ctx context.Context, spec container.Spec) error
	Stop(ctx context.Context, id string, grace time.Duration) error
	Kill(ctx context.Context, id string, signal syscall.Signal) error
	Delete(ctx context.Context, id string) error
	Clear(ctx context.Context, id string) error
	Status(ctx context.Context, id string) (container.Status, error)
	Wait(ctx context.Context, id string) (container.Status, error)
	Exec(ctx context.Context, id string, e container.Exec) (int, error)
	Layer(ctx context.Context, id string) (string, error)
}

// Network gives containers their addresses; see network.Bridge.
type Network interface {
	Admit(id string, admitted bool)
	Attach(ctx context.Context, id string, ports []object.Port) (netns string, addr netip.Addr, err error)
	Detach(id string) error
	Reconcile(ctx context.Context, active map[string][]object.Port) error
}

// Isolator tells the kernel what was promised; see isolate.Isolator.
type Isolator interface {
	Admit(isolate.Reservation) error
	Prepare(isolate.Spec) error
	Apply(id string, pid int) error
	Adopt(id string, pid int) error
	SetCPUs(id string, cpus hardware.Set) error
	Status(id string) (object.IsolationStatus, error)
	Release(id string) error
}

// Shares divides devices; see allocate.Shares.
type Shares interface {
	Prepare(ctx context.Context, id string, p *allocate.Placement, stop func() error) error
	Release(ctx context.Context, id string)
}

// Options is what a Sandbox works with; all are needed.
type Options struct {
	Placer   *allocate.Placer
	Store    allocate.Store
	Shares   Shares
	Network  Network
	Isolator Isolator
	Runtime  Runtime
	Log      *slog.Logger
	// Displace tells objects, by their IDs, that their placement is gone.
	Displace func(map[string]error)
	// Freed is called after an object has given back its part of the machine
	// and stays: there may be room for others now.
	Freed func()
	// MakeRoom frees a part of the machine that an object, which was refused one,
	// could have with others like it, and reports whether it has; nil: there is none.
	MakeRoom func(context.Context, object.Placeable) bool
}

// Sandbox starts and stops what objects run. It is safe for concurrent use, by
// one caller for each object.
type Sandbox struct {
	Options
	attaching sync.RWMutex // held for writing while the network is compared with what is wanted
	telling   sync.Mutex   // held while CPUs are written, so that the newest are written last
}

// New returns a Sandbox.
func New(o Options) *Sandbox { return &Sandbox{Options: o} }

// Place gives an object its part of the machine. A refusal that stands until
// the manifest or the machine changes is marked by reconcile.Refused.
func (s *Sandbox) Place(ctx context.Context, obj object.Placeable) (*allocate.Placement, error) {
	if err := s.admit(obj); err != nil {
		return nil, errors.Join(err, s.GiveUp(ctx, obj))
	}
	placement, displaced, err := s.Placer.Place(ctx, s.Store, obj)
	for allocate.Unsatisfied(err) && s.MakeRoom != nil && s.MakeRoom(ctx, obj) {
		placement, displaced, err = s.Placer.Place(ctx, s.Store, obj)
	}
	s.Displace(displaced)
	if err != nil {
		err = refused(err)
		if reconcile.IsRefused(err) { // else what it has is still its own
			err = errors.Join(err, s.GiveUp(ctx, obj))
		}
		return nil, err
	}
	s.UpdateCPUs()
	return placement, nil
}

// CheckFits refuses an object that has no room even if it is alone on the machine.
func (s *Sandbox) CheckFits(ctx context.Context, obj object.Placeable) error {
	return refused(s.Placer.CheckFits(ctx, obj))
}

// Lend gives an object a part of the machine that is stored nowhere, for what runs
// for a while: it takes from nobody. Remove gives it back.
func (s *Sandbox) Lend(ctx context.Context, obj object.Placeable) (*allocate.Placement, error) {
	if err := s.admit(obj); err != nil {
		return nil, err
	}
	placement, err := s.Placer.LendTo(ctx, obj)
	if err == nil {
		s.UpdateCPUs()
	}
	return placement, err
}

// GiveUp gives back what an object holds that cannot start as it is, so that
// others can have it. One that runs keeps all.
func (s *Sandbox) GiveUp(ctx context.Context, obj object.Object) error {
	ctx = context.WithoutCancel(ctx)
	id := obj.Key().ID()
	now, err := s.Runtime.Status(ctx, id)
	if err == nil && now.State == container.Running {
		return nil
	}
	s.Shares.Release(ctx, id)
	err = ignoring(s.Isolator.Release(id), isolate.ErrUnknown)
	had, e := s.Placer.GiveUp(s.Store, obj)
	if had {
		s.UpdateCPUs()
		s.Freed()
	}
	return errors.Join(err, e)
}

// Allot places objects before they are started, so that a caller learns what
// becomes of them; see allocate.Placer.Allot. With dryRun it only tells. What is
// not placed by it is placed, or refused, by Place.
func (s *Sandbox) Allot(ctx context.Context, desired []allocate.Desired, displace, dryRun bool) []allocate.Outcome {
	outcomes := make([]allocate.Outcome, len(desired))
	var admitted []allocate.Desired
	var at []int
	for i, w := range desired {
		if outcomes[i].Err = s.admit(w.Object); outcomes[i].Err == nil {
			admitted, at = append(admitted, w), append(at, i)
		}
	}
	allot := s.Placer.Allot
	if dryRun {
		allot = s.Placer.Preview
	}
	for i, outcome := range allot(ctx, s.Store, admitted, displace) {
		outcomes[at[i]] = outcome
		if !dryRun {
			s.Displace(outcome.Displaced)
		}
	}
	if !dryRun {
		s.UpdateCPUs()
	}
	return outcomes
}

// admit refuses an object whose deadline the node cannot keep.
func (s *Sandbox) admit(obj object.Object) error {
	p, ok := obj.(object.Placeable)
	if !ok || p.Resources().Deadline == nil {
		return nil
	}
	if err := s.Isolator.Admit(*reservation(p.Resources().Deadline)); err != nil {
		return refused(fmt.Errorf("%w: shorten spec.resources.deadline.runtime or lengthen its period and deadline", err))
	}
	return nil
}

// Attach gives an object its network; nodeAPI opens the node's API to it.
func (s *Sandbox) Attach(ctx context.Context, key object.Key, ports []object.Port, nodeAPI bool) (netns string, addr netip.Addr, err error) {
	s.attaching.RLock()
	defer s.attaching.RUnlock()
	s.Network.Admit(key.ID(), nodeAPI)
	return s.Network.Attach(ctx, key.ID(), ports)
}

// RepairNetwork compares the network with what the wanted objects need. No
// object is attached between the list of them and the removal of what is not on
// it.
func (s *Sandbox) RepairNetwork(ctx context.Context, wanted func() map[string][]object.Port) error {
	s.attaching.Lock()
	defer s.attaching.Unlock()
	return s.Network.Reconcile(ctx, wanted())
}

// Run is what Start starts.
type Run struct {
	Object    object.Placeable
	Placement *allocate.Placement
	// Spec is the container except for what follows from the object and its
	// placement: ID, host name, labels, limits, cgroup, devices.
	Spec container.Spec
	// Grace is how long what runs of the object by another Spec gets to end.
	Grace time.Duration
	// KeepMemory protects its memory from reclaim.
	KeepMemory bool
}

// Start runs a container on an object's placement: its devices are divided, the
// promises are set up in the kernel before it exists, and what needs its process
// is set before that runs its program. One that runs already by the same spec
// goes on; another is stopped before.
func (s *Sandbox) Start(ctx context.Context, r Run) (container.Status, error) {
	key := r.Object.Key()
	err := s.Shares.Prepare(ctx, key.ID(), r.Placement, func() error { return s.Stop(ctx, key, r.Grace) })
	if err != nil {
		return container.Status{}, refused(err)
	}
	r.complete()
	promise := r.promise()
	err = s.startIsolated(ctx, promise, r.Spec)
	if errors.Is(err, container.ErrRunning) { // by an earlier manifest or placement
		if err = s.Runtime.Stop(ctx, key.ID(), r.Grace); err == nil {
			err = s.startIsolated(ctx, promise, r.Spec)
		}
	}
	if err != nil {
		return container.Status{}, refused(fmt.Errorf("start: %w", err))
	}
	return s.Runtime.Status(ctx, key.ID())
}

func (s *Sandbox) startIsolated(ctx context.Context, promise isolate.Spec, spec container.Spec) error {
	if err := s.Isolator.Prepare(promise); err != nil {
		return err
	}
	s.UpdateCPUs() // others may have come or gone since it was placed
	created := spec.Created
	spec.Created = func(ctx context.Context, pid int) error {
		if created != nil {
			if err := created(ctx, pid); err != nil {
				return err
			}
		}
		return s.Isolator.Apply(promise.ID, pid)
	}
	if err := s.Runtime.Start(ctx, spec); err != nil {
		return err
	}
	now, err := s.Runtime.Status(ctx, promise.ID)
	if err != nil || now.PID == 0 {
		return err
	}
	return s.Isolator.Adopt(promise.ID, now.PID)
}

// Runs reports whether an object's container runs.
func (s *Sandbox) Runs(ctx context.Context, key object.Key) bool {
	now, err := s.Runtime.Status(ctx, key.ID())
	return err == nil && now.State == container.Running
}

// Stop stops an object's container; one that is not there is stopped.
func (s *Sandbox) Stop(ctx context.Context, key object.Key, grace time.Duration) error {
	return ignoring(s.Runtime.Stop(ctx, key.ID(), grace), container.ErrNotFound)
}

// Finish gives back the part of the machine of an object that has ended and
// stays so. Its container and its log stay.
func (s *Sandbox) Finish(ctx context.Context, obj object.Placeable) error {
	id := obj.Key().ID()
	s.Shares.Release(context.WithoutCancel(ctx), id) // made again where it starts again
	err := s.Isolator.Release(id)
	freed, e := s.Placer.Yield(s.Store, obj)
	if freed {
		s.UpdateCPUs()
		s.Freed()
	}
	return errors.Join(err, e)
}

// Remove stops an object and frees all that it holds. It may be repeated.
func (s *Sandbox) Remove(ctx context.Context, key object.Key, grace time.Duration) error {
	return s.free(ctx, key, grace, s.Runtime.Delete)
}

// Halt is Remove for an object that is to be started again: its log stays.
func (s *Sandbox) Halt(ctx context.Context, key object.Key, grace time.Duration) error {
	return s.free(ctx, key, grace, s.Runtime.Clear)
}

func (s *Sandbox) free(ctx context.Context, key object.Key, grace time.Duration, remove func(context.Context, string) error) error {
	id := key.ID()
	err := s.Stop(ctx, key, grace)
	err = errors.Join(err, ignoring(remove(ctx, id), container.ErrNotFound))
	if err != nil {
		return err // what runs keeps its network, devices and part of the machine
	}
	err = errors.Join(s.Network.Detach(id), s.Isolator.Release(id))
	s.Shares.Release(ctx, id)
	s.Placer.Release(id)
	s.UpdateCPUs()
	return err
}

// UpdateCPUs tells the kernel where those that share CPUs run now that others
// have taken or given back theirs.
func (s *Sandbox) UpdateCPUs() {
	s.telling.Lock()
	defer s.telling.Unlock()
	for id, cpus := range s.Placer.Shared() { // a later change is followed by another call
		err := s.Isolator.SetCPUs(id, hardware.NewSet(cpus...))
		if err != nil && !errors.Is(err, isolate.ErrUnknown) { // unknown: it has not started yet
			s.Log.Warn("isolation", "id", id, "error", err)
		}
	}
}

// Isolation is what an object was promised and what it gets, nil before it
// starts.
func (s *Sandbox) Isolation(key object.Key) *object.IsolationStatus {
	st, err := s.Isolator.Status(key.ID())
	if errors.Is(err, isolate.ErrUnknown) {
		return nil
	}
	return &st
}

// refused marks refusals that stand.
func refused(err error) error {
	if allocate.Unsatisfied(err) || errors.Is(err, isolate.ErrOverCommitted) || errors.Is(err, isolate.ErrNoHousekeeping) {
		return reconcile.Refused(err)
	}
	return err
}

func ignoring(err, fine error) error {
	if errors.Is(err, fine) {
		return nil
	}
	return err
}
