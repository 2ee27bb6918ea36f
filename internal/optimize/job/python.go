package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"oscine.dev/oscine/internal/optimize"
)

// python is a tool that is a script of Python's, which makes the result. Oscine's engine
// runs original and result.
type python struct {
	engine, script string
	hints          func(cpu) map[string]any // what the CPU decides for the script
}

// task is what the script is asked for.
type task struct {
	Model   string            `json:"model"`
	Result  string            `json:"result"`
	Work    string            `json:"work"`
	Method  optimize.Method   `json:"method"`
	Options map[string]string `json:"options"`
	CPU     map[string]any    `json:"cpu"`
	Inputs  []string          `json:"inputs"`
	Samples [][]string        `json:"samples"` // a file for each input
}

// refusedByScript is the exit status of the script for what a person can act on.
const refusedByScript = 3

func (p *python) optimise(ctx context.Context, j *job, cpu cpu) error {
	b := newBench(j, p.engine)
	return b.compare(ctx, func() error { return p.create(ctx, b, cpu) })
}

// create has the script make the result.
func (p *python) create(ctx context.Context, b *bench, cpu cpu) error {
	j := b.j
	t := task{Model: j.original(), Result: j.result(), Work: j.dir, Method: j.request.Method, Options: j.request.Options, CPU: p.hints(cpu)}
	for _, in := range b.inputs {
		t.Inputs = append(t.Inputs, in.Name)
	}
	var err error
	if t.Samples, err = j.write(b.calibrate); err != nil {
		return err
	}
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	file := j.path("task.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	var done struct {
		Tool    string            `json:"tool"`
		Options map[string]string `json:"options"`
	}
	last := ""
	problem, err := j.run(ctx, func(line string) {
		if strings.HasPrefix(line, "{") {
			last = line
		} else {
			j.say("%s", line)
		}
	}, "/usr/bin/python3", "-I", "-B", "-c", p.script, file)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == refusedByScript:
		return errors.New(problem.line())
	case err != nil:
		return fmt.Errorf("the tool failed: %w%s", err, problem.last())
	}
	if err := json.Unmarshal([]byte(last), &done); err != nil {
		return fmt.Errorf("the tool failed: it did not say what it did%s", problem.last())
	}
	j.report.Tool, j.report.Options = done.Tool, done.Options
	for _, files := range t.Samples { // they may take much room
		for _, f := range files {
			_ = os.Remove(f)
		}
	}
	if _, err := os.Stat(j.result()); err != nil {
		return fmt.Errorf("the tool made no %s", filepath.Base(j.result()))
	}
	return nil
}

// write writes the samples that the model is calibrated with as NumPy reads them: a
// file for each input.
func (j *job) write(samples []optimize.Sample) ([][]string, error) {
	var all [][]string
	for i, s := range samples {
		var files []string
		for k, t := range s {
			file := j.path(fmt.Sprintf("%d-%d.npy", i, k))
			f, err := os.Create(file)
			if err != nil {
				return nil, err
			}
			if err := errors.Join(optimize.WriteNPY(f, t), f.Close()); err != nil {
				return nil, err
			}
			files = append(files, file)
		}
		all = append(all, files)
	}
	return all, nil
}
