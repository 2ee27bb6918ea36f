package boot

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// program is the process of the product: oscined in its own cgroup.
type program struct {
	log     *Log
	path    string
	env     []string
	cgroup  string // directory of cgroup v2; "" for the caller's own
	pidFile string // "" for none
	output  *output
	copied  chan struct{} // closed when the output of the last start has been taken
}

// daemonOOMScore lets the kernel's out-of-memory killer take any workload
// before the daemon.
const daemonOOMScore = "-900"

func (p *program) start() (int, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, errors.Join(err, reader.Close(), writer.Close())
	}
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Env:   p.env,
		Files: []uintptr{null.Fd(), writer.Fd(), writer.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	if group := p.openCgroup(); group != nil {
		defer group.Close()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(group.Fd())
	}
	pid, err := syscall.ForkExec(p.path, []string{p.path}, attr)
	closed := errors.Join(null.Close(), writer.Close())
	if err != nil {
		return 0, errors.Join(fmt.Errorf("%s: %w", p.path, err), reader.Close())
	}
	if closed != nil {
		p.log.Error("after starting %s: %v", p.path, closed)
	}
	p.note(pid)
	copied := make(chan struct{})
	p.copied = copied
	background(p.log, "output of "+p.path, func() error {
		defer close(copied)
		defer reader.Close()
		return p.output.copyLines(reader)
	})
	return pid, nil
}

// waitOutput waits until all that the last start wrote has been taken, or for at
// most that long: a process of its own may hold its output open.
func (p *program) waitOutput(most time.Duration) {
	if p.copied == nil { // it was started by an earlier life of PID 1
		return
	}
	select {
	case <-p.copied:
	case <-time.After(most):
	}
}

// openCgroup returns the daemon's cgroup, or nil where there is none: running
// in PID 1's is better than not running.
func (p *program) openCgroup() *os.File {
	if p.cgroup == "" {
		return nil
	}
	if err := os.MkdirAll(p.cgroup, 0o755); err != nil {
		p.log.Error("cgroup of oscined: %v", err)
		return nil
	}
	group, err := os.Open(p.cgroup)
	if err != nil {
		p.log.Error("cgroup of oscined: %v", err)
		return nil
	}
	return group
}

// note records the started process for the kernel and for a PID 1 that has to
// start over.
func (p *program) note(pid int) {
	score := filepath.Join("/proc", strconv.Itoa(pid), "oom_score_adj")
	if err := os.WriteFile(score, []byte(daemonOOMScore), 0o644); err != nil {
		p.log.Error("protect oscined from the OOM killer: %v", err)
	}
	if p.pidFile == "" {
		return
	}
	if err := os.WriteFile(p.pidFile, []byte(strconv.Itoa(pid)), 0o644); err != nil {
		p.log.Error("%v", err)
	}
}

// running returns the process of an earlier life of PID 1, or 0.
func (p *program) running() int {
	raw, err := os.ReadFile(p.pidFile)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(string(raw))
	if err != nil || pid <= 1 {
		return 0
	}
	exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
	if err != nil || exe != p.path {
		return 0
	}
	return pid
}

func (p *program) signal(pid int, sig unix.Signal) {
	if err := unix.Kill(pid, sig); err != nil {
		p.log.Error("send %s to process %d: %v", unix.SignalName(sig), pid, err)
	}
}

func describe(status unix.WaitStatus) string {
	if status.Signaled() {
		return unix.SignalName(status.Signal())
	}
	return "exit status " + strconv.Itoa(status.ExitStatus())
}

// Bounds of the daemon's output.
const (
	maxOutputLine = 8 << 10
	maxOutputFile = 1 << 20
	outputBacklog = 256
)

// output takes the daemon's lines to the console and a file of bounded size. A
// console that blocks (a serial line with flow control) costs lines, not time.
type output struct {
	lines chan []byte
	file  string
	size  int64
}

func newOutput(log *Log, console, file string) *output {
	o := &output{lines: make(chan []byte, outputBacklog), file: file}
	background(log, "console", func() error {
		for {
			// Reopened after an error: a hung-up console may come back.
			err := guard("console", func() error { return o.drain(console) })
			log.Error("console: %v", err)
			time.Sleep(time.Second)
		}
	})
	return o
}

func (o *output) drain(console string) error {
	out, err := os.OpenFile(console, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	for line := range o.lines {
		if _, err := out.Write(line); err != nil {
			return err
		}
	}
	return nil
}

// copyLines ends with the daemon's side of the pipe.
func (o *output) copyLines(from *os.File) error {
	file, err := os.OpenFile(o.file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewReaderSize(from, maxOutputLine)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 {
			file = o.write(file, line)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil
		}
	}
}

func (o *output) write(file *os.File, line []byte) *os.File {
	select {
	case o.lines <- append([]byte(nil), line...):
	default:
	}
	n, err := file.Write(line)
	o.size += int64(n)
	if err != nil || o.size < maxOutputFile {
		return file
	}
	// One older file is kept; if it cannot be, the log starts again.
	o.size = 0
	_ = os.Rename(o.file, o.file+".1")
	next, err := os.OpenFile(o.file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return file
	}
	_ = file.Close()
	return next
}
