package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/place"
)

// Errors that a caller can act on.
var (
	// ErrInvalid is returned for a request that can never succeed as it is.
	ErrInvalid = reconcile.ErrInvalid
	// ErrConflict is returned where the node's present state forbids the call.
	ErrConflict = reconcile.ErrConflict
	// ErrNotFound is returned for an object that was never applied or is deleted.
	ErrNotFound = reconcile.ErrNotFound
)

// ApplyOptions are the choices of an Apply.
type ApplyOptions struct {
	DryRun   bool // tell, but change nothing
	Displace bool // work of stricter classes than batch may be stopped to make room
}

// Result is what Apply did with one object.
type Result struct {
	reconcile.Result
	Placement *place.Placement // of its first instance; nil where it has none
	Displaced []Displaced      // in order of kind and name
	Unplaced  error            // why it has no placement; nil where it needs none now
}

// Displaced is an object that loses its part of the machine to another.
type Displaced struct {
	object.Key
	Why string
}

// Apply stores objects, all or none, gives them their part of the machine, and
// starts to bring them up. It returns before they run; see Get and Watch. What does not
// fit is stored and waits for room. With DryRun nothing is changed, and the results are
// those that the same call would have without it. Objects that contradict the node's
// state are refused with ErrInvalid.
func (n *Node) Apply(ctx context.Context, objects []object.Object, o ApplyOptions) ([]Result, error) {
	results := make([]Result, len(objects))
	_, err := n.loop.Apply(ctx, objects, o.DryRun, func(there []object.Object) error { return n.checkApply(objects, there) }, func(done []reconcile.Result) {
		for i := range done {
			results[i].Result = done[i]
		}
		if !o.DryRun {
			ctx = context.WithoutCancel(ctx) // they are stored: what was begun is finished
		}
		n.allot(ctx, objects, results, o)
	})
	if err != nil {
		return nil, err
	}
	if !o.DryRun {
		n.secretsChanged(objects, results)
	}
	return results, nil
}

// allot places those of the objects that take a part of the machine, and adds
// to their results what became of that.
func (n *Node) allot(ctx context.Context, objects []object.Object, results []Result, o ApplyOptions) {
	var desired []allocate.Desired
	instances := make([]int, len(objects)) // of each that are placed, by themselves
	for i, obj := range objects {
		if m, ok := obj.(*object.Model); ok && (m.OnDemand() || m.Spec.Ensemble != nil) {
			continue // it is placed when it is loaded, an ensemble never
		}
		if _, ok := obj.(object.Placeable); ok {
			for _, one := range object.Instances(obj) {
				desired = append(desired, allocate.Desired{Object: one, Changed: results[i].Action != reconcile.Unchanged})
				instances[i]++
			}
		}
	}
	if len(desired) == 0 {
		return
	}
	outcomes := n.box.Allot(ctx, desired, o.Displace, o.DryRun)
	for i, placed := range instances {
		if placed == 0 {
			continue
		}
		of := outcomes[:placed]
		outcomes = outcomes[placed:]
		results[i].Placement, results[i].Unplaced, results[i].Displaced = of[0].Placement, unplacedInstance(of), n.displacedBy(of)
	}
}

// displacedBy lists the objects that lose their part of the machine, each once, also
// where several of its instances do.
func (n *Node) displacedBy(outcomes []allocate.Outcome) (list []Displaced) {
	for _, outcome := range outcomes {
		for _, id := range slices.Sorted(maps.Keys(outcome.Displaced)) {
			key, err := n.config.Kinds.ParseID(id)
			if err != nil { // work of the node's own
				key = object.Key{Name: id}
			}
			if !slices.ContainsFunc(list, func(d Displaced) bool { return d.Key == key }) {
				list = append(list, Displaced{key, outcome.Displaced[id].Error()})
			}
		}
	}
	slices.SortFunc(list, func(a, b Displaced) int { return strings.Compare(a.String(), b.String()) })
	return list
}

// unplacedInstance says that not all instances of an object have a placement.
func unplacedInstance(outcomes []allocate.Outcome) error {
	placed, why, first := 0, error(nil), 0
	for i, o := range outcomes {
		switch {
		case o.Placement != nil:
			placed++
		case why == nil:
			why, first = o.Err, i+1
		}
	}
	if why == nil || len(outcomes) == 1 {
		return why
	}
	return fmt.Errorf("%d of %d instances are placed; instance %d waits: %w", placed, len(outcomes), first, why)
}

// checkApply finds what only the node can know: host ports that another
// workload or the node itself holds, models that were not uploaded or are served by
// a name that is taken, and values of secrets that are not there to be kept.
func (n *Node) checkApply(objects, there []object.Object) error {
	var problems []string
	held := n.heldPorts(objects, there)
	problems = append(problems, checkServed(objects, there)...)
	for _, obj := range objects {
		row, ok := n.config.Kinds.Find(obj.Key().Kind)
		if !ok || !row.Stored() {
			reason := "this node does not know the kind"
			if ok {
				reason = row.NotApplied
			}
			problems = append(problems, fmt.Sprintf("%s: %s", obj.Key(), reason))
			continue
		}
		if publisher, ok := obj.(object.Publisher); ok {
			for i, p := range publisher.Ports() {
				port := fmt.Sprintf("%s/%d", p.Protocol, p.HostPort)
				if holder, taken := held[port]; taken && holder != obj.Key().String() {
					problems = append(problems, fmt.Sprintf("%s: spec.ports[%d].hostPort: %s is taken by %s", obj.Key(), i, port, holder))
				}
				held[port] = obj.Key().String()
			}
		}
		if secret, ok := obj.(*object.Secret); ok {
			problems = append(problems, checkSecret(secret, objects, there)...)
		}
		m, ok := obj.(*object.Model)
		if ok && m.Spec.Ensemble != nil {
			if err := n.checkEnsemble(m, objects); err != nil {
				problems = append(problems, fmt.Sprintf("%s: spec.ensemble: %v", obj.Key(), err))
			}
		} else if ok {
			if err := n.files.CheckSource(m.Spec.Source); err != nil {
				problems = append(problems, fmt.Sprintf("%s: spec.source: %v", obj.Key(), err))
			}
		}
	}
	if len(problems) > 0 {
		return fmt.Errorf("%w:\n%s", ErrInvalid, strings.Join(problems, "\n"))
	}
	return nil
}

// checkServed finds Models that would be served by a name and version that another
// one has, and versions of a name that would get more than all requests.
func checkServed(objects, there []object.Object) (problems []string) {
	models := map[object.Key]*object.Model{}
	for _, obj := range slices.Concat(there, objects) {
		if m, ok := obj.(*object.Model); ok {
			models[m.Key()] = m
		}
	}
	for _, obj := range objects {
		m, ok := obj.(*object.Model)
		if !ok {
			continue
		}
		sum, others := 0, []string{}
		for _, key := range slices.SortedFunc(maps.Keys(models), func(a, b object.Key) int { return strings.Compare(a.Name, b.Name) }) {
			other := models[key]
			if other.ServedName() != m.ServedName() {
				continue
			}
			if key != m.Key() && other.Spec.Version == m.Spec.Version {
				problems = append(problems, fmt.Sprintf("%s: spec.version: version %s of %s is %s: choose another spec.version or spec.servedAs", m.Key(), m.Spec.Version, m.ServedName(), key))
			}
			if t := other.Spec.Traffic; t != nil {
				sum += *t
				others = append(others, fmt.Sprintf("%s %d", key, *t))
			}
		}
		if m.Spec.Traffic != nil && sum > 100 {
			problems = append(problems, fmt.Sprintf("%s: spec.traffic: the versions of %s would get %d percent (%s), at most 100 are there: lower one first, or apply them together", m.Key(), m.ServedName(), sum, strings.Join(others, ", ")))
		}
	}
	return problems
}

// heldPorts maps published ports to their holders, leaving out the objects
// that are about to change.
func (n *Node) heldPorts(except, there []object.Object) map[string]string {
	held := map[string]string{fmt.Sprintf("tcp/%d", n.machine.Spec.API.Port): "the node's API"}
	if open := n.machine.Spec.Inference; open != nil {
		held[fmt.Sprintf("tcp/%d", open.Port)] = "the node's inference endpoint"
	}
	if open := n.machine.Spec.Metrics; open != nil {
		held[fmt.Sprintf("tcp/%d", open.Port)] = "the node's metrics endpoint"
	}
	changing := map[object.Key]bool{}
	for _, obj := range except {
		changing[obj.Key()] = true
	}
	for _, obj := range there {
		publisher, ok := obj.(object.Publisher)
		if !ok || changing[obj.Key()] {
			continue
		}
		for _, p := range publisher.Ports() {
			held[fmt.Sprintf("%s/%d", p.Protocol, p.HostPort)] = obj.Key().String()
		}
	}
	return held
}

// wantedPorts are the ports of every object that has a network, by ID.
func (n *Node) wantedPorts() map[string][]object.Port {
	ports := map[string][]object.Port{}
	for _, key := range n.loop.Keys() {
		if row, ok := n.config.Kinds.Find(key.Kind); ok {
			if _, ok := row.New().(object.Publisher); ok {
				ports[key.ID()] = nil // its manifest may not be readable
			}
		}
	}
	for _, obj := range n.loop.Objects() {
		if p, ok := obj.(object.Publisher); ok {
			ports[p.Key().ID()] = p.Ports()
		}
	}
	return ports
}

// has reports whether there is an object with that ID, one that is being deleted
// included, or an instance of one.
func (n *Node) has(id string) bool {
	key, instance, err := n.config.Kinds.ParseInstance(id)
	if err != nil || !slices.Contains(n.loop.Keys(), key) {
		return false
	}
	for _, obj := range n.loop.Objects() {
		if obj.Key() == key {
			return instance < max(len(object.Instances(obj)), 1)
		}
	}
	return true // its manifest may not be readable
}

// vacated forgets the placements of an object that was stopped and has given back all
// it held.
func (n *Node) vacated(obj object.Object) error {
	var errs []error
	for _, one := range object.Instances(obj) {
		_, err := n.placer.Yield(n.box.Store, one)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// displace has objects placed again whose placement, by ID, is gone. Of an instance
// after the first it ends the worker: when it starts again it is placed.
func (n *Node) displace(names map[string]error) {
	for id, why := range names {
		key, instance, err := n.config.Kinds.ParseInstance(id)
		if err != nil || instance == 0 {
			continue
		}
		n.log.Warn("the placement of an instance was lost; placing again", "object", key.String(), "instance", instance+1, "reason", why)
		n.note(key, reconcile.ReasonDisplaced, fmt.Sprintf("instance %d: %v", instance+1, why))
		if err := n.runtime.Kill(n.life, id, container.Abort); err != nil && !errors.Is(err, container.ErrNotFound) && !errors.Is(err, container.ErrNotRunning) {
			n.log.Warn("end a displaced instance", "id", id, "error", err)
		}
	}
	n.loop.Displace(names)
}

// Get returns the objects of a kind and name, all for empty ones, in order of
// kind and name. It returns ErrNotFound where a name was given and is not
// there.
func (n *Node) Get(kind object.Kind, name string) ([]object.State, error) {
	if err := n.checkKind(kind); err != nil {
		return nil, err
	}
	states := n.loop.Get(kind, name)
	if name != "" && len(states) == 0 {
		return nil, fmt.Errorf("%s %q: %w", cmp.Or(string(kind), n.config.Kinds.Stored().Words()), name, ErrNotFound)
	}
	return states, nil
}

// checkKind refuses a kind of which the node has no objects; "" stands for all.
func (n *Node) checkKind(kind object.Kind) error {
	if kind == "" {
		return nil
	}
	if err := n.config.Kinds.CheckKind(kind); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// Delete stops an object, waits until everything it held is free, and forgets
// it. Volumes stay. Where that fails it is tried again later, and by another
// Delete.
func (n *Node) Delete(ctx context.Context, key object.Key) error {
	if err := n.checkKind(key.Kind); err != nil {
		return err
	}
	return n.loop.Delete(ctx, key, func(there []object.Object) error { return checkDelete(key, there) })
}

// Stop has what runs of an object stopped and its part of the machine given
// back. It stays so until Start, Restart or Apply, also across restarts of the
// node. It returns before that is done; see Watch. Volumes and the log stay.
func (n *Node) Stop(ctx context.Context, key object.Key) error {
	return n.command(ctx, key, n.loop.StopObject)
}

// Start has an object run that was stopped or has ended.
func (n *Node) Start(ctx context.Context, key object.Key) error {
	return n.command(ctx, key, n.loop.StartObject)
}

// Restart has what runs of an object stopped and started again now.
func (n *Node) Restart(ctx context.Context, key object.Key) error {
	return n.command(ctx, key, n.loop.RestartObject)
}

func (n *Node) command(ctx context.Context, key object.Key, do func(context.Context, object.Key) error) error {
	if err := n.checkKind(key.Kind); err != nil {
		return err
	}
	if row, ok := n.config.Kinds.Find(key.Kind); ok && row.Passive {
		return fmt.Errorf("%w: nothing runs for a %s", ErrInvalid, key.Kind)
	}
	return do(ctx, key)
}

// Watch calls f with every matching object now and after each change, until
// ctx ends or f fails. Events are "set" and "deleted"; quick changes of one
// object may come as one.
func (n *Node) Watch(ctx context.Context, kind object.Kind, name string, f func(event string, state object.State) error) error {
	if err := n.checkKind(kind); err != nil {
		return err
	}
	return n.loop.Watch(ctx, kind, name, f)
}
