package model

import (
	"context"

	"oscine.dev/oscine/internal/object"
)

// onDemand reports whether a worker is loaded by its requests; one beside it is
// loaded always.
func (w *work) onDemand() bool { return w.model.OnDemand() && w.key.Kind == object.KindModel }

// unloaded gives back the place of a worker that was loaded on demand and has
// ended.
func (c *controller) unloaded(w *work) {
	if err := c.o.Sandbox.Finish(c.o.Life, w.model.Instance(w.instance)); err != nil {
		c.o.Log.Warn("the place of a model that was unloaded is not given back", "name", c.key.Name, "error", err)
	}
	c.note(w.instance, func(now *object.ModelInstance) { *now = object.ModelInstance{} })
}

// giveUpIdle gives back the place that was for a manifest that is not served, where
// the model has no worker now.
func (c *controller) giveUpIdle(ctx context.Context) error {
	if !c.live.onDemand() {
		return nil
	}
	c.starting.Lock()
	defer c.starting.Unlock()
	for i := range c.live.model.Workers() {
		if err := c.o.Sandbox.GiveUp(ctx, c.live.model.Instance(i)); err != nil {
			return err
		}
	}
	return nil
}
