package core

import (
	"context"

	"oscine.dev/oscine/internal/serve/channel"
)

// Starter brings the worker of one instance of a model to life. Each instance has its
// own, so an implementation holds everything it needs to know: the pack's mount
// directory, the model file, cores and limits.
type Starter interface {
	// Start starts the worker process, or adopts the one that an earlier
	// daemon left running for the same instance, and returns once the process
	// exists; it need not listen yet. The registry calls Start again after the
	// worker has ended, never while one lives. An error is tried again later.
	Start(ctx context.Context) (Worker, error)
}

// Worker is a living engine worker.
type Worker interface {
	// Socket is the path of the Unix socket, on the host's side, on which the
	// daemon is to listen for the worker. Nobody else may reach its folder, and
	// the worker may not write to it.
	Socket() string
	// Owns reports whether a process, as this one numbers it, is the worker's:
	// no other may connect in its place.
	Owns(pid int) bool
	// Load says what the worker is to load.
	Load() channel.Load
	// Wait blocks until the process has ended and says how: with an ErrMemory
	// where it needed more memory than it may have. It may be called once.
	Wait() error
	// Kill ends the process at once (SIGKILL) and lets Wait return.
	Kill() error
}

// Paths inside a worker's container. The Starter bind-mounts a private
// directory of the host at SocketDir and the model at ModelPath, or at ModelFolder
// where it is a folder, both read-only; the pack is the root file system.
const (
	SocketDir   = "/run/oscine"
	SocketName  = "worker.sock"
	ModelPath   = "/model"
	ModelFolder = "/model.d"
)

// WorkerArgs returns the arguments that follow the pack's entrypoint: where the
// daemon listens. The channel carries all the rest.
func WorkerArgs(socket string) []string { return []string{"--socket", socket} }
