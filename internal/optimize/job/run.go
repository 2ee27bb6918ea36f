package job

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// run runs a program of the pack, which works in the job's folder. It gives line each
// line of its output, and returns the end of what it writes to standard error.
func (j *job) run(ctx context.Context, line func(string), program string, args ...string) (*tail, error) {
	problem := new(tail)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = j.dir
	cmd.Env = append(os.Environ(), "ORT_DISABLE_TELEMETRY=1", "PYTHONUNBUFFERED=1", "LC_ALL=C.UTF-8", "TMPDIR="+j.dir, "HOME="+j.dir)
	cmd.Stderr = problem
	out, err := cmd.StdoutPipe()
	if err != nil {
		return problem, err
	}
	if err := cmd.Start(); err != nil {
		return problem, fmt.Errorf("start %s: %w", program, err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		line(lines.Text())
	}
	err = errors.Join(lines.Err(), cmd.Wait())
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return problem, ctx.Err()
	case errors.As(err, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGKILL {
			err = fmt.Errorf("%w: it may need more memory: give more with --memory", err)
		}
	}
	return problem, err
}

// maxLine bounds a line of a program's output in bytes.
const maxLine = 1 << 20

// tail keeps the end of what is written to it.
type tail struct{ text []byte }

// maxTail bounds what is kept in bytes.
const maxTail = 4 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if n := len(t.text) - maxTail; n > 0 {
		t.text = append(t.text[:0], t.text[n:]...)
	}
	return len(p), nil
}

// line is the last one.
func (t *tail) line() string {
	lines := strings.Split(strings.TrimSpace(string(t.text)), "\n")
	return lines[len(lines)-1]
}

// last are the last lines, as the end of an error.
func (t *tail) last() string {
	lines := strings.Split(strings.TrimSpace(string(t.text)), "\n")
	if len(lines[0]) == 0 && len(lines) == 1 {
		return ""
	}
	return ": " + strings.Join(lines[max(0, len(lines)-3):], "; ")
}
