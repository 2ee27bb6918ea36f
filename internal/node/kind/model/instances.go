package model

import (
	"context"
	"errors"

	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
)

// at is a work as that of one instance.
func (w *work) at(i int) *work {
	one := *w
	if one.instance = i; i > 0 {
		one.placement = nil
		if i <= len(w.more) {
			one.placement = w.more[i-1]
		}
	}
	return &one
}

// own is the key of the instance's container.
func (w *work) own() object.Key { return object.InstanceKey(w.key, w.instance) }

// placeFirst places the first instance of a model. Where there is no room for it, the
// others, which do not run, give back their places until there is, the last one first:
// it may have lost its own, and without it the model is not served.
func (c *controller) placeFirst(ctx context.Context, m *object.Model) (*allocate.Placement, error) {
	placed, err := c.o.Sandbox.Place(ctx, m)
	for i := m.Workers() - 1; i > 0 && reconcile.IsRefused(err); i-- {
		one := m.Instance(i)
		if !c.o.Sandbox.Placer.Holds(one.Key().ID()) {
			continue
		}
		if c.live == nil { // what an earlier daemon left running serves nobody
			if e := c.o.Sandbox.Stop(ctx, one.Key(), 0); e != nil {
				return nil, errors.Join(err, e)
			}
		}
		if e := c.o.Sandbox.GiveUp(ctx, one); e != nil {
			return nil, errors.Join(err, e)
		}
		placed, err = c.o.Sandbox.Place(ctx, m)
	}
	return placed, err
}

// placeMore places the instances after the first, as many as fit. The others are
// placed when there is room: their start is tried again until then.
func (c *controller) placeMore(ctx context.Context, w *work) error {
	w.more = make([]*allocate.Placement, max(w.model.Workers()-1, 0))
	for i := range w.more {
		placed, err := c.o.Sandbox.Place(ctx, w.model.Instance(i+1))
		if err != nil && !reconcile.IsRefused(err) {
			return err
		}
		w.more[i] = placed
	}
	return nil
}

// runs reports whether a worker of a model runs, as after a restart of the daemon.
func (c *controller) runs(ctx context.Context, m *object.Model) bool {
	for i := range m.Workers() {
		if c.o.Sandbox.Runs(ctx, object.InstanceKey(c.key, i)) {
			return true
		}
	}
	return false
}

// trim frees what the instances hold that a work has no more, for others to have.
func (c *controller) trim(w *work) error {
	if c.most <= w.model.Workers() {
		return nil
	}
	defer c.o.Sandbox.Freed()
	ctx := context.WithoutCancel(c.o.Life)
	for ; c.most > w.model.Workers(); c.most-- {
		i := c.most - 1
		if err := c.freeOne(ctx, i, c.o.Sandbox.Remove); err != nil {
			return err
		}
		if err := c.o.Sandbox.GiveUp(ctx, w.model.Instance(i)); err != nil {
			return err
		}
	}
	return nil
}

// note changes what is shown of an instance.
func (c *controller) note(i int, change func(*object.ModelInstance)) {
	c.set(func(*object.ModelStatus) {
		for len(c.instances) <= i {
			c.instances = append(c.instances, object.ModelInstance{})
		}
		change(&c.instances[i])
	})
}
