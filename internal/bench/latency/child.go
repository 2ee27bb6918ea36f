package latency

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
)

// Child is the task of one child process; exactly one of its fields is set.
type Child struct {
	Worker   *Worker   `json:"worker,omitempty"`
	Load     *Load     `json:"load,omitempty"`
	Requests *Requests `json:"requests,omitempty"`
}

// RunChild is the main function of a child: task is its Child as JSON. It
// begins after a line from in; a load ends with in, and a worker whose starter
// died before it could report does too. Its report is one line of JSON on out.
func RunChild(task string, in io.Reader, out io.Writer) error {
	var c Child
	if err := json.Unmarshal([]byte(task), &c); err != nil {
		return fmt.Errorf("the task of a measuring process: %w", err)
	}
	debug.SetGCPercent(-1) // nothing here lives long enough to be collected
	lines := bufio.NewReader(in)
	if _, err := lines.ReadString('\n'); err != nil {
		return fmt.Errorf("read the signal to begin: %w", err)
	}
	report, err := c.run(lines)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(report)
}

func (c *Child) run(in io.Reader) (any, error) {
	switch {
	case c.Worker != nil:
		go func() {
			_, _ = io.Copy(io.Discard, in) // its end is all that matters
			os.Exit(1)
		}()
		return c.Worker.run()
	case c.Requests != nil:
		return c.Requests.run()
	case c.Load != nil:
		var stop atomic.Bool
		go func() {
			_, _ = io.Copy(io.Discard, in) // its end is all that matters
			stop.Store(true)
		}()
		return c.Load.run(&stop)
	}
	return nil, errors.New("the task of a measuring process is empty")
}

// Process is a child that has been started.
type Process struct {
	PID   int
	cmd   *exec.Cmd
	begin io.WriteCloser
	out   strings.Builder
	err   strings.Builder
}

// Start starts a child by the command, to which its task is added, in the
// cgroup's folder, or in the caller's own for "". It waits for Begin.
func Start(ctx context.Context, command []string, cgroup string, task Child) (*Process, error) {
	raw, err := json.Marshal(task)
	if err != nil {
		return nil, err
	}
	p := &Process{cmd: exec.CommandContext(ctx, command[0], append(command[1:len(command):len(command)], string(raw))...)}
	// Go's own preemption would interrupt sleeping system calls.
	p.cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	if p.begin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if cgroup != "" {
		dir, err := os.Open(cgroup)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		p.cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a measuring process in %s: %w", filepath.Clean("/"+cgroup), err)
	}
	p.PID = p.cmd.Process.Pid
	return p, nil
}

// Begin lets the child work.
func (p *Process) Begin() error {
	_, err := io.WriteString(p.begin, "begin\n")
	return err
}

// End ends a load, waits for the child and reads its report into report.
func (p *Process) End(report any) error {
	_ = p.begin.Close() // a child that has ended has closed it
	return p.Wait(report)
}

// Wait waits until the child has ended by itself.
func (p *Process) Wait(report any) error {
	err := p.cmd.Wait()
	if text := strings.TrimSpace(p.err.String()); err != nil && text != "" {
		return fmt.Errorf("%s: %w", text, err)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(p.out.String()), report)
}

// Kill ends the child without a report.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()
}
