package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/object"
)

// workload is the controller of one Workload.
type workload struct {
	*wish
	n   *Node
	key object.Key

	stMu sync.Mutex
	st   object.WorkloadStatus

	lostTo error // why its last placement is gone, until it has another; of run
}

func newWorkload(n *Node, obj *object.Workload) *workload {
	return &workload{wish: newWish(obj), n: n, key: obj.Key(), st: object.WorkloadStatus{Observed: object.Observed{Phase: object.Pending}}}
}

func (w *workload) update(obj object.Object) {
	w.stMu.Lock()
	w.st.Phase, w.st.Message = object.Pending, ""
	w.stMu.Unlock()
	w.become(obj)
}

func (w *workload) displace(reason error) {
	w.n.note(w.key, reasonDisplaced, reason.Error())
	w.lose(reason)
}

func (w *workload) retry() {
	w.stMu.Lock()
	waits := w.st.Phase == object.Waiting || w.st.Phase == object.Unplaced
	if waits {
		w.st.Phase = object.Pending
	}
	w.stMu.Unlock()
	if waits {
		w.ring()
	}
}

func (w *workload) status() object.Status { return w.now() }

func (w *workload) now() *object.WorkloadStatus {
	w.stMu.Lock()
	st := w.st
	w.stMu.Unlock()
	st.Isolation, st.Placement = w.n.isolation(w.key), w.n.placer.Now(w.key.ID(), st.Placement)
	for _, held := range w.n.disk.Held(w.key) {
		st.Storage = append(st.Storage, object.StorageStatus(held))
	}
	return &st
}

func (w *workload) set(change func(*object.WorkloadStatus)) {
	w.stMu.Lock()
	change(&w.st)
	w.stMu.Unlock()
	w.n.changes.publish(w.key)
}

// Pauses between tries of a workload that fails: doubled from the first to
// the last, and forgotten after a run of healthyRun.
const (
	firstPause = time.Second
	lastPause  = time.Minute
	healthyRun = time.Minute
)

func (w *workload) run(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		obj := w.current().(*object.Workload)
		began := time.Now()
		err := w.bringUp(ctx, obj)
		if err == nil {
			err = w.attend(ctx, obj)
		}
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errChanged):
			pause = firstPause
			continue
		case errors.Is(err, errFinished):
			if !w.sleep(ctx, 0) {
				return
			}
			pause = firstPause
			continue
		}
		if time.Since(began) > healthyRun {
			pause = firstPause
		}
		w.fail(err, pause)
		if !w.sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, lastPause)
		w.set(func(st *object.WorkloadStatus) { st.Restarts++ })
	}
}

// errChanged ends attend when the manifest changed, errFinished when the
// workload ended and stays so.
var (
	errChanged  = errors.New("the manifest changed")
	errFinished = errors.New("the workload has finished")
)

// sleep waits for a change of the manifest or, unless d is 0, for d. It
// reports false when ctx ended.
func (w *workload) sleep(ctx context.Context, d time.Duration) bool {
	var timer <-chan time.Time
	if d > 0 {
		timer = time.After(d)
	}
	select {
	case <-ctx.Done():
		return false
	case <-w.wake:
	case <-timer:
	}
	return true
}

func (w *workload) fail(err error, pause time.Duration) {
	err = since(w.lostTo, err)
	phase := object.Waiting
	if refused(err) {
		phase = object.Unplaced
	}
	w.n.noteFailure(w.key, phase, err)
	w.n.log.Warn("workload", "name", w.key.Name, "phase", phase, "error", err, "again", pause)
	w.set(func(st *object.WorkloadStatus) {
		st.Phase, st.Message, st.PID = phase, err.Error(), 0
	})
}

// bringUp takes the workload from wherever it is to a running container; for
// one that an earlier daemon left running it changes nothing.
func (w *workload) bringUp(ctx context.Context, obj *object.Workload) error {
	began := time.Now()
	if done, err := w.finishedBefore(ctx, obj); err != nil || done {
		return err
	}
	if err := errors.Join(w.n.admit(&obj.Spec.Resources), w.n.disk.Admit(w.key)); err != nil {
		return err
	}
	placement, displaced, err := w.n.placer.Place(ctx, w.n.store, obj)
	w.n.displace(displaced)
	if err != nil {
		w.n.shares.Release(ctx, w.key.ID())
		return err
	}
	w.n.shareCPUs()
	w.set(func(st *object.WorkloadStatus) {
		st.Phase, st.Message, st.Placement = object.Pending, "", placement.Status()
	})
	image, err := w.image(ctx, obj.Spec.Image)
	if err != nil {
		return err
	}
	if err := w.claimVolumes(obj); err != nil {
		return err
	}
	netns, addr, err := w.n.bridge.Attach(ctx, w.key.ID(), obj.Spec.Ports)
	if err != nil {
		return err
	}
	if err := w.n.prepareShares(ctx, w.key, placement, obj.Spec.StopGrace.Std()); err != nil {
		return err
	}
	spec := w.spec(obj, image, placement, netns)
	if obj.Spec.Security.WritableRoot {
		spec.Created = func(ctx context.Context, _ int) error { return w.claimLayer(ctx, obj) }
	}
	promise := promise(placement, w.key, obj.Spec.Class, &obj.Spec.Resources)
	err = w.n.startIsolated(ctx, promise, spec)
	if errors.Is(err, container.ErrRunning) { // from a manifest or placement of before
		if err = w.n.runtime.Stop(ctx, w.key.ID(), obj.Spec.StopGrace.Std()); err == nil {
			err = w.n.startIsolated(ctx, promise, spec)
		}
	}
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if obj.Spec.Security.WritableRoot { // it may run since before this daemon
		err = w.claimLayer(ctx, obj)
	}
	now, e := w.n.runtime.Status(ctx, w.key.ID())
	if err = errors.Join(err, e); err != nil {
		return err
	}
	w.set(func(st *object.WorkloadStatus) {
		st.Phase, st.Message, st.PID, st.Digest = object.Starting, "", now.PID, now.Digest
		st.StartedAt, st.Address = &now.StartedAt, addr.String()
		if obj.Spec.Health == nil {
			st.Phase = object.Running
		}
	})
	w.lostTo = nil
	w.n.noteStart(w.key, began, now.StartedAt, placement)
	w.n.log.Info("workload runs", "name", w.key.Name, "pid", now.PID, "placement", placement.Reason)
	return nil
}

// finishedBefore tells whether the workload ended under an earlier daemon in
// a way that its restart policy leaves alone.
func (w *workload) finishedBefore(ctx context.Context, obj *object.Workload) (bool, error) {
	now, err := w.n.runtime.Status(ctx, w.key.ID())
	if err != nil || now.State != container.Exited || now.ExitCode < 0 || now.Labels[labelManifest] != manifestHash(obj) {
		return false, nil // not there, still running, lost to a reboot, or of an older manifest
	}
	if w.restarts(obj.Spec.Restart, now.ExitCode) {
		return false, nil
	}
	w.finished(now)
	return true, errFinished
}

func (w *workload) restarts(policy object.RestartPolicy, exitCode int) bool {
	return policy == object.RestartAlways || (policy == object.RestartOnFailure && exitCode != 0)
}

func (w *workload) finished(now container.Status) {
	w.n.shares.Release(w.n.life, w.key.ID()) // made anew where it starts again
	w.set(func(st *object.WorkloadStatus) {
		st.Phase, st.Message, st.PID, st.ExitCode, st.OOMKilled = object.Exited, "", 0, &now.ExitCode, now.OOMKilled
	})
}

// image pulls the reference unless it is here.
func (w *workload) image(ctx context.Context, ref string) (string, error) {
	name, err := w.n.findImage(ctx, ref)
	if err != nil || name != "" {
		return name, err
	}
	if err := w.n.disk.Room(); err != nil {
		return "", fmt.Errorf("pull %s: %w", ref, err)
	}
	w.set(func(st *object.WorkloadStatus) { st.Phase, st.Message = object.Pulling, ref })
	pulled, err := w.n.runtime.Pull(ctx, ref, func(line string) {
		w.set(func(st *object.WorkloadStatus) { st.Message = line })
	})
	if err != nil {
		return "", fmt.Errorf("pull %s: %w", ref, err)
	}
	return pulled.Name, nil
}

// labelManifest holds the hash of the manifest that a container was started
// for.
const labelManifest = "oscine.dev/manifest"

func (w *workload) spec(obj *object.Workload, image string, placement *allocate.Placement, netns string) container.Spec {
	s := obj.Spec
	spec := container.Spec{
		ID: w.key.ID(), Image: image,
		Labels:     map[string]string{labelManifest: manifestHash(obj)},
		Entrypoint: s.Command, Args: s.Args, Cwd: s.WorkingDir, User: s.User,
		Limits:     limits(placement, &s.Resources),
		CgroupPath: cgroupPath(s.Class, w.key.ID()),
		OOMScore:   oomScore(s.Class),
		NetNS:      netns, Hostname: w.key.Name,
		Security: container.Security{AllowRoot: s.Security.AllowRoot, WritableRoot: s.Security.WritableRoot, AddCapabilities: s.Security.AddCapabilities},
		Devices:  placement.Devices,
		LogBytes: w.n.logBytes(),
	}
	spec.Env = overridden(environment(s.Env), placement.Env)
	spec.Mounts = mounts(placement.Mounts)
	for _, v := range s.Volumes {
		spec.Mounts = append(spec.Mounts, container.Mount{
			Source: w.n.volume(v.Name), Target: v.Path, ReadOnly: v.ReadOnly, Volume: true,
		})
	}
	return spec
}

// attend watches a running workload until it ends, its check fails for good
// or its manifest changes.
func (w *workload) attend(ctx context.Context, obj *object.Workload) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- w.awaitEnd(ctx, obj) }()
	sick := make(chan error, 1)
	if obj.Spec.Health != nil {
		go func() { sick <- w.watchHealth(ctx, obj) }()
	}
	select {
	case err := <-ended:
		return err
	case err := <-sick:
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return errors.Join(fmt.Errorf("stopped because its health check failed: %w", err),
			w.n.runtime.Stop(ctx, w.key.ID(), obj.Spec.StopGrace.Std()))
	case <-w.wake:
		why := "to start with its new manifest"
		if lost := w.takeLost(); lost != nil {
			why, w.lostTo = lost.Error(), lost
		} else if sameObject(w.current(), obj) {
			return errChanged
		}
		w.set(func(st *object.WorkloadStatus) { st.Phase, st.Message = object.Pending, "stopping: "+why })
		if err := w.n.runtime.Stop(ctx, w.key.ID(), obj.Spec.StopGrace.Std()); err != nil {
			return fmt.Errorf("stop %s: %w", why, err)
		}
		return errChanged
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *workload) awaitEnd(ctx context.Context, obj *object.Workload) error {
	now, err := w.n.runtime.Wait(ctx, w.key.ID())
	if err != nil {
		return err
	}
	if !w.restarts(obj.Spec.Restart, now.ExitCode) {
		w.n.note(w.key, reasonExited, fmt.Sprintf("exit code %d", now.ExitCode))
		w.finished(now)
		return errFinished
	}
	w.set(func(st *object.WorkloadStatus) { st.ExitCode, st.OOMKilled = &now.ExitCode, now.OOMKilled })
	if now.OOMKilled {
		return fmt.Errorf("killed: it needed more than its memory limit of %s", obj.Spec.Resources.Memory)
	}
	return fmt.Errorf("ended with exit code %d", now.ExitCode)
}

func (w *workload) watchHealth(ctx context.Context, obj *object.Workload) error {
	addr, err := netip.ParseAddr(w.now().Address)
	if err != nil {
		return fmt.Errorf("the workload has no address: %w", err)
	}
	check := &healthCheck{Health: *obj.Spec.Health, addr: addr, exec: func(ctx context.Context, command []string) (int, error) {
		return w.n.runtime.Exec(ctx, w.key.ID(), container.Exec{Args: command})
	}}
	sick := false
	return check.watch(ctx, func(healthy bool, problem error) {
		if !healthy {
			w.n.note(w.key, reasonUnhealthy, problem.Error())
		} else if sick {
			w.n.note(w.key, reasonHealthy, "its check succeeds again")
		}
		sick = !healthy
		w.set(func(st *object.WorkloadStatus) {
			st.Phase, st.Message = object.Running, ""
			if !healthy {
				st.Phase, st.Message = object.Unhealthy, problem.Error()
			}
		})
	})
}

func (w *workload) remove(ctx context.Context) error {
	obj := w.current().(*object.Workload)
	err := w.n.runtime.Stop(ctx, w.key.ID(), obj.Spec.StopGrace.Std())
	if errors.Is(err, container.ErrNotFound) {
		err = nil
	}
	if e := w.n.runtime.Delete(ctx, w.key.ID()); !errors.Is(e, container.ErrNotFound) {
		err = errors.Join(err, e)
	}
	err = errors.Join(err, w.n.bridge.Detach(w.key.ID()), w.n.isolator.Release(w.key.ID()))
	w.n.disk.Forget(w.key)
	w.n.shares.Release(ctx, w.key.ID())
	w.n.placer.Release(w.key.ID())
	w.n.shareCPUs()
	return err
}
