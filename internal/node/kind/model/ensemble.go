package model

import (
	"context"

	"oscine.dev/oscine/internal/object"
)

// upEnsemble serves an ensemble, which has no worker and no place of its own, or
// what takes the place of one.
func (c *controller) upEnsemble(ctx context.Context, m *object.Model) error {
	w := &work{model: m, key: c.key}
	if m.Spec.Ensemble != nil && c.live != nil && c.live.model.Spec.Ensemble != nil && c.answers() {
		err := c.o.Server.Replace(ctx, c.served(w))
		switch {
		case err == nil:
			c.serves(w)
		case ctx.Err() != nil:
			return ctx.Err()
		default: // the one before goes on
			c.notServed(err)
		}
		return nil
	}
	if err := c.withdraw(); err != nil {
		return err
	}
	if m.Spec.Ensemble == nil {
		return c.Up(ctx, m)
	}
	// What an earlier manifest had of the machine it needs no more.
	for i := range max(c.most, 1) {
		if err := c.freeOne(ctx, i, c.o.Sandbox.Remove); err != nil {
			return err
		}
	}
	c.most = 0
	c.o.Sandbox.Freed()
	c.set(func(st *object.ModelStatus) { st.Candidates = nil })
	c.report.Phase(object.Starting, "")
	if err := c.o.Server.Serve(c.served(w)); err != nil {
		return err
	}
	c.serves(w)
	return nil
}
