package core

import "context"

// Guard says what one client may ask. Infer asks the one that the request's
// context carries, so that no front can forget it.
type Guard interface {
	// Admit returns nil where the client may ask the model that it names now, and
	// what is to be called when the request has ended. It may wait, no longer than
	// ctx. Its errors are of errdefs' classes: permission denied, resource exhausted
	// or unauthorized.
	Admit(ctx context.Context, model string) (done func(), err error)
}

type guardKey struct{}

// WithGuard returns a context whose requests g must admit.
func WithGuard(ctx context.Context, g Guard) context.Context {
	return context.WithValue(ctx, guardKey{}, g)
}

// GuardOf returns the guard of a context, or nil.
func GuardOf(ctx context.Context) Guard {
	g, _ := ctx.Value(guardKey{}).(Guard)
	return g
}

// ClientOf is the name of the client whose guard a context has, for what is
// bounded per client; "" where the guard tells none.
func ClientOf(ctx context.Context) string {
	if c, ok := GuardOf(ctx).(interface{ Client() string }); ok {
		return c.Client()
	}
	return ""
}

// admit asks the guard of a context, where there is one.
func admit(ctx context.Context, model string) (done func(), err error) {
	if g := GuardOf(ctx); g != nil {
		return g.Admit(ctx, model)
	}
	return func() {}, nil
}
