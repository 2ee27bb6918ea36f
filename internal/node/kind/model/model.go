package model

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/node/sandbox"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/printable"
	"oscine.dev/oscine/internal/serve/bucket"
	"oscine.dev/oscine/internal/signature"
)

// Options is what the models of a node share; all are needed.
type Options struct {
	Sandbox *sandbox.Sandbox
	Server  Server
	Paths   Paths
	Packs   Packs
	// Device tells what is known of a device by its CDI name.
	Device func(name string) pack.Device
	// Protocols are the versions of the worker's channel that the server speaks.
	Protocols []int
	Files     *Files
	// Registries is how models are pulled whose source is a reference.
	Registries artifact.Access
	// Bucket is how a bucket is reached, with its credentials; nil is without any.
	Bucket func(*object.S3) (bucket.Access, error)
	// SignedBy are those of whom one must have signed any model; nil: nobody.
	SignedBy *signature.Keys
	// TrustedRoot verifies signatures of identities; nil: there is none.
	TrustedRoot signature.Root
	Choices     *Choices
	// Moving holds one token while a model goes to another version of its pack: one does
	// at a time.
	Moving   chan struct{}
	Sockets  string // the folder of all workers' sockets; its path is short
	LogBytes int64  // bound of one worker's log
	Log      *slog.Logger
	// Life ends with the daemon; workers outlive it.
	Life context.Context
}

// controller serves one Model.
type controller struct {
	o       *Options
	key     object.Key
	report  reconcile.Reporter
	changed chan struct{} // holds one token after the server knows more

	live   *work  // that the server was given; nil: none. Only the loop's calls use it.
	beside int    // how many instances there may be in the place of besides
	most   int    // how many instances there may be in its own place
	waits  string // why it does not move to a newer version of its pack, as was told
	fresh  bool   // it came up on an older version of its pack, and no worker ran before

	starting sync.Mutex // held while a worker that is placed at its start gets its place and starts

	mu sync.Mutex
	st object.ModelStatus // Version is empty while the server has nothing
	// instances are the workers' processes and placements, as far as they are known.
	instances []object.ModelInstance
}

// New returns the controller of a Model.
func New(o *Options, key object.Key, report reconcile.Reporter) reconcile.Controller {
	return &controller{o: o, key: key, report: report, changed: make(chan struct{}, 1)}
}

// Status implements reconcile.Controller.
func (c *controller) Status(seen object.Observed) object.Status {
	c.mu.Lock()
	st, known := c.st, slices.Clone(c.instances)
	c.mu.Unlock()
	st.Phase, st.Message, st.Restarts = seen.Phase, seen.Message, seen.Restarts
	st.Isolation = c.o.Sandbox.Isolation(c.key)
	if now, ok := c.o.Server.Serving(c.key.Name); ok && st.Version != "" {
		st.Phase, st.Message, st.Restarts = now.Phase, now.Message, now.Restarts
		now.Fill(&st)
	}
	for i, in := range known {
		in.Placement = c.o.Sandbox.Placer.Now(object.InstanceKey(c.key, i).ID(), in.Placement)
		if i == 0 {
			st.PID, st.StartedAt, st.Placement = in.PID, in.StartedAt, in.Placement
		}
		if i < len(st.Instances) {
			now := &st.Instances[i]
			now.PID, now.StartedAt, now.Placement = in.PID, in.StartedAt, in.Placement
		}
	}
	return &st
}

func (c *controller) set(change func(*object.ModelStatus)) {
	c.mu.Lock()
	change(&c.st)
	c.mu.Unlock()
	c.report.Changed()
}

// Replaces implements reconcile.Replacer.
func (c *controller) Replaces() {}

// Up implements reconcile.Controller: it places the model and hands it to the
// server. What is served by an earlier manifest is replaced.
func (c *controller) Up(ctx context.Context, obj object.Object) error {
	m := obj.(*object.Model)
	if m.Spec.Ensemble != nil || c.live != nil && c.live.model.Spec.Ensemble != nil {
		return c.upEnsemble(ctx, m)
	}
	if c.live != nil && c.answers() {
		return c.change(ctx, m)
	}
	if err := c.withdraw(); err != nil { // what an Up that was interrupted began
		return err
	}
	ran := c.runs(ctx, m)
	w, err := c.prepare(ctx, m)
	if errors.Is(err, pack.ErrDamaged) {
		return errors.Join(err, c.stopWorkers(ctx, m))
	}
	if err != nil {
		return err
	}
	c.report.Phase(object.Starting, "")
	if w.placement != nil {
		c.o.Log.Info("model placed", "name", c.key.Name, "placement", w.placement.Reason)
	}
	if err := c.o.Server.Serve(c.served(w)); err != nil {
		return err
	}
	c.serves(w)
	c.fresh = c.staysOn(w) && !ran
	return c.trim(w)
}

// stopWorkers stops what an earlier daemon left running from a damaged pack: else it
// would be taken over when the pack is good again, with its damaged mount.
func (c *controller) stopWorkers(ctx context.Context, m *object.Model) error {
	var errs []error
	for i := range m.Workers() {
		errs = append(errs, c.o.Sandbox.Stop(ctx, object.InstanceKey(c.key, i), 0))
	}
	return errors.Join(errs...)
}

// prepare finds what the worker of a manifest needs in its own place. One that is
// loaded on demand has none yet, unless its worker runs, or replaces another one.
func (c *controller) prepare(ctx context.Context, m *object.Model) (w *work, err error) {
	w = &work{model: m, key: c.key, stays: c.live == nil}
	w.now = !m.OnDemand() || c.live != nil || c.runs(ctx, m)
	c.most = max(c.most, m.Workers())
	if !w.now {
		if err := c.o.Sandbox.CheckFits(ctx, m); err != nil {
			return nil, err
		}
	}
	if w.now || len(m.Spec.Resources.Devices) > 0 { // the devices decide which engines there are
		if w.placement, err = c.placeFirst(ctx, m); err != nil {
			return nil, err
		}
	}
	if w.now {
		if err := c.placeMore(ctx, w); err != nil {
			return nil, err
		}
	}
	if w.digest, err = c.files(ctx, m); err != nil {
		return nil, err
	}
	if w.signer, err = c.trusted(ctx, m, w.digest); err != nil {
		return nil, err
	}
	if w.engine, w.root, err = c.chooseEngine(ctx, w); err != nil {
		return nil, err
	}
	if !w.now { // what it had before, and for finding the engine
		w.placement = nil
		if err := c.o.Sandbox.GiveUp(ctx, m); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// files has the model's files here and returns the digest under which they are stored.
func (c *controller) files(ctx context.Context, m *object.Model) (string, error) {
	if digestRE.MatchString(m.Spec.Source) {
		return m.Spec.Source, nil
	}
	if _, ok := object.ReleaseModel(m.Spec.Source); ok {
		return c.o.Files.Digest(m.Spec.Source), c.o.Files.CheckSource(m.Spec.Source)
	}
	progress := func(received, size int64) {
		if c.live == nil { // else one answers meanwhile
			c.report.Phase(object.Starting, fmt.Sprintf("pulls %s: %s of %s", m.Spec.Source, printable.Bytes(received), printable.Bytes(size)))
		}
	}
	p, err := c.pull(ctx, m, progress)
	if err != nil {
		return "", err
	}
	return p.Digest, nil
}

func (c *controller) pull(ctx context.Context, m *object.Model, progress func(received, size int64)) (*Pulled, error) {
	if !object.IsS3(m.Spec.Source) {
		return c.o.Files.Pull(ctx, m.Spec.Source, c.o.Registries, runtime.GOARCH, progress)
	}
	access, err := c.o.Bucket(m.Spec.S3)
	if err != nil {
		return nil, err
	}
	return c.o.Files.PullBucket(ctx, m.Spec.Source, access, progress)
}

// work is a manifest with all that its worker needs.
type work struct {
	model     *object.Model
	digest    string                // of the model's files
	signer    string                // of them, where that was to be verified
	key       object.Key            // of the first container
	instance  int                   // which of the model's, from 0
	placement *allocate.Placement   // of the instance; nil: it is given one when it is loaded
	more      []*allocate.Placement // of the instances after the first; may lack some
	now       bool                  // it is loaded at once
	unsure    bool                  // the worker on demand that it replaces may have given back the place
	stays     bool                  // on the version of its pack on which it ran, where another has taken that one's place
	moves     bool                  // to another version of its pack: it answers as before
	inTurn    bool                  // where it moves, its worker may start after the other one's end
	engine    *pack.Info
	root      string
}

// served is a work as the server sees it.
func (c *controller) served(w *work) Served {
	spec := &w.model.Spec
	if spec.Ensemble != nil {
		return Served{
			Key: c.key, Version: spec.Version, ServedAs: spec.ServedAs, Ensemble: spec.Ensemble, DefaultTimeout: spec.DefaultTimeout.Std(),
			Traffic: spec.Traffic, Shadow: spec.Shadow, Changed: c.noteChange,
		}
	}
	maxRequest, _ := spec.MaxRequest.Value() // checked with the manifest
	s := Served{
		Key: c.key, Version: spec.Version, ServedAs: spec.ServedAs, Platform: w.engine.Platform, Class: spec.Class,
		Timeout: spec.Timeout.Std(), MaxRequest: maxRequest, Objective: spec.Resources.Latency.Std(), DefaultTimeout: spec.DefaultTimeout.Std(), Traffic: spec.Traffic, Shadow: spec.Shadow,
		Batching: spec.DynamicBatching, Changed: c.noteChange,
	}
	for i := range w.model.Workers() {
		one := w.at(i)
		instance := Instance{ID: one.own().ID(), CPUs: shared(one), Start: func(ctx context.Context) (*Worker, error) { return c.start(ctx, one) }}
		if w.onDemand() {
			instance.Unloaded = func() { c.unloaded(one) }
		}
		s.Instances = append(s.Instances, instance)
	}
	learned := c.o.Choices.key(w, []pack.Info{*w.engine})
	s.Costs = c.o.Choices.costs(learned)
	s.KeepCosts = func(costs []Cost) {
		if err := c.o.Choices.putCosts(learned, costs); err != nil {
			c.o.Log.Warn("what batches cost is not kept", "model", c.key.Name, "error", err)
		}
	}
	if r := spec.ResponseCache; r != nil {
		s.CacheBytes, _ = r.Size.Value()
		s.CachePerClient = r.PerClient
	}
	s.SameAnswers = w.moves
	s.Sequences, s.Reshape = spec.SequenceBatching, spec.Reshape
	if w.onDemand() {
		s.OnDemand, s.LoadNow, s.IdleTimeout = true, w.now, spec.IdleTimeout.Std()
	}
	return s
}

// shared are the CPUs on which a work's runs meet those of other models. Where it
// computes on devices they say nothing, and one on demand has others at each load.
func shared(w *work) []int {
	if w.placement == nil || w.onDemand() || w.placement.Request.Exclusive || len(w.model.Spec.Resources.Devices) > 0 {
		return nil
	}
	return slices.Sorted(slices.Values(w.placement.CPUs))
}

// serves notes that the server has a work.
func (c *controller) serves(w *work) {
	c.live = w
	c.set(func(st *object.ModelStatus) {
		if st.Pack = ""; w.engine != nil {
			st.Pack = w.engine.Digest
		}
		st.Source, st.Digest, st.Signer, st.Version, st.Update = w.model.Spec.Source, w.digest, w.signer, w.model.Spec.Version, nil
	})
	c.note(0, func(now *object.ModelInstance) {
		if now.Placement = nil; w.placement != nil {
			now.Placement = w.placement.Status()
		}
	})
}

// answers reports whether what is served answers requests, on demand after it is
// loaded for them.
func (c *controller) answers() bool {
	now, ok := c.o.Server.Serving(c.key.Name)
	return ok && (now.Phase == object.Running || now.Phase == object.Idle || c.live.onDemand() && now.Phase == object.Starting)
}

// noteChange wakes Attend; changes that come before it looks are one.
func (c *controller) noteChange() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// Attend implements reconcile.Controller: it reports the state of the served
// model, and takes it to newer versions of its pack. The server tries again by itself
// what may pass.
func (c *controller) Attend(ctx context.Context, _ object.Object) error {
	var last object.Phase
	stopped := ""
	var again <-chan time.Time // when to try to move once more; nil: at the next change
	for {
		now, ok := c.o.Server.Serving(c.key.Name)
		if !ok {
			return errors.New("it is not served any more")
		}
		if now.Phase != last {
			last = now.Phase
			c.tell(now)
		}
		var st object.ModelStatus
		if now.Fill(&st); st.BatchingStopped != stopped {
			stopped = st.BatchingStopped
			c.report.Event(reconcile.ReasonFailed, stopped)
		}
		if now.Phase == object.Running && again == nil {
			wait, err := c.move(ctx)
			if err != nil {
				return err
			}
			if wait > 0 {
				again = time.After(wait)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again:
			again = nil
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
	c.live = nil
	c.set(func(st *object.ModelStatus) {
		st.Source, st.Digest, st.Signer, st.Version, st.Update = "", "", "", "", nil
	})
	return errors.Join(c.o.Server.Withdraw(c.key.Name), c.clearBeside())
}

// Remove implements reconcile.Controller.
func (c *controller) Remove(ctx context.Context, obj object.Object) error {
	return errors.Join(c.free(ctx, obj, c.o.Sandbox.Remove), c.o.Packs.Moved(c.key.String(), ""))
}

// Halt implements reconcile.Controller.
func (c *controller) Halt(ctx context.Context, obj object.Object) error {
	return c.free(ctx, obj, c.o.Sandbox.Halt)
}

func (c *controller) free(ctx context.Context, obj object.Object, sandbox func(context.Context, object.Key, time.Duration) error) error {
	if err := c.withdraw(); err != nil {
		return err
	}
	n := object.MaxInstances // as many as there may be, where the manifest cannot be read
	if m, ok := obj.(*object.Model); ok {
		n = max(m.Workers(), c.most, 1)
	}
	for i := range n {
		if err := c.freeOne(ctx, i, sandbox); err != nil {
			return err
		}
	}
	c.most = 0
	return nil
}

// freeOne frees what an instance holds.
func (c *controller) freeOne(ctx context.Context, i int, sandbox func(context.Context, object.Key, time.Duration) error) error {
	key := object.InstanceKey(c.key, i)
	if err := sandbox(ctx, key, 0); err != nil {
		return err
	}
	c.note(i, func(now *object.ModelInstance) { *now = object.ModelInstance{} })
	return os.RemoveAll(SocketDir(c.o.Sockets, key))
}

// SocketDir is the folder of a worker's socket, by the key of its container. It has a
// short name whatever the model is called, so that the socket's path stays within
// sun_path's 108 bytes.
func SocketDir(sockets string, key object.Key) string { return filepath.Join(sockets, key.Short()) }

// start starts a worker in its own container and cgroup, with the pack as its
// root.
func (c *controller) start(ctx context.Context, w *work) (*Worker, error) {
	key := w.own()
	if w.onDemand() || w.unsure || w.instance > 0 && w.key == c.key {
		c.starting.Lock()
		defer c.starting.Unlock()
		placed := *w
		var err error
		if placed.placement, err = c.o.Sandbox.Place(ctx, w.model.Instance(w.instance)); err != nil {
			return nil, err
		}
		w = &placed
		c.note(w.instance, func(now *object.ModelInstance) { now.Placement = w.placement.Status() })
	}
	m, dir := w.model, SocketDir(c.o.Sockets, key)
	file, inside := c.o.Files.Path(w.digest), c.o.Paths.Model
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		inside = c.o.Paths.Folder // a folder can be mounted on a folder only
	}
	// Nobody on the node passes the folder above; the worker sees only its own.
	if err := errors.Join(os.MkdirAll(dir, 0o711), os.Chmod(filepath.Dir(dir), 0o700)); err != nil {
		return nil, fmt.Errorf("make the worker's socket folder: %w", err)
	}
	var env []string
	if len(w.placement.Devices) > 0 {
		env = []string{"LD_LIBRARY_PATH=" + hardware.DriverLibraries}
	}
	now, err := c.o.Sandbox.Start(ctx, sandbox.Run{
		Object: as(m, key), Placement: w.placement, KeepMemory: true, // its weights
		Spec: container.Spec{
			RootFS: w.root, LogBytes: c.o.LogBytes, Env: env,
			Entrypoint: append(append([]string{}, w.engine.Entrypoint...), c.o.Server.WorkerArgs()...),
			Mounts: []container.Mount{
				{Source: dir, Target: c.o.Paths.SocketDir, ReadOnly: true},
				{Source: file, Target: inside, ReadOnly: true},
			},
		},
	})
	if err != nil {
		return nil, err
	}
	if w.instance > 0 && !c.o.Sandbox.Placer.Holds(key.ID()) { // it was taken while it started
		return nil, errors.Join(errors.New("its part of the machine was given to another object"), c.o.Sandbox.Stop(ctx, key, 0))
	}
	if w.key == c.key { // one beside it may come to nothing
		c.note(w.instance, func(st *object.ModelInstance) { st.PID, st.StartedAt = now.PID, &now.StartedAt })
	}
	memory, _ := m.Spec.Resources.Memory.Value() // checked with the manifest
	return &Worker{
		c: c, key: key, socket: filepath.Join(dir, c.o.Paths.SocketName), pid: now.PID, threads: threads(m), options: options(m),
		served: m.ServedName(), memory: memory, model: inside,
	}, nil
}

// threads is how many threads make use of the CPUs that a model asks for.
func threads(m *object.Model) int {
	milli, _ := m.Spec.Resources.CPU.MilliValue() // checked with the manifest
	return max(1, int(milli+999)/1000)
}
