package core

import "context"

// Guard says what one client may ask. The registry asks the one that the request's
// context carries, so that no front can forget it.
type Guard interface {
	// Allows reports whether the client may know of a model and ask it. Where it does
	// not, Admit refuses.
	Allows(model string) bool
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

// allows reports whether the client of a context may know of a model.
func allows(ctx context.Context, model string) bool {
	g := GuardOf(ctx)
	return g == nil || g.Allows(model)
}

// permit refuses what is asked of a model that the client of a context may not
// know of, whether there is one or not.
func permit(ctx context.Context, model string) error {
	if allows(ctx, model) {
		return nil
	}
	done, err := admit(ctx, model)
	if err == nil {
		done()
	}
	return err
}

// admit asks the guard of a context, where there is one.
func admit(ctx context.Context, model string) (done func(), err error) {
	if g := GuardOf(ctx); g != nil {
		return g.Admit(ctx, model)
	}
	return func() {}, nil
}
