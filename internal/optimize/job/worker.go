package job

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"

	"oscine.dev/oscine/internal/serve/channel"
)

// worker is an engine worker as a child of this process.
type worker struct {
	cmd    *exec.Cmd
	socket string
	load   channel.Load
}

// startWorker starts an engine for a model; its socket lies in dir, which is its own.
func startWorker(ctx context.Context, engine []string, dir, model string, threads int, log io.Writer) (*worker, error) {
	socket := filepath.Join(dir, "worker.sock")
	cmd := exec.CommandContext(ctx, engine[0], append(engine[1:len(engine):len(engine)], "--socket", socket)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the engine: %w", err)
	}
	return &worker{cmd, socket, channel.Load{Path: model, Threads: threads, Name: "model"}}, nil
}

// Socket implements trial.Worker.
func (w *worker) Socket() string { return w.socket }

// Owns implements trial.Worker.
func (w *worker) Owns(pid int) bool { return pid == w.cmd.Process.Pid }

// Load implements trial.Worker.
func (w *worker) Load() channel.Load { return w.load }

// Wait implements trial.Worker.
func (w *worker) Wait() error { return w.cmd.Wait() }

// Kill implements trial.Worker.
func (w *worker) Kill() error { return w.cmd.Process.Kill() }
