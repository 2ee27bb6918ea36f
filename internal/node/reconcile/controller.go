package reconcile

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/object"
)

// Errors that a caller can act on.
var (
	// ErrNotFound is returned for an object that was never applied or is deleted.
	ErrNotFound = errdefs.ErrNotFound.WithMessage("not found")
	// ErrInvalid is returned for a request that can never succeed as it is.
	ErrInvalid = errdefs.ErrInvalidArgument.WithMessage("invalid request")
	// ErrConflict is returned where the node's present state forbids the call.
	ErrConflict = errdefs.ErrFailedPrecondition.WithMessage("not possible now")
)

// Controller is a kind's part in the loop, for one object. The loop calls one
// of Up, Attend, Stop, Halt and Remove at a time; Status may be called meanwhile.
// Objects are the ones that the loop was given and must not be changed.
type Controller interface {
	// Up takes the object from wherever it is to running as obj says; for one
	// that runs so already, as after a restart of the daemon, it changes
	// nothing. It returns nil once it runs, ErrFinished for work that ended
	// before and stays so, and a Refused error where no part of the machine
	// fits. When ctx ends it leaves what there is to another Up or Remove.
	Up(ctx context.Context, obj object.Object) error
	// Attend watches a running object and returns why it does not run any more:
	// ErrFinished where it stays so, else what failed. When ctx ends it leaves
	// the object running.
	Attend(ctx context.Context, obj object.Object) error
	// Stop stops what runs by obj, so that Up can start it another way.
	Stop(ctx context.Context, obj object.Object) error
	// Remove stops the object and frees everything it holds. It is called again
	// after it has failed, and also where Up was never called. obj is nil where the
	// stored object cannot be read.
	Remove(ctx context.Context, obj object.Object) error
	// Halt is Remove for an object that is stopped and stays: what it wrote stays
	// too. Up may be called after it.
	Halt(ctx context.Context, obj object.Object) error
	// Status returns the present state as it is shown to people, with the phase,
	// message and restarts that the loop has seen.
	Status(seen object.Observed) object.Status
}

// Replacer is a Controller whose Up takes what runs by an earlier manifest to a new
// one, with no Stop before it.
type Replacer interface {
	Controller
	Replaces()
}

// NewController makes the controller of an object of one kind.
type NewController func(object.Key, Reporter) Controller

// Reporter takes what a controller reports about its object. It is safe for
// concurrent use.
type Reporter interface {
	// Phase shows where the object is now.
	Phase(phase object.Phase, message string)
	// Changed makes watchers read the status again.
	Changed()
	// Event notes what happened to the object.
	Event(reason, message string)
}

// ErrFinished says that an object has ended and is meant to stay so.
var ErrFinished = errors.New("it has finished")

// Refused marks a refusal that stands until the manifest or the machine
// changes, as opposed to a failure that may pass. Its text is the error's.
func Refused(err error) error {
	if err == nil {
		return nil
	}
	return &refusal{err}
}

// IsRefused reports whether an error was marked by Refused.
func IsRefused(err error) bool {
	var r *refusal
	return errors.As(err, &r)
}

type refusal struct{ err error }

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }
