package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/isolate"
	"oscine.dev/oscine/internal/node/allocate"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/core"
)

// model is the controller of one Model: it places it and hands it to the
// registry, which keeps its worker alive.
type model struct {
	*wish
	n   *Node
	key object.Key

	stMu   sync.Mutex
	served object.Object      // what the registry was given; nil for nothing
	st     object.ModelStatus // what the registry does not know

	changed chan struct{} // a signal that the registry knows more

	lostTo error // why its last placement is gone, until it has another; of run
}

func newModel(n *Node, obj *object.Model) *model {
	return &model{wish: newWish(obj), n: n, key: obj.Key(), st: object.ModelStatus{Observed: object.Observed{Phase: object.Pending}}, changed: make(chan struct{}, 1)}
}

func (m *model) update(obj object.Object) {
	m.await("")
	m.become(obj)
}

func (m *model) displace(reason error) {
	m.n.note(m.key, reasonDisplaced, reason.Error())
	m.await(reason.Error())
	m.lose(reason)
}

func (m *model) retry() {
	m.stMu.Lock()
	waits := m.served == nil && (m.st.Phase == object.Waiting || m.st.Phase == object.Unplaced)
	if waits {
		m.st.Phase = object.Pending
	}
	m.stMu.Unlock()
	if waits {
		m.ring()
	}
}

// noteChange wakes attend; changes that come before it looks are one.
func (m *model) noteChange() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// await says that what is served is not what is meant.
func (m *model) await(message string) {
	m.stMu.Lock()
	defer m.stMu.Unlock()
	m.st.Phase, m.st.Message, m.served = object.Pending, message, nil
}

var modelPhases = map[core.State]object.Phase{
	core.Starting: object.Starting, core.Ready: object.Running, core.Failed: object.Failed, core.Waiting: object.Waiting,
}

func (m *model) status() object.Status { return m.now() }

func (m *model) now() *object.ModelStatus {
	st, _ := m.brief()
	st.Isolation, st.Placement = m.n.isolation(m.key), m.n.placer.Now(m.key.ID(), st.Placement)
	return &st
}

// brief is the status without what has to be asked of isolation and placement,
// and what the registry says, nil where the model is not served as it is meant.
func (m *model) brief() (object.ModelStatus, *core.Status) {
	m.stMu.Lock()
	st, current := m.st, m.served != nil
	m.stMu.Unlock()
	served, err := m.n.registry.Status(m.key.Name)
	if err != nil || !current {
		return st, nil
	}
	st.Phase, st.Message, st.Restarts = modelPhases[served.State], served.Message, served.Restarts
	st.Engine, st.Requests, st.Errors = served.Engine, served.Requests, served.Errors
	st.Missed, st.Expired, st.PriorityUnavailable = served.Missed, served.Expired, served.PriorityUnavailable
	if served.Requests > 0 {
		st.P50, st.P99 = object.Duration(served.P50), object.Duration(served.P99)
	}
	return st, &served
}

func (m *model) set(change func(*object.ModelStatus)) {
	m.stMu.Lock()
	change(&m.st)
	m.stMu.Unlock()
	m.n.changes.publish(m.key)
}

func (m *model) run(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		obj := m.current().(*object.Model)
		err := m.serve(obj)
		if err == nil {
			m.lostTo = nil
			err = m.attend(ctx, obj)
			pause = firstPause
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			continue // the manifest changed
		}
		phase := object.Waiting
		if refused(err) {
			phase = object.Unplaced
		}
		err = since(m.lostTo, err)
		m.n.noteFailure(m.key, phase, err)
		m.n.log.Warn("model", "name", m.key.Name, "phase", phase, "error", err, "again", pause)
		m.set(func(st *object.ModelStatus) { st.Phase, st.Message = phase, err.Error() })
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// serve places the model and hands it to the registry.
func (m *model) serve(obj *object.Model) error {
	placement, displaced, err := m.n.placer.Place(m.n.life, m.n.store, obj)
	m.n.displace(displaced)
	if err != nil {
		m.n.shares.Release(m.n.life, m.key.ID())
		return err
	}
	m.n.shareCPUs()
	engine, root, err := m.n.mountPack(obj, placement.Devices)
	if err != nil {
		return err
	}
	if err := m.n.prepareShares(m.n.life, m.key, placement, 0); err != nil {
		return err
	}
	m.set(func(st *object.ModelStatus) {
		st.Phase, st.Message, st.Pack, st.Placement = object.Starting, "", engine.Digest, placement.Status()
	})
	m.n.log.Info("model placed", "name", m.key.Name, "placement", placement.Reason)
	served := core.Model{
		Name: m.key.Name, Version: obj.Spec.Version, Objective: obj.Spec.Resources.Latency.Std(),
		Platform: engine.Platform,
		Starter:  &workerContainer{model: m, obj: obj, placement: placement, engine: engine, root: root},
		OnChange: m.noteChange,
	}
	if isolate.Class(obj.Spec.Class) == isolate.Interactive { // real-time work has its priority, batch needs none
		served.Urgency = m.n.isolator.Priority(m.key.ID())
	}
	err = m.n.registry.Add(served)
	if err != nil {
		return err
	}
	m.stMu.Lock()
	defer m.stMu.Unlock()
	if m.current() == object.Object(obj) {
		m.served = obj
	}
	return nil
}

// attend publishes changes of the served model until its manifest changes.
func (m *model) attend(ctx context.Context, obj *object.Model) error {
	var last object.Phase
	for {
		if st := m.now(); st.Phase != last {
			last = st.Phase
			m.notePhase(st)
			m.n.changes.publish(m.key)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.changed:
		case <-m.wake:
			if lost := m.takeLost(); lost != nil || !sameObject(m.current(), obj) {
				m.lostTo = lost
				return m.n.registry.Remove(m.key.Name)
			}
		}
	}
}

func (m *model) remove(ctx context.Context) error {
	err := m.n.registry.Remove(m.key.Name)
	if errors.Is(err, core.ErrNotFound) {
		err = nil
	}
	if e := m.n.runtime.Delete(ctx, m.key.ID()); !errors.Is(e, container.ErrNotFound) {
		err = errors.Join(err, e)
	}
	err = errors.Join(err, m.n.isolator.Release(m.key.ID()))
	m.n.shares.Release(ctx, m.key.ID())
	m.n.placer.Release(m.key.ID())
	m.n.shareCPUs()
	return errors.Join(err, os.RemoveAll(m.socketDir()))
}

// socketDir is shown to the worker as core.SocketDir.
func (m *model) socketDir() string { return socketDir(m.n.config.RunDir, m.key) }

// socketDir has a short name whatever the model is called, so that the socket's
// path stays within sun_path's 108 bytes.
func socketDir(runDir string, key object.Key) string {
	return filepath.Join(runDir, "models", key.Short())
}

// workerContainer starts a model's worker in its own container and cgroup,
// with the pack as its root.
type workerContainer struct {
	model     *model
	obj       *object.Model
	placement *allocate.Placement
	engine    *pack.Info
	root      string // where the pack is mounted
}

// Start implements core.Starter.
func (w *workerContainer) Start(ctx context.Context) (core.Worker, error) {
	m := w.model
	dir := m.socketDir()
	// Nobody on the node passes the folder above; the worker sees only its own.
	if err := errors.Join(os.MkdirAll(dir, 0o711), os.Chmod(filepath.Dir(dir), 0o700)); err != nil {
		return nil, fmt.Errorf("make the worker's socket folder: %w", err)
	}
	spec := container.Spec{
		ID: m.key.ID(), RootFS: w.root,
		Labels:     map[string]string{labelManifest: manifestHash(w.obj)},
		Entrypoint: append(append([]string{}, w.engine.Entrypoint...), core.WorkerArgs(filepath.Join(core.SocketDir, core.SocketName))...),
		Mounts: []container.Mount{
			{Source: dir, Target: core.SocketDir, ReadOnly: true},
			{Source: m.n.modelFile(w.obj.Spec.Source), Target: core.ModelPath, ReadOnly: true},
		},
		Limits:     limits(w.placement, &w.obj.Spec.Resources),
		CgroupPath: cgroupPath(w.obj.Spec.Class, m.key.ID()),
		OOMScore:   oomScore(w.obj.Spec.Class),
		Hostname:   m.key.Name, LogBytes: m.n.logBytes(),
		Devices: w.placement.Devices, Env: w.placement.Env,
	}
	spec.Mounts = append(spec.Mounts, mounts(w.placement.Mounts)...)
	promise := promise(w.placement, m.key, w.obj.Spec.Class, &w.obj.Spec.Resources)
	err := m.n.startIsolated(ctx, promise, spec)
	if errors.Is(err, container.ErrRunning) { // from a manifest or placement of before
		if err = m.n.runtime.Stop(ctx, m.key.ID(), 0); err == nil {
			err = m.n.startIsolated(ctx, promise, spec)
		}
	}
	if err != nil {
		return nil, err
	}
	now, err := m.n.runtime.Status(ctx, m.key.ID())
	if err != nil {
		return nil, err
	}
	m.set(func(st *object.ModelStatus) { st.PID, st.StartedAt = now.PID, &now.StartedAt })
	return &workerProcess{
		m: m, socket: filepath.Join(dir, core.SocketName), pid: now.PID,
		load: channel.Load{Path: core.ModelPath, Threads: threadsOf(&w.obj.Spec.Resources), Options: w.obj.Spec.Options},
	}, nil
}

// threadsOf is how many threads make use of the CPUs that a model asks for.
func threadsOf(r *object.Resources) int {
	milli, _ := r.CPU.MilliValue() // checked with the manifest
	return max(1, int(milli+999)/1000)
}

type workerProcess struct {
	m      *model
	socket string
	pid    int // of the container's first process
	load   channel.Load
}

func (w *workerProcess) Socket() string { return w.socket }

func (w *workerProcess) Load() channel.Load { return w.load }

// Owns implements core.Worker: the worker's processes are those of its
// container's PID namespace.
func (w *workerProcess) Owns(pid int) bool {
	if pid == w.pid {
		return true
	}
	namespace := func(pid string) string {
		name, err := os.Readlink(filepath.Join("/proc", pid, "ns/pid"))
		if err != nil {
			return ""
		}
		return name
	}
	its := namespace(strconv.Itoa(w.pid))
	return its != "" && its == namespace(strconv.Itoa(pid)) && its != namespace("self")
}

// Wait implements core.Worker. It ends with the node's life too; the worker
// then goes on for the next daemon.
func (w *workerProcess) Wait() error {
	now, err := w.m.n.runtime.Wait(w.m.n.life, w.m.key.ID())
	switch {
	case err != nil:
		return err
	case now.OOMKilled:
		return errors.New("the worker needed more than its memory limit")
	case now.ExitCode != 0:
		return fmt.Errorf("the worker ended with exit code %d; see oscine logs model %s", now.ExitCode, w.m.key.Name)
	}
	return nil
}

func (w *workerProcess) Kill() error {
	err := w.m.n.runtime.Kill(context.Background(), w.m.key.ID(), container.Abort)
	if errors.Is(err, container.ErrNotFound) {
		return nil
	}
	return err
}

// modelFile is where the model of a digest lies.
func (n *Node) modelFile(digest string) string {
	return filepath.Join(n.config.StateDir, "models", strings.TrimPrefix(digest, "sha256:"))
}

func (n *Node) checkModelSource(obj *object.Model) error {
	if _, err := os.Stat(n.modelFile(obj.Spec.Source)); err != nil {
		return fmt.Errorf("%s: spec.source: this node has no model file %s: upload it with oscine serve FILE", obj.Key(), obj.Spec.Source)
	}
	return nil
}
