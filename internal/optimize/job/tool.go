package job

import (
	"bufio"
	"context"
	_ "embed" // of onnx.py
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"oscine.dev/oscine/internal/optimize"
)

//go:embed onnx.py
var script string

// task is what the script is asked for.
type task struct {
	Model       string          `json:"model"`
	Result      string          `json:"result"`
	Work        string          `json:"work"`
	Method      optimize.Method `json:"method"`
	ReduceRange bool            `json:"reduceRange"`
	Activation  string          `json:"activation"`
	Inputs      []string        `json:"inputs"`
	Samples     [][]string      `json:"samples"` // a file for each input
}

// write writes the samples that the model is calibrated with as NumPy reads them.
func (j *job) write(samples []optimize.Sample) error {
	for i, s := range samples {
		var files []string
		for k, t := range s {
			file := j.path(fmt.Sprintf("%d-%d.npy", i, k))
			f, err := os.Create(file)
			if err != nil {
				return err
			}
			if err := errors.Join(optimize.WriteNPY(f, t), f.Close()); err != nil {
				return err
			}
			files = append(files, file)
		}
		j.calibrate = append(j.calibrate, files)
	}
	return nil
}

// refusedByScript is the exit status of the script for what a person can act on.
const refusedByScript = 3

// make has the script make the result.
func (j *job) make(ctx context.Context, cpu cpu) error {
	t := task{
		Model: j.original(), Result: j.result(), Work: j.dir, Method: j.request.Method,
		ReduceRange: cpu.saturates(), Activation: cpu.activation(), Samples: j.calibrate,
	}
	for _, in := range j.inputs {
		t.Inputs = append(t.Inputs, in.Name)
	}
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	file := j.path("task.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	var problem tail
	cmd := exec.CommandContext(ctx, j.o.Python[0], append(j.o.Python[1:len(j.o.Python):len(j.o.Python)], "-I", "-B", "-c", script, file)...)
	cmd.Dir = j.dir
	cmd.Env = append(os.Environ(), "ORT_DISABLE_TELEMETRY=1", "PYTHONUNBUFFERED=1", "TMPDIR="+j.dir, "HOME="+j.dir)
	cmd.Stderr = &problem
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start Python: %w", err)
	}
	last := ""
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if line := lines.Text(); strings.HasPrefix(line, "{") {
			last = line
		} else {
			j.say("%s", line)
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &exit) && exit.ExitCode() == refusedByScript:
		return errors.New(problem.line())
	case err != nil:
		return fmt.Errorf("ONNX Runtime's tools failed: %w%s", err, problem.last())
	}
	var done struct {
		Tool    string            `json:"tool"`
		Options map[string]string `json:"options"`
	}
	if err := json.Unmarshal([]byte(last), &done); err != nil {
		return fmt.Errorf("ONNX Runtime's tools failed: they did not say what they did%s", problem.last())
	}
	j.report.Tool, j.report.Options = done.Tool, done.Options
	for _, files := range j.calibrate { // they may take much room
		for _, f := range files {
			_ = os.Remove(f)
		}
	}
	if _, err := os.Stat(j.result()); err != nil {
		return fmt.Errorf("ONNX Runtime's tools made no %s", filepath.Base(j.result()))
	}
	return nil
}

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
