package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a program under measurement. It says in a line where it listens, and
// does what a line on its input asks for.
type process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	addr string
}

// start starts a program and waits for its first line, "ready ADDRESS".
func start(ctx context.Context, command ...string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, command[0], command[1:]...)}
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Cancel = func() error { return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(stdout)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for {
		line, err := p.out.ReadString('\n')
		if err != nil {
			return nil, fmt.Errorf("%s ended before it was ready: %w", filepath.Base(command[0]), err)
		}
		if addr, ok := strings.CutPrefix(line, "ready "); ok {
			p.addr = strings.TrimSpace(addr)
			return p, nil
		}
	}
}

// stop ends the process and those that it has started.
func (p *process) stop() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	_ = p.cmd.Wait()
}

// ask has the process do something and waits for its answer.
func (p *process) ask(what string) (string, error) {
	if _, err := io.WriteString(p.in, what+"\n"); err != nil {
		return "", err
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	answer, ok := strings.CutPrefix(strings.TrimSpace(line), "ok")
	if !ok {
		return "", fmt.Errorf("%s: %s", what, line)
	}
	return strings.TrimSpace(answer), nil
}

// asking has a process do something n times.
func asking(p *process, what string) func(n int) error {
	return func(n int) error {
		_, err := p.ask(fmt.Sprintf("%s %d", what, n))
		return err
	}
}

// tree lists the process and all that descend from it.
func (p *process) tree() []int {
	pids := []int{p.cmd.Process.Pid}
	for i := 0; i < len(pids); i++ {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		if err != nil {
			continue
		}
		for _, file := range files {
			list, err := os.ReadFile(file)
			if err != nil {
				continue // the thread has ended
			}
			for child := range strings.FieldsSeq(string(list)) {
				if pid, err := strconv.Atoi(child); err == nil {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids
}

// cpu is the processor time that processes have used, also by threads that have
// ended.
func cpu(pids []int) (total time.Duration) {
	const schedulerClock = 2 // CPUCLOCK_SCHED of the kernel
	for _, pid := range pids {
		var ts unix.Timespec
		if unix.ClockGettime(int32(^pid)<<3|schedulerClock, &ts) == nil {
			total += time.Duration(ts.Nano())
		}
	}
	return total
}
