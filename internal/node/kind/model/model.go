package model

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/node/sandbox"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/trial"
)

// Server sends requests to the workers of models and keeps them alive.
type Server interface {
	// Serve begins to serve a model and returns at once. The name is free.
	Serve(Served) error
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

// Where a worker finds what is its own, inside its container.
type Paths struct {
	SocketDir, SocketName string
	Model                 string
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
	// Start starts the worker, or adopts the one that runs. It is called again
	// after the worker has ended.
	Start func(context.Context) (*Worker, error)
	// Changed is called when the phase in Serving changes. It returns at once.
	Changed func()
}

// Serving is the state of a served model.
type Serving struct {
	Phase    object.Phase
	Message  string
	Restarts int
	// Fill adds to a status what the server has counted.
	Fill func(*object.ModelStatus)
}

// Packs holds the engines; see pack.Store.
type Packs interface {
	Candidates(q pack.Question) ([]pack.Info, error)
	Mount(name string) (*pack.Info, string, error)
}

// Options is what the models of a node share; all are needed.
type Options struct {
	Sandbox *sandbox.Sandbox
	Server  Server
	Paths   Paths
	Packs   Packs
	// Protocols are the versions of the worker's channel that the server speaks.
	Protocols []int
	Files     *Files
	Choices   *Choices
	Sockets   string // the folder of all workers' sockets; its path is short
	LogBytes  int64  // bound of one worker's log
	Log       *slog.Logger
	// Life ends with the daemon; workers outlive it.
	Life context.Context
}

// controller serves one Model.
type controller struct {
	o       *Options
	key     object.Key
	report  reconcile.Reporter
	changed chan struct{} // holds one token after the server knows more

	mu     sync.Mutex
	served bool // the server was given it, as it is desired
	st     object.ModelStatus
}

// New returns the controller of a Model.
func New(o *Options, key object.Key, report reconcile.Reporter) reconcile.Controller {
	return &controller{o: o, key: key, report: report, changed: make(chan struct{}, 1)}
}

// Status implements reconcile.Controller.
func (c *controller) Status(seen object.Observed) object.Status {
	c.mu.Lock()
	st, served := c.st, c.served
	c.mu.Unlock()
	st.Phase, st.Message, st.Restarts = seen.Phase, seen.Message, seen.Restarts
	st.Isolation, st.Placement = c.o.Sandbox.Isolation(c.key), c.o.Sandbox.Placer.Now(c.key.ID(), st.Placement)
	if now, ok := c.o.Server.Serving(c.key.Name); ok && served {
		st.Phase, st.Message, st.Restarts = now.Phase, now.Message, now.Restarts
		now.Fill(&st)
	}
	return &st
}

func (c *controller) set(change func(*object.ModelStatus)) {
	c.mu.Lock()
	change(&c.st)
	c.mu.Unlock()
	c.report.Changed()
}

// Up implements reconcile.Controller: it places the model and hands it to the
// server.
func (c *controller) Up(ctx context.Context, obj object.Object) error {
	m := obj.(*object.Model)
	if err := c.withdraw(); err != nil { // what an Up that was interrupted began
		return err
	}
	placement, err := c.o.Sandbox.Place(ctx, m)
	if err != nil {
		return err
	}
	engine, root, err := c.chooseEngine(ctx, m, placement)
	if err != nil {
		return err
	}
	c.set(func(st *object.ModelStatus) { st.Pack, st.Placement = engine.Digest, placement.Status() })
	c.report.Phase(object.Starting, "")
	c.o.Log.Info("model placed", "name", c.key.Name, "placement", placement.Reason)
	maxRequest, _ := m.Spec.MaxRequest.Value() // checked with the manifest
	c.mu.Lock()
	defer c.mu.Unlock()
	err = c.o.Server.Serve(Served{
		Key: c.key, MaxRequest: maxRequest, Version: m.Spec.Version, ServedAs: m.Spec.ServedAs, Timeout: m.Spec.Timeout.Std(), Platform: engine.Platform, Class: m.Spec.Class, Objective: m.Spec.Resources.Latency.Std(), Changed: c.noteChange,
		Start: func(ctx context.Context) (*Worker, error) { return c.start(ctx, m, placement, engine, root) },
	})
	c.served = err == nil
	return err
}

// noteChange wakes Attend; changes that come before it looks are one.
func (c *controller) noteChange() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// Attend implements reconcile.Controller: it reports the state of the served
// model. The server tries again by itself what may pass.
func (c *controller) Attend(ctx context.Context, _ object.Object) error {
	var last object.Phase
	for {
		now, ok := c.o.Server.Serving(c.key.Name)
		if !ok {
			return errors.New("it is not served any more")
		}
		if now.Phase != last {
			last = now.Phase
			c.tell(now)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.changed:
		}
	}
}

func (c *controller) tell(now Serving) {
	c.report.Phase(now.Phase, now.Message)
	switch now.Phase {
	case object.Running:
		st := object.ModelStatus{}
		now.Fill(&st)
		c.report.Event(reconcile.ReasonStarted, "serves with "+st.Engine)
	case object.Failed, object.Waiting:
		c.report.Event(reconcile.ReasonFailed, now.Message)
	}
}

// Stop implements reconcile.Controller.
func (c *controller) Stop(context.Context, object.Object) error { return c.withdraw() }

func (c *controller) withdraw() error {
	c.mu.Lock()
	c.served = false
	c.mu.Unlock()
	return c.o.Server.Withdraw(c.key.Name)
}

// Remove implements reconcile.Controller.
func (c *controller) Remove(ctx context.Context, _ object.Object) error {
	return c.free(ctx, c.o.Sandbox.Remove)
}

// Halt implements reconcile.Controller.
func (c *controller) Halt(ctx context.Context, _ object.Object) error {
	return c.free(ctx, c.o.Sandbox.Halt)
}

func (c *controller) free(ctx context.Context, sandbox func(context.Context, object.Key, time.Duration) error) error {
	if err := c.withdraw(); err != nil {
		return err
	}
	if err := sandbox(ctx, c.key, 0); err != nil {
		return err
	}
	c.set(func(st *object.ModelStatus) { st.PID, st.StartedAt, st.Placement = 0, nil, nil })
	return os.RemoveAll(c.socketDir())
}

// socketDir has a short name whatever the model is called, so that the socket's
// path stays within sun_path's 108 bytes.
func (c *controller) socketDir() string { return SocketDir(c.o.Sockets, c.key) }

// SocketDir is the folder of a model's socket.
func SocketDir(sockets string, key object.Key) string { return filepath.Join(sockets, key.Short()) }

// start starts a worker in its own container and cgroup, with the pack as its
// root.
func (c *controller) start(ctx context.Context, m *object.Model, p *allocate.Placement, engine *pack.Info, root string) (*Worker, error) {
	dir := c.socketDir()
	// Nobody on the node passes the folder above; the worker sees only its own.
	if err := errors.Join(os.MkdirAll(dir, 0o711), os.Chmod(filepath.Dir(dir), 0o700)); err != nil {
		return nil, fmt.Errorf("make the worker's socket folder: %w", err)
	}
	now, err := c.o.Sandbox.Start(ctx, sandbox.Run{
		Object: m, Placement: p, KeepMemory: true, // its weights
		Spec: container.Spec{
			RootFS: root, LogBytes: c.o.LogBytes,
			Entrypoint: append(append([]string{}, engine.Entrypoint...), c.o.Server.WorkerArgs()...),
			Mounts: []container.Mount{
				{Source: dir, Target: c.o.Paths.SocketDir, ReadOnly: true},
				{Source: c.o.Files.Path(m.Spec.Source), Target: c.o.Paths.Model, ReadOnly: true},
			},
		},
	})
	if err != nil {
		return nil, err
	}
	c.set(func(st *object.ModelStatus) { st.PID, st.StartedAt = now.PID, &now.StartedAt })
	memory, _ := m.Spec.Resources.Memory.Value() // checked with the manifest
	return &Worker{
		c: c, socket: filepath.Join(dir, c.o.Paths.SocketName), pid: now.PID, threads: threads(m),
		options: m.Spec.Options, served: cmp.Or(m.Spec.ServedAs, c.key.Name), memory: memory,
	}, nil
}

// threads is how many threads make use of the CPUs that a model asks for.
func threads(m *object.Model) int {
	milli, _ := m.Spec.Resources.CPU.MilliValue() // checked with the manifest
	return max(1, int(milli+999)/1000)
}
