package core

import (
	"context"

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
	// ErrExpired means that a request's timeout passed before the worker took
	// it (errdefs.IsDeadlineExceeded).
	ErrExpired error = &failure{"deadline exceeded", context.DeadlineExceeded}
	// ErrCanceled means that the client went away before the worker took its
	// request (errdefs.IsCanceled).
	ErrCanceled error = &failure{"request canceled", context.Canceled}
)
