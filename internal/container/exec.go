package container

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"
)

// Exec is a process to add to a running container. It has the container's
// environment, privileges and limits.
type Exec struct {
	Args []string // none: what a container that waits, by Spec.Hold, would have run
	Env  []string // KEY=value, over the container's
	Cwd  string   // "" means the container's
	User string   // uid[:gid]; "" means the container's

	TTY    bool        // a terminal: Stderr is not used
	Size   Size        // of the terminal at first; zero means 80 by 24
	Resize <-chan Size // later sizes

	Stdin          io.Reader // nil is empty; reading it ends when the caller makes it end
	Stdout, Stderr io.Writer // nil discards
}

// errNoCommand is returned where there is nothing to run.
var errNoCommand = errdefs.ErrInvalidArgument.WithMessage("no command is given")

// Size is a terminal's, in characters.
type Size struct{ Columns, Rows uint16 }

// Exec runs a process in a container until it has ended and its output too, and
// returns its exit code, 128+n after signal n. Something that it left behind may
// keep its output open: Exec goes on with that until ctx ends, unless the output
// is discarded. When ctx ends first, the process is killed.
// Errors: ErrNotFound, ErrNotRunning, and those of Stdout and Stderr.
func (r *Runtime) Exec(ctx context.Context, id string, e Exec) (int, error) {
	ctx = r.context(ctx)
	fail := func(err error) (int, error) { return -1, fmt.Errorf("run %q in container %s: %w", e.Args, id, err) }
	if len(e.Args) > 0 && e.Args[0] == "" {
		return -1, fmt.Errorf("run in container %s: %w", id, errNoCommand)
	}
	c, rec, err := r.container(ctx, id)
	if err != nil {
		return -1, err
	}
	task, err := r.task(ctx, id)
	if err != nil {
		return -1, err
	}
	spec, err := e.process(c, rec)
	if err != nil {
		return fail(err)
	}
	execID := "exec-" + rand.Text()
	stdout, stderr := &outlet{w: e.Stdout}, &outlet{w: e.Stderr}
	streams, stdinDone, err := e.streams(stdout, stderr, r.config.State, execID)
	if err != nil {
		return fail(err)
	}
	defer streams.Close()
	defer streams.Cancel()
	pipes := streams.Config()
	// Calls to the shim are short and are not cut: a process half made would stay.
	background := context.WithoutCancel(ctx)
	process, err := task.Exec(background, execID, runtime.ExecOpts{Spec: spec, IO: runtime.IO{
		Stdin: pipes.Stdin, Stdout: pipes.Stdout, Stderr: pipes.Stderr, Terminal: e.TTY,
	}})
	if err != nil {
		return fail(err)
	}
	defer func() {
		if _, err := process.Delete(background); err != nil && !errdefs.IsNotFound(err) {
			r.log.Debug("delete exec process", "id", id, "error", err)
		}
	}()
	if err := process.Start(background); err != nil {
		return fail(err)
	}
	over := make(chan struct{})
	defer close(over)
	go e.attend(background, process, stdinDone, over)
	code, err := awaitProcess(ctx, process)
	if err != nil {
		return fail(err)
	}
	if e.Stdout == nil && e.Stderr == nil {
		return code, nil
	}
	ended := make(chan struct{})
	go func() { streams.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
		return fail(fmt.Errorf("it ended with exit code %d, but something that it left behind keeps its output open: %w", code, ctx.Err()))
	}
	if err := errors.Join(stdout.failed, stderr.failed); err != nil {
		return fail(fmt.Errorf("its output is not whole: %w", err))
	}
	return code, nil
}

// outlet keeps the error that ended the copy to a caller's writer, which the
// copy itself passes over.
type outlet struct {
	w      io.Writer // nil discards
	failed error     // to be read once the copy has ended
}

// Write writes on.
func (o *outlet) Write(b []byte) (int, error) {
	if o.w == nil {
		return len(b), nil
	}
	n, err := o.w.Write(b)
	if err != nil {
		o.failed = err
	}
	return n, err
}

// awaitProcess returns the exit code, killing the process when ctx ends.
func awaitProcess(ctx context.Context, process runtime.Process) (int, error) {
	type result struct {
		exit *runtime.Exit
		err  error
	}
	ended := make(chan result, 1)
	background := context.WithoutCancel(ctx)
	go func() {
		exit, err := process.Wait(background)
		ended <- result{exit, err}
	}()
	select {
	case r := <-ended:
		if r.err != nil {
			return -1, r.err
		}
		return int(r.exit.Status), nil
	case <-ctx.Done():
		if err := process.Kill(background, uint32(syscall.SIGKILL), true); err != nil {
			return -1, errors.Join(ctx.Err(), err)
		}
		waitFor(func() { <-ended }, callTime)
		return -1, ctx.Err()
	}
}

// attend closes the process's input when the caller's ends, and follows the
// caller's terminal.
func (e Exec) attend(ctx context.Context, process runtime.Process, stdinDone, over <-chan struct{}) {
	resize := e.Resize
	fit := func(size Size) {
		if size == (Size{}) { // the other end has no terminal
			size = Size{Columns: 80, Rows: 24}
		}
		// A process that ended already has no terminal to resize.
		_ = process.ResizePty(ctx, runtime.ConsoleSize{Width: uint32(size.Columns), Height: uint32(size.Rows)})
	}
	if e.TTY {
		fit(e.Size)
	}
	for {
		select {
		case <-over:
			return
		case <-stdinDone:
			stdinDone = nil
			_ = process.CloseIO(ctx)
		case size, ok := <-resize:
			if !ok {
				resize = nil
				continue
			}
			fit(size)
		}
	}
}

// process is the container's own process with what differs.
func (e Exec) process(c containers.Container, rec record) (*anypb.Any, error) {
	var spec specs.Spec
	if err := typeurl.UnmarshalTo(c.Spec, &spec); err != nil {
		return nil, err
	}
	p := spec.Process
	p.Args, p.Terminal = e.Args, e.TTY
	if len(p.Args) == 0 {
		p.Args = held(&spec)
	}
	if len(p.Args) == 0 {
		return nil, errNoCommand
	}
	if e.TTY {
		p.Env = mergeEnv([]string{"TERM=xterm"}, p.Env, e.Env)
	} else {
		p.Env = mergeEnv(p.Env, e.Env)
	}
	if e.Cwd != "" {
		p.Cwd = e.Cwd
	}
	if e.User != "" {
		u, err := parseUser(e.User, [][]string{}, nil)
		if err != nil {
			return nil, fmt.Errorf("user %q: %w", e.User, err)
		}
		if u.UID == 0 && rec.UID != 0 {
			return nil, fmt.Errorf("user %q is root, which the container does not allow", e.User)
		}
		p.User = specs.User{UID: u.UID, GID: u.GID}
	}
	any, err := typeurl.MarshalAny(p)
	if err != nil {
		return nil, err
	}
	return typeurl.MarshalProto(any), nil
}

// streams makes the pipes between the caller and the shim. stdinDone is closed
// when the caller's input ends.
func (e Exec) streams(out, errOut io.Writer, dir, id string) (_ cio.IO, stdinDone <-chan struct{}, _ error) {
	options := []cio.Opt{cio.WithFIFODir(filepath.Join(dir, "fifo"))}
	done := make(chan struct{})
	if e.Stdin == nil {
		options = append(options, cio.WithStreams(nil, out, errOut))
	} else {
		options = append(options, cio.WithStreams(&endReader{r: e.Stdin, end: done}, out, errOut))
	}
	if e.TTY {
		options = append(options, cio.WithTerminal)
	}
	streams, err := cio.NewCreator(options...)(id)
	return streams, done, err
}

// endReader closes end when reading ends.
type endReader struct {
	r   io.Reader
	end chan struct{}
}

// Read reads on.
func (r *endReader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	if err != nil && r.end != nil {
		close(r.end)
		r.end = nil
	}
	return n, err
}

// waitFor waits for f to return, but not longer than limit.
func waitFor(f func(), limit time.Duration) {
	done := make(chan struct{})
	go func() { f(); close(done) }()
	select {
	case <-done:
	case <-time.After(limit):
	}
}
