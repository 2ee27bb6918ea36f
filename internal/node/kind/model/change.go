package model

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"

	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
)

// guest is the kind of a worker that runs for a while beside the one in the
// model's own place. It is no kind of objects: what a crash leaves is removed as
// nobody's.
const guest object.Kind = "Guest"

func (c *controller) besides() object.Key { return object.Key{Kind: guest, Name: c.key.Name} }

// as is a model as what has the name of a key, without what needs no other
// worker.
func as(m *object.Model, key object.Key) *object.Model {
	copied := *m
	copied.Kind, copied.Metadata.Name = key.Kind, key.Name
	copied.Spec.Traffic, copied.Spec.Shadow = nil, false
	return &copied
}

// change takes what is served to another manifest. Where that one cannot be
// served the earlier one goes on, and status and events say why.
func (c *controller) change(ctx context.Context, m *object.Model) error {
	from := c.live.model
	if c.live.key == c.key && reflect.DeepEqual(as(m, c.key).Spec, as(from, c.key).Spec) {
		if err := c.o.Server.Route(c.key.Name, m.Spec.Traffic, m.Spec.Shadow); err != nil {
			return err
		}
		routed := *c.live
		routed.model = m
		c.serves(&routed)
		return nil
	}
	w, err := c.prepare(ctx, m)
	if reconcile.IsRefused(err) {
		return err // it has lost its place
	}
	if err == nil {
		c.set(func(st *object.ModelStatus) { st.Update = &object.ModelUpdate{Phase: object.Starting} })
		w.unsure = from.OnDemand()
		c.report.Phase(object.Running, fmt.Sprintf("version %s is loading, version %s answers until it is ready", m.Spec.Version, from.Spec.Version))
		err = c.replace(ctx, w)
	}
	switch {
	case err == nil:
		return errors.Join(c.o.Packs.Moved(c.key.String(), w.engine.Digest), c.trim(w))
	case ctx.Err() != nil:
		return ctx.Err()
	case c.live == nil || !c.answers():
		return err
	}
	if c.live.key != c.key { // a guest answers: it gets the place
		if e := c.settle(ctx); e != nil {
			return errors.Join(err, e)
		}
	}
	if e := c.giveUpIdle(ctx); e != nil {
		return errors.Join(err, e)
	}
	c.notServed(err)
	return nil
}

// notServed tells why the manifest before is served still.
func (c *controller) notServed(why error) {
	c.set(func(st *object.ModelStatus) {
		st.Update = &object.ModelUpdate{Phase: object.Failed, Message: why.Error()}
	})
	c.report.Event(reconcile.ReasonFailed, fmt.Sprintf("the new manifest is not served: %v; the previous one still is", why))
}

// replace has a worker take over in the model's own place: by way of another one
// beside it, so that there is one that answers at any time, or, without room for
// two, one after the other.
func (c *controller) replace(ctx context.Context, w *work) error {
	if c.live.key == c.key {
		if err := c.clearBeside(); err != nil {
			return err
		}
		beside, err := c.lend(ctx, w)
		if err != nil && w.moves && !w.inTurn {
			return fmt.Errorf("%w (%w)", errStays, err)
		}
		if err != nil {
			c.report.Event(reconcile.ReasonDisplaced, fmt.Sprintf("no room for two workers at once (%v): the worker of %s stops before that of %s starts, and requests wait", err, c.live.named(w.moves), w.named(w.moves)))
			return c.replaceInTurn(ctx, w)
		}
		if err := c.o.Server.Replace(ctx, c.served(beside)); err != nil {
			if e := c.clearBeside(); e != nil {
				c.o.Log.Warn("what was beside a worker stays", "model", c.key.Name, "error", e)
			}
			return err
		}
		c.serves(w)
		c.live = beside
		own := *w
		own.moves = false // what is beside has shown it
		w = &own
	}
	if err := c.o.Server.Replace(ctx, c.served(w)); err != nil {
		return err
	}
	c.serves(w)
	return c.clearBeside()
}

// lend is a work beside the model's own place, with room for all its instances.
func (c *controller) lend(ctx context.Context, w *work) (*work, error) {
	beside := *w
	beside.key, beside.unsure, beside.more = c.besides(), false, nil
	for i := range w.model.Workers() {
		c.beside = i + 1
		lent, err := c.o.Sandbox.Lend(ctx, as(w.model, object.InstanceKey(beside.key, i)))
		if err != nil {
			return nil, errors.Join(err, c.clearBeside())
		}
		if i == 0 {
			beside.placement = lent
			continue
		}
		beside.more = append(beside.more, lent)
	}
	return &beside, nil
}

// settle has the manifest of a guest served in the model's own place.
func (c *controller) settle(ctx context.Context) error {
	w, err := c.prepare(ctx, c.live.model)
	if err != nil {
		return err
	}
	if err := c.o.Server.Replace(ctx, c.served(w)); err != nil {
		return err
	}
	c.serves(w)
	return c.clearBeside()
}

// replaceInTurn replaces the worker when it has ended. Where the new one does not
// come up the earlier one is started again.
func (c *controller) replaceInTurn(ctx context.Context, w *work) error {
	old := c.live
	c.live = w
	err := c.o.Server.ReplaceInTurn(ctx, c.served(w))
	if err == nil || ctx.Err() != nil {
		c.serves(w)
		return err
	}
	c.live = old
	if e := c.o.Server.ReplaceInTurn(ctx, c.served(old)); e != nil {
		c.live = nil
		return fmt.Errorf("%w; the previous one does not start again either: %w", err, e)
	}
	c.serves(old)
	return err
}

// clearBeside removes what is beside the model's own place, unless that is what
// answers.
func (c *controller) clearBeside() error {
	if c.beside == 0 || c.live != nil && c.live.key == c.besides() {
		return nil
	}
	defer c.o.Sandbox.Freed()
	for ; c.beside > 0; c.beside-- {
		key := object.InstanceKey(c.besides(), c.beside-1)
		if err := c.o.Sandbox.Remove(context.WithoutCancel(c.o.Life), key, 0); err != nil {
			return err
		}
		if err := os.RemoveAll(SocketDir(c.o.Sockets, key)); err != nil {
			return err
		}
	}
	return nil
}
