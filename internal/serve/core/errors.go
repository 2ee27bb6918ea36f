package core

import (
	"context"
	"time"

	"github.com/containerd/errdefs"
)

// failure is an error that belongs to one class of containerd's errdefs, by
// which a front finds its protocol's code.
type failure struct {
	text  string
	class error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.class }

// Errors that a caller can act on. What Infer returns is of the class of one of
// them, or of none where the fault is the node's own.
var (
	// ErrNotFound means that no model of that name, or version, is served
	// (errdefs.IsNotFound).
	ErrNotFound error = &failure{"model not found", errdefs.ErrNotFound}
	// ErrInvalid means that the request does not fit the model
	// (errdefs.IsInvalidArgument).
	ErrInvalid error = &failure{"invalid request", errdefs.ErrInvalidArgument}
	// ErrNotReady means that the model starts, restarts or has failed
	// (errdefs.IsUnavailable).
	ErrNotReady error = &failure{"model not ready", errdefs.ErrUnavailable}
	// ErrOverloaded means that all slots of the model stayed taken
	// (errdefs.IsResourceExhausted).
	ErrOverloaded error = &failure{"model overloaded", errdefs.ErrResourceExhausted}
	// ErrMemory means that a worker needed more memory than it may have. It is of
	// no class: a Worker's Wait returns it, and requests that a worker died of.
	ErrMemory error = &failure{"out of memory", nil}
	// ErrExpired means that a request's timeout passed before the worker took
	// it (errdefs.IsDeadlineExceeded).
	ErrExpired error = &failure{"deadline exceeded", context.DeadlineExceeded}
	// ErrCanceled means that the client went away before the worker took its
	// request (errdefs.IsCanceled).
	ErrCanceled error = &failure{"request canceled", context.Canceled}
)

// overload is an ErrOverloaded that knows when it is worth asking again.
type overload struct {
	error
	after time.Duration
}

func (o *overload) Unwrap() error { return o.error }

// RetryAfter is when the request is worth asking again, in whole seconds: by the
// requests that wait and how long recent runs took.
func (o *overload) RetryAfter() time.Duration {
	return max(o.after+time.Second-1, time.Second).Truncate(time.Second)
}
