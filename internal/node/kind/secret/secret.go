package secret

import (
	"context"
	"sync"

	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
)

// controller keeps the status of one Secret.
type controller struct {
	report reconcile.Reporter

	mu sync.Mutex
	st object.SecretStatus
}

// New returns the controller of a Secret.
func New(_ object.Key, report reconcile.Reporter) reconcile.Controller {
	return &controller{report: report}
}

// Up implements reconcile.Controller.
func (c *controller) Up(_ context.Context, obj object.Object) error {
	s := obj.(*object.Secret)
	st := object.SecretStatus{Type: s.Type(), Entries: len(s.Values())}
	for _, value := range s.Values() {
		st.Bytes += int64(len(value))
	}
	c.mu.Lock()
	c.st = st
	c.mu.Unlock()
	c.report.Phase(object.Ready, "")
	return nil
}

// Attend implements reconcile.Controller.
func (c *controller) Attend(ctx context.Context, _ object.Object) error {
	<-ctx.Done()
	return ctx.Err()
}

// Stop implements reconcile.Controller.
func (c *controller) Stop(context.Context, object.Object) error { return nil }

// Halt implements reconcile.Controller.
func (c *controller) Halt(context.Context, object.Object) error { return nil }

// Remove implements reconcile.Controller.
func (c *controller) Remove(context.Context, object.Object) error { return nil }

// Status implements reconcile.Controller.
func (c *controller) Status(seen object.Observed) object.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.st
	st.Observed = seen
	return &st
}
