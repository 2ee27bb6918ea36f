package node

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"oscine.dev/oscine/internal/object"
)

// Action is what Apply did with an object.
type Action string

// The actions.
const (
	Created   Action = "created"
	Updated   Action = "updated"
	Unchanged Action = "unchanged"
)

// Result is what Apply did with one object.
type Result struct {
	object.Key
	Action Action
}

// Apply stores objects, all or none, and starts to make them so. It returns
// before they are; Get and Watch tell. With dryRun nothing is changed.
// Objects that contradict the node's state are refused with ErrInvalid.
func (n *Node) Apply(_ context.Context, objects []object.Object, dryRun bool) ([]Result, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.checkApply(objects); err != nil {
		return nil, err
	}
	var results []Result
	var changed []object.Object
	for _, obj := range objects {
		r := Result{obj.Key(), Created}
		if c, ok := n.controllers[obj.Key()]; ok {
			r.Action = Updated
			if sameObject(c.current(), obj) {
				r.Action = Unchanged
				if !dryRun {
					c.retry()
				}
			}
		}
		if r.Action != Unchanged {
			changed = append(changed, obj)
		}
		results = append(results, r)
	}
	if dryRun || len(changed) == 0 {
		return results, nil
	}
	if err := n.store.put(changed); err != nil {
		return nil, err
	}
	for _, obj := range changed {
		n.meant(obj)
	}
	return results, nil
}

// meant hands a stored object to its controller. The caller holds n.mu.
func (n *Node) meant(obj object.Object) {
	if c, ok := n.controllers[obj.Key()]; ok {
		c.update(obj)
	} else {
		n.startController(obj)
	}
	n.changes.publish(obj.Key())
}

// checkApply finds what only the node can know: host ports that another
// workload or the node itself holds, and models that were not uploaded.
func (n *Node) checkApply(objects []object.Object) error {
	var problems []string
	held := n.heldPorts(objects)
	for _, obj := range objects {
		if c, ok := n.controllers[obj.Key()]; ok && c.deleting {
			problems = append(problems, obj.Key().String()+": is being deleted: apply it again in a moment")
		}
		if row, ok := n.config.Kinds.Find(obj.Key().Kind); ok && !row.Stored() {
			problems = append(problems, fmt.Sprintf("%s: %s", obj.Key(), row.NotApplied))
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
		if m, ok := obj.(*object.Model); ok {
			if err := n.checkModelSource(m); err != nil {
				problems = append(problems, err.Error())
			}
		}
	}
	if len(problems) > 0 {
		return fmt.Errorf("%w:\n%s", ErrInvalid, strings.Join(problems, "\n"))
	}
	return nil
}

// heldPorts maps published ports to their holders, leaving out the objects
// that are about to change. The caller holds n.mu.
func (n *Node) heldPorts(except []object.Object) map[string]string {
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
	for key, c := range n.controllers {
		publisher, ok := c.current().(object.Publisher)
		if !ok || changing[key] {
			continue
		}
		for _, p := range publisher.Ports() {
			held[fmt.Sprintf("%s/%d", p.Protocol, p.HostPort)] = key.String()
		}
	}
	return held
}

func sameObject(a, b object.Object) bool {
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	return errA == nil && errB == nil && bytes.Equal(x, y)
}

// Get returns the objects of a kind and name, all for empty ones, in order of
// kind and name. It returns ErrNotFound where a name was given and is not
// there.
func (n *Node) Get(kind object.Kind, name string) ([]object.State, error) {
	if err := n.checkKind(kind); err != nil {
		return nil, err
	}
	n.mu.Lock()
	var states []object.State
	for key, c := range n.controllers {
		if (kind == "" || key.Kind == kind) && (name == "" || key.Name == name) {
			states = append(states, stateOf(key, c))
		}
	}
	n.mu.Unlock()
	if name != "" && len(states) == 0 {
		return nil, fmt.Errorf("%s %q: %w", cmp.Or(string(kind), n.config.Kinds.Stored().Words()), name, ErrNotFound)
	}
	slices.SortFunc(states, func(a, b object.State) int {
		return strings.Compare(a.String(), b.String())
	})
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

func stateOf(key object.Key, c controller) object.State {
	return object.State{Key: key, Object: c.current(), Status: c.status()}
}

// Delete stops an object, waits until everything it held is free, and forgets
// it. Volumes stay.
func (n *Node) Delete(ctx context.Context, key object.Key) error {
	if err := n.checkKind(key.Kind); err != nil {
		return err
	}
	n.mu.Lock()
	c, ok := n.controllers[key]
	again := ok && c.deleting
	if ok {
		c.deleting = true
	}
	n.mu.Unlock()
	if !ok {
		return fmt.Errorf("%s %q: %w", key.Kind, key.Name, ErrNotFound)
	}
	if again {
		return fmt.Errorf("%w: %s is being deleted already", ErrConflict, key)
	}
	if err := n.store.delete(key); err != nil {
		return err
	}
	// The client may leave; what was begun is finished all the same.
	if err := c.remove(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	n.mu.Lock()
	delete(n.controllers, key)
	for _, other := range n.controllers {
		other.retry() // there may be room for it now
	}
	n.mu.Unlock()
	n.changes.publish(key)
	return nil
}

// Watch calls f with every matching object now and after each change, until
// ctx ends or f fails. Events are "set" and "deleted"; quick changes of one
// object may come as one.
func (n *Node) Watch(ctx context.Context, kind object.Kind, name string, f func(event string, state object.State) error) error {
	changed := n.changes.subscribe()
	defer n.changes.unsubscribe(changed)
	states, err := n.Get(kind, "")
	if err != nil {
		return err
	}
	for _, s := range states {
		if name == "" || s.Name == name {
			if err := f("set", s); err != nil {
				return err
			}
		}
	}
	for {
		keys, err := changed.wait(ctx)
		if err != nil {
			return err
		}
		for _, key := range keys {
			if (kind != "" && key.Kind != kind) || (name != "" && key.Name != name) {
				continue
			}
			n.mu.Lock()
			c, ok := n.controllers[key]
			n.mu.Unlock()
			event, state := "deleted", object.State{Key: key}
			if ok {
				event, state = "set", stateOf(key, c)
			}
			if err := f(event, state); err != nil {
				return err
			}
		}
	}
}
