package model

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"oscine.dev/oscine/internal/container"
	"oscine.dev/oscine/internal/object"
)

// ErrMemory means that a worker needed more than its memory limit.
var ErrMemory = errors.New("the worker needed more than its memory limit")

// Worker is a living engine worker.
type Worker struct {
	c       *controller
	key     object.Key // of its container
	socket  string
	pid     int // of the container's first process
	threads int
	options map[string]string
	served  string
	memory  int64
	model   string // as it sees it
}

// Socket is the path of the Unix socket on which the worker listens, or soon
// will.
func (w *Worker) Socket() string { return w.socket }

// Threads is how many threads the worker is to compute with.
func (w *Worker) Threads() int { return w.threads }

// Options are passed to the engine with the model.
func (w *Worker) Options() map[string]string { return w.options }

// ServedAs is the name by which clients ask for the model.
func (w *Worker) ServedAs() string { return w.served }

// Model is the path of the model's file or folder, as the worker sees it.
func (w *Worker) Model() string { return w.model }

// Memory is the worker's limit in bytes, 0 for none.
func (w *Worker) Memory() int64 { return w.memory }

// Owns reports whether a process is the worker's: its processes are those of its
// container's PID namespace.
func (w *Worker) Owns(pid int) bool {
	if pid == w.pid {
		return true
	}
	namespace := func(pid string) string {
		name, err := os.Readlink(filepath.Join("/proc", pid, "ns/pid"))
		if err != nil {
			return "" // it has ended
		}
		return name
	}
	own := namespace(strconv.Itoa(w.pid))
	return own != "" && own == namespace(strconv.Itoa(pid)) && own != namespace("self")
}

// Wait blocks until the process has ended and says how. It ends with the
// daemon's life too; the worker then goes on for the next daemon.
func (w *Worker) Wait() error {
	now, err := w.c.o.Sandbox.Runtime.Wait(w.c.o.Life, w.key.ID())
	switch {
	case err != nil:
		return err
	case now.OOMKilled:
		return ErrMemory
	case now.ExitCode != 0 && w.key.Kind == guest: // whose log goes with it
		return fmt.Errorf("the worker ended with exit code %d", now.ExitCode)
	case now.ExitCode != 0:
		see := w.c.key.Name
		if _, i := w.key.Instance(); i > 0 {
			see += fmt.Sprintf(" --instance %d", i+1)
		}
		return fmt.Errorf("the worker ended with exit code %d; see oscine logs model %s", now.ExitCode, see)
	}
	return nil
}

// Kill ends the process at once and lets Wait return.
func (w *Worker) Kill() error {
	err := w.c.o.Sandbox.Runtime.Kill(context.WithoutCancel(w.c.o.Life), w.key.ID(), container.Abort)
	if errors.Is(err, container.ErrNotFound) || errors.Is(err, container.ErrNotRunning) {
		return nil // it ended by itself, as a worker does that refuses its model
	}
	return err
}
