package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/journal"
)

// callTime bounds one question to a shim: it answers in microseconds, or its
// machine is in trouble.
const callTime = 10 * time.Second

// adopt takes over what an earlier process left: containers that run are
// followed, those that ended get their exit recorded, and a start that was cut
// short is undone.
func (r *Runtime) adopt(ctx context.Context) error {
	all, err := r.engine.containers.List(ctx)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, c := range all {
		known[c.ID] = true
		if err := r.adoptOne(ctx, c); err != nil {
			r.log.Warn("take over container", "id", c.ID, "error", err)
		}
	}
	for _, parent := range []string{r.stateDir(""), r.layerDir("")} {
		entries, err := os.ReadDir(parent)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for _, entry := range entries {
			if !known[entry.Name()] {
				os.RemoveAll(filepath.Join(parent, entry.Name())) // best effort: it takes space, no more
			}
		}
	}
	return nil
}

func (r *Runtime) adoptOne(ctx context.Context, c containers.Container) error {
	rec, err := recordOf(c)
	if err != nil {
		return errors.Join(err, r.remove(ctx, c.ID))
	}
	task, err := r.engine.tasks.Get(ctx, c.ID)
	switch {
	case err != nil && rec.StartedAt.IsZero():
		return r.remove(ctx, c.ID)
	case err != nil:
		if rec.Exit != nil {
			return nil
		}
		rec.Exit = &exit{Code: -1, At: time.Now()}
		return r.engine.keep(ctx, c.ID, rec)
	}
	asked, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	state, err := task.State(asked)
	if err != nil {
		return err
	}
	if state.Status == runtime.CreatedStatus {
		return r.remove(ctx, c.ID)
	}
	r.follow(c.ID, task) // returns at once for one that has ended
	return nil
}

// follow waits for the end of a container in the background.
func (r *Runtime) follow(id string, task runtime.Task) {
	// Not counted by Close: a shim answers only when its container ends.
	ctx := r.context(context.Background())
	go func() {
		ended, err := task.Wait(ctx)
		if err != nil {
			// The shim is gone. containerd has killed what it left.
			ended = &runtime.Exit{Status: 255, Timestamp: time.Now()}
		}
		r.closing.RLock()
		defer r.closing.RUnlock()
		if r.closed {
			return // the next process sees it
		}
		if err := r.recordExit(ctx, id, task, ended); err != nil && !errors.Is(err, ErrNotFound) {
			r.log.Warn("record the end of a container", "id", id, "error", err)
		}
	}()
}

// recordExit keeps how a container ended, frees its shim, and tells those who
// wait. The record comes first: a crash in between repeats all of it.
func (r *Runtime) recordExit(ctx context.Context, id string, task runtime.Task, ended *runtime.Exit) error {
	if err := r.locks.Lock(ctx, id); err != nil {
		return err
	}
	defer r.locks.Unlock(id)
	_, rec, err := r.container(ctx, id)
	if err != nil {
		return err
	}
	if now, err := r.engine.tasks.Get(ctx, id); err == nil && !sameTask(ctx, now, task) {
		return nil // a new run has begun
	}
	rec.Exit = &exit{Code: int(ended.Status), At: ended.Timestamp}
	rec.judge()
	if err := r.engine.keep(ctx, id, rec); err != nil {
		return err
	}
	if err = r.endTask(ctx, id); errdefs.IsNotFound(err) {
		err = nil // its shim died, and containerd put it away
	}
	r.hub.send(Event{Type: EventExited, ID: id, ExitCode: rec.Exit.Code, Time: rec.Exit.At})
	return err
}

// sameTask compares by process: a task has it until it is deleted.
func sameTask(ctx context.Context, a, b runtime.Task) bool {
	pidA, errA := a.PID(ctx)
	pidB, errB := b.PID(ctx)
	return errA != nil || errB != nil || pidA == pidB
}

// endTask deletes a container's task and shim, killing what runs.
func (r *Runtime) endTask(ctx context.Context, id string) error {
	task, err := r.engine.tasks.Get(ctx, id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*callTime)
	defer cancel()
	failed := r.tryEndTask(ctx, id, task)
	if failed == nil || errdefs.IsNotFound(failed) {
		return failed
	}
	// If the shim died, containerd is putting away what it left.
	for range 100 {
		if _, err := r.engine.tasks.Get(ctx, id); err != nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return failed
}

func (r *Runtime) tryEndTask(ctx context.Context, id string, task runtime.Task) error {
	if state, err := task.State(ctx); err == nil && state.Status != runtime.StoppedStatus {
		if err := task.Kill(ctx, uint32(syscall.SIGKILL), true); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("kill: %w", err)
		}
		if _, err := task.Wait(ctx); err != nil {
			return fmt.Errorf("wait for its end: %w", err)
		}
	}
	_, err := r.engine.tasks.Delete(ctx, id)
	return err
}

// Stop sends SIGTERM, then SIGKILL after grace, and waits for the end. It does
// nothing to a container that has ended. Errors: ErrNotFound.
func (r *Runtime) Stop(ctx context.Context, id string, grace time.Duration) error {
	marked, err := r.markStopped(ctx, id, true)
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, max(grace, 0))
	defer cancel()
	if err := r.Kill(ctx, id, syscall.SIGTERM); err != nil {
		if marked && errors.Is(err, ErrNotRunning) { // it has just ended by itself
			_, err = r.markStopped(ctx, id, false)
		}
		return endedIsFine(err)
	}
	if _, err := r.Wait(waiting, id); err == nil || ctx.Err() != nil {
		return err
	}
	if err := r.Kill(ctx, id, syscall.SIGKILL); err != nil {
		return endedIsFine(err)
	}
	_, err = r.Wait(ctx, id)
	return err
}

// markStopped records that a container that runs is being stopped, or that it was
// not in the end. It reports whether that changes anything.
func (r *Runtime) markStopped(ctx context.Context, id string, stopped bool) (bool, error) {
	ctx = r.context(ctx)
	if err := r.locks.Lock(ctx, id); err != nil {
		return false, err
	}
	defer r.locks.Unlock(id)
	_, rec, err := r.container(ctx, id)
	if err != nil || rec.Stopped == stopped || stopped && rec.Exit != nil {
		return false, err
	}
	rec.Stopped = stopped
	return true, r.engine.keep(ctx, id, rec)
}

func endedIsFine(err error) error {
	if errors.Is(err, ErrNotRunning) {
		return nil
	}
	return err
}

// Kill sends a signal to the container's first process.
// Errors: ErrNotFound, ErrNotRunning.
func (r *Runtime) Kill(ctx context.Context, id string, signal syscall.Signal) error {
	task, err := r.task(r.context(ctx), id)
	if err != nil {
		return err
	}
	if err := task.Kill(r.context(ctx), uint32(signal), false); err != nil {
		if errdefs.IsNotFound(err) {
			return fmt.Errorf("container %s %w", id, ErrNotRunning)
		}
		return fmt.Errorf("signal container %s: %w", id, err)
	}
	return nil
}

// task finds the task of a container that runs.
func (r *Runtime) task(ctx context.Context, id string) (runtime.Task, error) {
	if _, _, err := r.container(ctx, id); err != nil {
		return nil, err
	}
	task, err := r.engine.tasks.Get(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("container %s %w", id, ErrNotRunning)
	}
	state, err := task.State(ctx)
	if errdefs.IsNotFound(err) { // it ended this moment
		return nil, fmt.Errorf("container %s %w", id, ErrNotRunning)
	}
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", id, err)
	}
	if state.Status == runtime.StoppedStatus {
		return nil, fmt.Errorf("container %s %w", id, ErrNotRunning)
	}
	return task, nil
}

// Delete removes a container, killing it if it runs, and its log, also where
// only that is left of it. Errors: ErrNotFound.
func (r *Runtime) Delete(ctx context.Context, id string) error {
	ctx = r.context(ctx)
	if err := r.locks.Lock(ctx, id); err != nil {
		return err
	}
	defer r.locks.Unlock(id)
	cleared := r.clear(ctx, id)
	if cleared != nil && !errors.Is(cleared, ErrNotFound) {
		return cleared
	}
	if err := journal.Remove(r.LogPath(id)); err != nil {
		return fmt.Errorf("delete container %s: %w", id, err)
	}
	return cleared
}

// Clear removes a container, killing it if it runs; its log stays.
// Errors: ErrNotFound.
func (r *Runtime) Clear(ctx context.Context, id string) error {
	ctx = r.context(ctx)
	if err := r.locks.Lock(ctx, id); err != nil {
		return err
	}
	defer r.locks.Unlock(id)
	return r.clear(ctx, id)
}

// clear does the work of Clear. The caller holds the container's lock.
func (r *Runtime) clear(ctx context.Context, id string) error {
	if _, err := r.engine.containers.Get(ctx, id); err != nil {
		return named("container "+id, err)
	}
	// Not stopped half-way: the record goes last, so that this can be repeated.
	if err := r.remove(context.WithoutCancel(ctx), id); err != nil {
		return fmt.Errorf("delete container %s: %w", id, err)
	}
	r.hub.send(Event{Type: EventDeleted, ID: id, Time: time.Now()})
	return nil
}

// Status tells about one container. Errors: ErrNotFound.
func (r *Runtime) Status(ctx context.Context, id string) (Status, error) {
	ctx = r.context(ctx)
	c, _, err := r.container(ctx, id)
	if err != nil {
		return Status{}, err
	}
	return r.status(ctx, c)
}

// List tells about all containers, by ID.
func (r *Runtime) List(ctx context.Context) ([]Status, error) {
	ctx = r.context(ctx)
	all, err := r.engine.containers.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var result []Status
	for _, c := range all {
		status, err := r.status(ctx, c)
		if err != nil {
			return nil, err
		}
		result = append(result, status)
	}
	slices.SortFunc(result, func(a, b Status) int { return strings.Compare(a.ID, b.ID) })
	return result, nil
}

func (r *Runtime) status(ctx context.Context, c containers.Container) (Status, error) {
	rec, err := recordOf(c)
	if err != nil {
		return Status{}, err
	}
	s := Status{
		ID: c.ID, Image: rec.Image, Digest: rec.Digest, Labels: rec.Labels, State: Created,
		StartedAt: rec.StartedAt, CgroupPath: rec.CgroupPath, LogPath: rec.LogPath, SpecHash: rec.SpecHash,
	}
	if rec.Exit != nil {
		s.State, s.ExitCode, s.OOMKilled, s.Stopped, s.ExitedAt = Exited, rec.Exit.Code, rec.Exit.OOMKilled, rec.Stopped, rec.Exit.At
		return s, nil
	}
	if !rec.StartedAt.IsZero() {
		s.State = Running // also if it has just ended: its exit is not recorded yet
	}
	task, err := r.engine.tasks.Get(ctx, c.ID)
	if err != nil {
		return s, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	pid, err := task.PID(ctx)
	if err != nil && ctx.Err() != nil {
		return s, fmt.Errorf("container %s: its shim does not answer: %w", c.ID, err)
	}
	s.PID = int(pid)
	return s, nil
}

// Wait returns the status of a container once it is Exited, and all that it
// said is in its log.
// Errors: ErrNotFound, also if it is deleted meanwhile.
func (r *Runtime) Wait(ctx context.Context, id string) (Status, error) {
	listening, cancel := context.WithCancel(ctx)
	defer cancel()
	events := r.Events(listening)
	for {
		status, err := r.Status(ctx, id)
		if err != nil {
			return status, err
		}
		if status.State == Exited {
			// The recorder of that holds the lock until its logger has ended.
			if err := r.locks.Lock(ctx, id); err != nil {
				return status, err
			}
			r.locks.Unlock(id)
			return status, nil
		}
	next:
		for {
			select {
			case event, ok := <-events:
				if !ok {
					return status, ctx.Err()
				}
				if event.ID == id {
					break next
				}
			case <-time.After(time.Second): // an event may have been lost
				break next
			}
		}
	}
}
