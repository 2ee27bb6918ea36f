package model

import (
	"context"
	"time"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/trial"
)

// Server sends requests to the workers of models and keeps them alive.
type Server interface {
	// Serve begins to serve a model and returns at once. The name is free.
	Serve(Served) error
	// Replace serves a model in the place of the one of its name and returns when it
	// answers and the other's worker has ended. Where it fails the other one goes on.
	Replace(context.Context, Served) error
	// ReplaceInTurn is Replace where the other's worker has to end first. Requests
	// wait. Where it fails, what failed stays in its place.
	ReplaceInTurn(context.Context, Served) error
	// Route changes which requests without a version a served model gets.
	Route(name string, traffic *int, shadow bool) error
	// Withdraw stops serving a model and returns when its worker has ended; one
	// that is not served is withdrawn.
	Withdraw(name string) error
	// Serving returns the state of a served model; ok is false for one that is not.
	Serving(name string) (s Serving, ok bool)
	// Try has a worker load its model, runs it for about so long, and ends the
	// worker.
	Try(ctx context.Context, w *Worker, limit time.Duration) (*trial.Result, error)
	// WorkerArgs are the arguments of a worker.
	WorkerArgs() []string
}

// Paths say where a worker finds what is its own, inside its container.
type Paths struct {
	SocketDir, SocketName string
	Model, Folder         string // of a model that is one file, and of one that is a folder
}

// Served is a model that a Server is to serve.
type Served struct {
	Key      object.Key
	Version  string
	Platform string // the name that clients see; "" for the engine's own
	Class    object.Class
	ServedAs string        // by which clients name it; "": by the key's name
	Timeout  time.Duration // of one inference; 0: the usual
	// MaxRequest bounds the bytes of one request; 0: the usual.
	MaxRequest int64
	Objective  time.Duration // of a request; 0: none
	// DefaultTimeout is that of requests that name none; 0: none.
	DefaultTimeout time.Duration
	Traffic        *int  // percentage of requests without a version; nil: what others leave
	Shadow         bool  // its answers are thrown away
	CacheBytes     int64 // of responses that are kept; 0: none is
	CachePerClient bool
	Reshape        *object.Reshape          // nil: clients know the model's own shapes
	Sequences      *object.SequenceBatching // nil: the model has no state
	SameAnswers    bool                     // it answers as the one in whose place it is served, or does not get it
	Ensemble       *object.Ensemble         // nil: it has a worker
	Batching       *object.DynamicBatching  // nil: nothing is said of it
	Costs          []Cost                   // of batches, learned before
	// KeepCosts takes what was learned when the model is served no more.
	KeepCosts   func([]Cost)
	OnDemand    bool          // the worker starts when a request comes
	LoadNow     bool          // the first worker starts at once
	IdleTimeout time.Duration // without a request, until a worker that started on demand ends; 0: the usual
	Instances   []Instance    // none: it is an ensemble
	// Changed is called when the phase in Serving changes. It returns at once.
	Changed func()
}

// Instance is one worker of a model that a Server is to serve.
type Instance struct {
	ID string // of its container
	// CPUs are those on which other models may compute too; none: its runs are not
	// ordered among theirs.
	CPUs []int
	// Start starts the worker, or adopts the one that runs. It is called again
	// after the worker has ended.
	Start func(context.Context) (*Worker, error)
	// Unloaded is called after a worker that started on demand has ended; nil: none
	// does.
	Unloaded func()
}

// Serving is the state of a served model.
type Serving struct {
	Phase    object.Phase
	Message  string
	Restarts int
	// Fill adds to a status what the server has counted.
	Fill func(*object.ModelStatus)
}
