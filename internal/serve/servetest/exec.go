package servetest

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/core"
)

// Exec is a Starter that runs the worker as a plain child process, without a
// container. It never adopts a worker of an earlier daemon.
type Exec struct {
	Command []string // the worker program and its first arguments
	Threads int      // of the engine; 0 means as many as there are processors
	Model   string   // path of the model file
	Dir     string   // private directory for the socket; made if absent
	Log     io.Writer
	Env     []string // added to the environment, KEY=value
	Name    string   // by which clients ask for the model
	Options map[string]string
}

// Again returns a Starter of another worker for the same model.
func (e *Exec) Again(t testing.TB) *Exec {
	other := *e
	other.Dir = filepath.Join(t.TempDir(), "s")
	return &other
}

// Start implements core.Starter.
func (e *Exec) Start(context.Context) (core.Worker, error) {
	if err := os.MkdirAll(e.Dir, 0o700); err != nil {
		return nil, err
	}
	socket := filepath.Join(e.Dir, core.SocketName)
	args := append(e.Command[1:len(e.Command):len(e.Command)], core.WorkerArgs(socket)...)
	cmd := exec.Command(e.Command[0], args...)
	cmd.Env = append(os.Environ(), e.Env...)
	cmd.Stdout, cmd.Stderr = e.Log, e.Log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", e.Command[0], err)
	}
	return &process{cmd: cmd, socket: socket, load: channel.Load{Path: e.Model, Threads: e.Threads, Name: e.Name, Options: e.Options}}, nil
}

// process is a worker that Exec started.
type process struct {
	cmd    *exec.Cmd
	socket string
	load   channel.Load
}

func (p *process) Socket() string     { return p.socket }
func (p *process) Owns(pid int) bool  { return pid == p.cmd.Process.Pid }
func (p *process) Load() channel.Load { return p.load }
func (p *process) Wait() error        { return p.cmd.Wait() }
func (p *process) Kill() error        { return p.cmd.Process.Kill() }
