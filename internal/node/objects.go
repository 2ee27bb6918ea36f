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
	Kind   object.Kind
	Name   string
	Action Action
}

// ObjectState is an object as it is meant and as it is.
type ObjectState struct {
	Kind     object.Kind
	Name     string
	Manifest object.Object // nil in the event of a deletion
	Status   any           // JSON-encodable, by kind
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
		r := Result{obj.ObjectKind(), obj.ObjectName(), Created}
		if c, ok := n.controllers[keyOf(obj)]; ok {
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
	if c, ok := n.controllers[keyOf(obj)]; ok {
		c.update(obj)
	} else {
		n.startController(obj)
	}
	n.changes.publish(keyOf(obj))
}

// checkApply finds what only the node can know: host ports that another
// workload or the node itself holds, and models that were not uploaded.
func (n *Node) checkApply(objects []object.Object) error {
	var problems []string
	held := n.heldPorts(objects)
	for _, obj := range objects {
		if c, ok := n.controllers[keyOf(obj)]; ok && c.deleting {
			problems = append(problems, keyOf(obj).String()+": is being deleted: apply it again in a moment")
		}
		switch obj := obj.(type) {
		case *object.Machine:
			problems = append(problems, "Machine/"+obj.ObjectName()+": a configured node's Machine is not changed by apply in this release: write it anew with oscine config generate and boot the node with it")
		case *object.Workload:
			for i, p := range obj.Spec.Ports {
				port := fmt.Sprintf("%s/%d", p.Protocol, p.HostPort)
				if holder, taken := held[port]; taken && holder != keyOf(obj).String() {
					problems = append(problems, fmt.Sprintf("%s: spec.ports[%d].hostPort: %s is taken by %s", keyOf(obj), i, port, holder))
				}
				held[port] = keyOf(obj).String()
			}
		case *object.Model:
			if err := n.checkModelSource(obj); err != nil {
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
	changing := map[objectKey]bool{}
	for _, obj := range except {
		changing[keyOf(obj)] = true
	}
	for key, c := range n.controllers {
		w, ok := c.current().(*object.Workload)
		if !ok || changing[key] {
			continue
		}
		for _, p := range w.Spec.Ports {
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
func (n *Node) Get(kind object.Kind, name string) ([]ObjectState, error) {
	if kind != "" && !slices.Contains(storedKinds, kind) {
		return nil, fmt.Errorf("%w: no kind is called %q: use Workload or Model", ErrInvalid, kind)
	}
	n.mu.Lock()
	var states []ObjectState
	for key, c := range n.controllers {
		if (kind == "" || key.kind == kind) && (name == "" || key.name == name) {
			states = append(states, stateOf(key, c))
		}
	}
	n.mu.Unlock()
	if name != "" && len(states) == 0 {
		return nil, fmt.Errorf("%s %q: %w", cmp.Or(string(kind), "workload or model"), name, ErrNotFound)
	}
	slices.SortFunc(states, func(a, b ObjectState) int {
		return strings.Compare(string(a.Kind)+"/"+a.Name, string(b.Kind)+"/"+b.Name)
	})
	return states, nil
}

func stateOf(key objectKey, c controller) ObjectState {
	return ObjectState{Kind: key.kind, Name: key.name, Manifest: c.current(), Status: c.status()}
}

// Delete stops an object, waits until everything it held is free, and forgets
// it. Volumes stay.
func (n *Node) Delete(ctx context.Context, kind object.Kind, name string) error {
	key := objectKey{kind, name}
	n.mu.Lock()
	c, ok := n.controllers[key]
	again := ok && c.deleting
	if ok {
		c.deleting = true
	}
	n.mu.Unlock()
	if !ok {
		return fmt.Errorf("%s %q: %w", kind, name, ErrNotFound)
	}
	if again {
		return fmt.Errorf("%w: %s is being deleted already", ErrConflict, key)
	}
	if err := n.store.delete(kind, name); err != nil {
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
func (n *Node) Watch(ctx context.Context, kind object.Kind, name string, f func(event string, state ObjectState) error) error {
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
			if (kind != "" && key.kind != kind) || (name != "" && key.name != name) {
				continue
			}
			n.mu.Lock()
			c, ok := n.controllers[key]
			n.mu.Unlock()
			event, state := "deleted", ObjectState{Kind: key.kind, Name: key.name}
			if ok {
				event, state = "set", stateOf(key, c)
			}
			if err := f(event, state); err != nil {
				return err
			}
		}
	}
}
