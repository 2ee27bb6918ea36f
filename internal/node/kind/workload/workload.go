package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/disk"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/node/sandbox"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/optimize"
	"oscine.dev/oscine/internal/pack"
)

// Images finds and fetches container images.
type Images interface {
	// Find returns the stored name that a reference means, "" for none.
	Find(ctx context.Context, ref string) (string, error)
	// Pull fetches an image and returns its stored name.
	Pull(ctx context.Context, ref string, progress func(string)) (string, error)
}

// Packs hold the tools that workloads run; see pack.Store.
type Packs interface {
	Mount(name string) (*pack.Info, string, error)
}

// Disk bounds what workloads hold on the data partition; see disk.Disk.
type Disk interface {
	Admit(object.Key) error
	Claim(owner object.Key, name, dir string, limit int64) error
	Forget(object.Key)
	Held(object.Key) []disk.Holding
	Room() error
}

// Secrets are the values of the node's Secrets.
type Secrets interface {
	// Values returns the entries of a Secret, false where it is not there.
	Values(name string) (map[string][]byte, bool)
}

// Options is what the workloads of a node share; all are needed.
type Options struct {
	Sandbox *sandbox.Sandbox
	Images  Images
	Packs   Packs
	Secrets Secrets
	Disk    Disk
	Volumes string // the folder of all volumes
	// Inference is the folder with the socket InferenceSocket, for workloads that ask
	// for it.
	Inference string
	LogBytes  int64 // bound of one workload's log
	Log       *slog.Logger
	Now       func() time.Time
}

// InferenceSocket is the name of the socket by which workloads reach the node's
// models, and inferenceTarget the folder in a container where it lies.
const (
	InferenceSocket = "inference.sock"
	inferenceTarget = "/run/oscine"
)

// controller runs one Workload.
type controller struct {
	o      *Options
	key    object.Key
	report reconcile.Reporter

	mu sync.Mutex
	st object.WorkloadStatus
}

// New returns the controller of a Workload.
func New(o *Options, key object.Key, report reconcile.Reporter) reconcile.Controller {
	return &controller{o: o, key: key, report: report}
}

// Status implements reconcile.Controller.
func (c *controller) Status(seen object.Observed) object.Status {
	c.mu.Lock()
	st := c.st
	c.mu.Unlock()
	st.Phase, st.Message, st.Restarts = seen.Phase, seen.Message, seen.Restarts
	st.Isolation, st.Placement = c.o.Sandbox.Isolation(c.key), c.o.Sandbox.Placer.Now(c.key.ID(), st.Placement)
	for _, held := range c.o.Disk.Held(c.key) {
		st.Storage = append(st.Storage, object.StorageStatus(held))
	}
	return &st
}

func (c *controller) set(change func(*object.WorkloadStatus)) {
	c.mu.Lock()
	change(&c.st)
	c.mu.Unlock()
	c.report.Changed()
}

// Up implements reconcile.Controller.
func (c *controller) Up(ctx context.Context, obj object.Object) error {
	w := obj.(*object.Workload)
	began := c.o.Now()
	c.set(func(st *object.WorkloadStatus) { st.PID = 0 })
	if err := c.finishedBefore(ctx, w); err != nil {
		return err
	}
	given, err := c.secrets(w)
	if err != nil {
		return err
	}
	if err := c.o.Disk.Admit(c.key); err != nil {
		return errors.Join(err, c.o.Sandbox.GiveUp(ctx, w))
	}
	placement, err := c.o.Sandbox.Place(ctx, w)
	if err != nil {
		return err
	}
	c.set(func(st *object.WorkloadStatus) { st.Placement = placement.Status() })
	program, err := c.program(ctx, w)
	if err != nil {
		return err
	}
	c.report.Phase(object.Pending, "makes its volumes and its network")
	if err := c.claimVolumes(w); err != nil {
		return err
	}
	netns, addr, err := c.o.Sandbox.Attach(ctx, c.key, w.Spec.Ports, w.Spec.Security.NodeAPI)
	if err != nil {
		return err
	}
	c.report.Phase(object.Pending, "makes its root file system and starts its program")
	now, err := c.o.Sandbox.Start(ctx, sandbox.Run{Object: w, Placement: placement, Spec: c.spec(w, given, program, netns), Grace: w.Spec.StopGrace.Std()})
	if err == nil && w.Spec.Security.WritableRoot { // it may run since before this daemon
		err = c.claimLayer(ctx, w)
	}
	if err != nil {
		return err
	}
	c.set(func(st *object.WorkloadStatus) {
		st.PID, st.Digest, st.StartedAt, st.Address = now.PID, now.Digest, &now.StartedAt, addr.String()
	})
	if w.Spec.Health == nil {
		c.report.Phase(object.Running, "")
	} else {
		c.report.Phase(object.Starting, "")
	}
	if !now.StartedAt.Before(began) { // else an earlier daemon started it
		c.report.Event(reconcile.ReasonStarted, Where(placement.Status()))
	}
	c.o.Log.Info("workload runs", "name", c.key.Name, "pid", now.PID, "placement", placement.Reason)
	return nil
}

// Where says in a sentence where something runs.
func Where(p *object.PlacementStatus) string {
	message := "on CPUs " + p.CPUs
	if len(p.Devices) > 0 {
		message += " with " + strings.Join(p.Devices, ", ")
	}
	return message
}

// finishedBefore returns ErrFinished where the workload ended under an earlier
// daemon in a way that its restart policy leaves alone.
func (c *controller) finishedBefore(ctx context.Context, w *object.Workload) error {
	now, err := c.o.Sandbox.Runtime.Status(ctx, c.key.ID())
	if err != nil || now.State != container.Exited || now.ExitCode < 0 || now.Labels[sandbox.LabelManifest] != sandbox.Hash(w) {
		return nil // not there, still running, lost to a reboot, or of an older manifest
	}
	if now.Stopped {
		return nil // by the node, which needed its place or found it sick
	}
	if restarts(w.Spec.Restart, now.ExitCode) {
		return nil
	}
	return c.finish(ctx, w, now)
}

func restarts(policy object.RestartPolicy, exitCode int) bool {
	return policy == object.RestartAlways || (policy == object.RestartOnFailure && exitCode != 0)
}

// finish gives back what an ended workload held, and returns ErrFinished.
func (c *controller) finish(ctx context.Context, w *object.Workload, now container.Status) error {
	c.ended(now)
	if err := c.o.Sandbox.Finish(ctx, w); err != nil {
		c.o.Log.Warn("a workload that has finished keeps a part of the machine", "name", c.key.Name, "error", err)
	}
	return reconcile.ErrFinished
}

func (c *controller) ended(now container.Status) {
	c.set(func(st *object.WorkloadStatus) { st.PID, st.ExitCode, st.OOMKilled = 0, &now.ExitCode, now.OOMKilled })
}

// program finds what the workload runs: its image, or the tool of its pack.
func (c *controller) program(ctx context.Context, w *object.Workload) (container.Spec, error) {
	if w.Spec.Pack == "" {
		c.report.Phase(object.Pending, "looks for the image "+w.Spec.Image)
		image, err := c.image(ctx, w.Spec.Image)
		return container.Spec{Image: image, Entrypoint: w.Spec.Command}, err
	}
	c.report.Phase(object.Pending, "looks for the pack "+w.Spec.Pack)
	p, root, err := c.o.Packs.Mount(w.Spec.Pack)
	if err != nil {
		return container.Spec{}, err
	}
	if len(p.Tools) == 0 {
		return container.Spec{}, fmt.Errorf("the pack %s holds no tool that a workload can run: name one that does, such as %s", p.Name, optimize.PackONNX)
	}
	entrypoint := w.Spec.Command
	if len(entrypoint) == 0 {
		entrypoint = p.Entrypoint
	}
	return container.Spec{RootFS: root, Entrypoint: entrypoint}, nil
}

// image pulls the reference unless it is here.
func (c *controller) image(ctx context.Context, ref string) (string, error) {
	name, err := c.o.Images.Find(ctx, ref)
	if err != nil || name != "" {
		return name, err
	}
	if err := c.o.Disk.Room(); err != nil {
		return "", fmt.Errorf("pull %s: %w", ref, err)
	}
	c.report.Phase(object.Pulling, ref)
	name, err = c.o.Images.Pull(ctx, ref, func(line string) { c.report.Phase(object.Pulling, line) })
	return name, err // it names the image
}

// claimVolumes makes what volumes are not there yet, and bounds all.
func (c *controller) claimVolumes(w *object.Workload) error {
	for _, v := range w.Spec.Volumes {
		if v.ReadOnly {
			continue
		}
		dir := filepath.Join(c.o.Volumes, v.Name)
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return fmt.Errorf("make volume %s: %w", v.Name, err)
		}
		limit, _ := v.Size.Value() // checked with the manifest
		if err := c.o.Disk.Claim(c.key, "volume "+v.Name, dir, limit); err != nil {
			return err
		}
	}
	return nil
}

// claimLayer bounds the writable layer over the image.
func (c *controller) claimLayer(ctx context.Context, w *object.Workload) error {
	dir, err := c.o.Sandbox.Runtime.Layer(ctx, c.key.ID())
	if err != nil {
		return err
	}
	limit, _ := w.Spec.Resources.EphemeralStorage.Value() // checked with the manifest
	return c.o.Disk.Claim(c.key, "writable layer", dir, limit)
}

func (c *controller) spec(w *object.Workload, given secrets, spec container.Spec, netns string) container.Spec {
	s := &w.Spec
	spec.Args, spec.Cwd, spec.User, spec.Hold = s.Args, s.WorkingDir, s.User, s.StartOnAttach
	spec.Env, spec.Files, spec.NetNS, spec.LogBytes = environment(s.Env, given.env), given.files, netns, c.o.LogBytes
	spec.Security = container.Security{AllowRoot: s.Security.AllowRoot, WritableRoot: s.Security.WritableRoot, AddCapabilities: s.Security.AddCapabilities}
	for _, v := range s.Volumes {
		spec.Mounts = append(spec.Mounts, container.Mount{
			Source: filepath.Join(c.o.Volumes, v.Name), Target: v.Path, ReadOnly: v.ReadOnly, Volume: true,
		})
	}
	if s.Inference {
		spec.Mounts = append(spec.Mounts, container.Mount{Source: c.o.Inference, Target: inferenceTarget, ReadOnly: true})
	}
	if s.Security.WritableRoot {
		spec.Created = func(ctx context.Context, _ int) error { return c.claimLayer(ctx, w) }
	}
	return spec
}

func environment(envs ...map[string]string) []string {
	var list []string
	for _, env := range envs {
		for name, value := range env {
			list = append(list, name+"="+value)
		}
	}
	slices.Sort(list)
	return list
}

// Attend implements reconcile.Controller: it watches a running workload until it
// ends or its check fails for good.
func (c *controller) Attend(ctx context.Context, obj object.Object) error {
	w := obj.(*object.Workload)
	watching, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	ended, sick := make(chan ending, 1), make(chan error, 1)
	wg.Go(func() {
		now, err := c.o.Sandbox.Runtime.Wait(watching, c.key.ID())
		ended <- ending{now, err}
	})
	if w.Spec.Health != nil {
		wg.Go(func() { sick <- c.watchHealth(watching, w) })
	}
	select {
	case e := <-ended:
		return c.over(ctx, w, e)
	case problem := <-sick:
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return c.stopSick(ctx, w, problem, ended)
	}
}

// ending is how a container ended, or why that is not known.
type ending struct {
	now container.Status
	err error
}

// stopSick stops a workload whose check has failed for good. A check fails also
// because the workload has just ended: then that is what is reported. One that is to
// restart after a failure does, whatever its exit code when it is stopped.
func (c *controller) stopSick(ctx context.Context, w *object.Workload, problem error, ended <-chan ending) error {
	runtime, id, grace := c.o.Sandbox.Runtime, c.key.ID(), w.Spec.StopGrace.Std()
	var err error
	if w.Spec.Restart == object.RestartNever {
		err = c.end(ctx, id, grace)
	} else {
		err = runtime.Stop(ctx, id, grace)
	}
	now, e := runtime.Status(ctx, id)
	bySelf := e == nil && now.State == container.Exited && !now.Stopped && w.Spec.Restart != object.RestartNever
	if bySelf || errors.Is(err, container.ErrNotRunning) {
		return c.over(ctx, w, <-ended)
	}
	if e == nil && now.State == container.Exited {
		c.ended(now)
	}
	return errors.Join(fmt.Errorf("stopped because its health check failed: %w", problem), err)
}

// end has a workload end, and kills it after grace, without the mark of one that the
// node stops and starts again. It returns container.ErrNotRunning for one that had
// ended.
func (c *controller) end(ctx context.Context, id string, grace time.Duration) error {
	runtime := c.o.Sandbox.Runtime
	if err := runtime.Kill(ctx, id, syscall.SIGTERM); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if _, err := runtime.Wait(waiting, id); err == nil || ctx.Err() != nil {
		return err
	}
	if err := runtime.Kill(ctx, id, syscall.SIGKILL); err != nil && !errors.Is(err, container.ErrNotRunning) {
		return err
	}
	_, err := runtime.Wait(ctx, id)
	return err
}

// over says why a workload that ended by itself does not run any more.
func (c *controller) over(ctx context.Context, w *object.Workload, e ending) error {
	if e.err != nil {
		return e.err
	}
	if !restarts(w.Spec.Restart, e.now.ExitCode) {
		c.report.Event(reconcile.ReasonExited, fmt.Sprintf("exit code %d", e.now.ExitCode))
		return c.finish(ctx, w, e.now)
	}
	c.ended(e.now)
	if e.now.OOMKilled {
		return fmt.Errorf("killed: it needed more than its memory limit of %s", w.Spec.Resources.Memory)
	}
	return fmt.Errorf("ended with exit code %d", e.now.ExitCode)
}

func (c *controller) watchHealth(ctx context.Context, w *object.Workload) error {
	c.mu.Lock()
	address := c.st.Address
	c.mu.Unlock()
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return fmt.Errorf("the workload has no address: %w", err)
	}
	check := &healthCheck{Health: *w.Spec.Health, addr: addr, log: c.o.Log, exec: func(ctx context.Context, command []string) (int, error) {
		return c.o.Sandbox.Runtime.Exec(ctx, c.key.ID(), container.Exec{Args: command})
	}}
	sick := false
	return check.watch(ctx, func(healthy bool, problem error) {
		switch {
		case !healthy:
			c.report.Event(reconcile.ReasonUnhealthy, problem.Error())
			c.report.Phase(object.Unhealthy, problem.Error())
		case sick:
			c.report.Event(reconcile.ReasonHealthy, "its check succeeds again")
			fallthrough
		default:
			c.report.Phase(object.Running, "")
		}
		sick = !healthy
	})
}

// Stop implements reconcile.Controller.
func (c *controller) Stop(ctx context.Context, obj object.Object) error {
	return c.o.Sandbox.Stop(ctx, c.key, grace(obj))
}

// Remove implements reconcile.Controller.
func (c *controller) Remove(ctx context.Context, obj object.Object) error {
	return c.free(c.o.Sandbox.Remove(ctx, c.key, grace(obj)))
}

// Halt implements reconcile.Controller.
func (c *controller) Halt(ctx context.Context, obj object.Object) error {
	return c.free(c.o.Sandbox.Halt(ctx, c.key, grace(obj)))
}

// free forgets what a workload held whose sandbox is gone, unless that failed.
func (c *controller) free(err error) error {
	if err != nil {
		return err
	}
	c.o.Disk.Forget(c.key)
	c.set(func(st *object.WorkloadStatus) { st.PID, st.StartedAt, st.Address, st.Placement = 0, nil, "", nil })
	return nil
}

// grace is how long a workload gets to end; a default where its manifest cannot
// be read.
func grace(obj object.Object) time.Duration {
	if w, ok := obj.(*object.Workload); ok {
		return w.Spec.StopGrace.Std()
	}
	const unknown = 10 * time.Second
	return unknown
}
