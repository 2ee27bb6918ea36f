package core

import (
	"context"
	"strconv"
)

// Starter brings the worker of one model to life. Each model has its own, so
// an implementation holds everything it needs to know: the pack's mount
// directory, the model file, cores and limits.
type Starter interface {
	// Start starts the worker process, or adopts the one that an earlier
	// daemon left running for the same model, and returns once the process
	// exists; it need not listen yet. The registry calls Start again after the
	// worker has ended, never while one lives. An error is tried again later.
	Start(ctx context.Context) (Worker, error)
}

// Worker is a living engine worker.
type Worker interface {
	// Socket is the path of the Unix socket, on the host's side, on which the
	// worker listens (or soon will).
	Socket() string
	// Wait blocks until the process has ended and says how. It may be called
	// once.
	Wait() error
	// Kill ends the process at once (SIGKILL) and lets Wait return.
	Kill() error
}

// Paths inside a worker's container. The Starter bind-mounts a private
// directory of the host at SocketDir (writable) and the model file at
// ModelPath (read-only); the pack is the root file system.
const (
	SocketDir  = "/run/oscine"
	SocketName = "worker.sock"
	ModelPath  = "/model"
)

// WorkerArgs returns the arguments that follow the pack's entrypoint: which
// socket to listen on, which model file to load, and how many threads to
// compute with. They are never more than the worker's cpuset has processors; 0
// means that many. Where a share of CPUs is promised, more threads than the
// share only wait for each other.
func WorkerArgs(socket, model string, threads int) []string {
	return []string{"--socket", socket, "--model", model, "--threads", strconv.Itoa(threads)}
}
