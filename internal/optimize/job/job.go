package job

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"oscine.dev/oscine/internal/optimize"
	"oscine.dev/oscine/internal/serve/bundle"
)

// maxArchive bounds what comes in, in bytes.
const maxArchive = 16 << 30

// Options say by what a model is optimised; all are needed.
type Options struct {
	Tool string    // the pack's, see optimize.Tools
	Work string    // folder for what is made meanwhile
	Log  io.Writer // progress, and nothing else
}

// tool makes results of one kind. Each lies in a file of its own.
type tool interface {
	// optimise makes the result, runs original and result, and says in the report what
	// made it, how accurate it is and how fast.
	optimise(ctx context.Context, j *job, cpu cpu) error
}

// toolOf returns the tool of a pack.
func toolOf(name string) (tool, error) {
	tools := map[string]tool{optimize.PackONNX: onnx(), optimize.PackGGUF: gguf{}, optimize.PackOpenVINO: openvino()}
	t, ok := tools[name]
	if !ok {
		return nil, fmt.Errorf("there is no tool %q", name)
	}
	return t, nil
}

// job is one model under way.
type job struct {
	o       *Options
	dir     string
	request optimize.Request
	report  optimize.Report
}

// Run reads an archive with a request, a model and its data, and writes one with the
// report and, where the gate lets it pass, the result. It leaves nothing else.
func Run(ctx context.Context, o Options, in io.Reader, out io.Writer) error {
	t, err := toolOf(o.Tool)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.Work, "o")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	j := &job{o: &o, dir: dir}
	if err := os.Mkdir(j.path("in"), 0o700); err != nil {
		return err
	}
	if _, err := bundle.Unpack(in, j.path("in"), maxArchive); err != nil {
		return fmt.Errorf("receive the model: %w", err)
	}
	text, err := os.ReadFile(j.path("in", optimize.RequestFile))
	if err == nil {
		err = json.Unmarshal(text, &j.request)
	}
	if err == nil {
		err = errors.Join(bundle.CheckName(j.request.Model), bundle.CheckName(j.request.Result))
	}
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	if err := j.optimise(ctx, t); err != nil {
		return err
	}
	return j.answer(out)
}

// path is below the job's folder.
func (j *job) path(parts ...string) string {
	return filepath.Join(append([]string{j.dir}, parts...)...)
}

func (j *job) say(format string, a ...any) {
	fmt.Fprintf(j.o.Log, optimize.ProgressMark+format+"\n", a...)
}

func (j *job) original() string { return j.path("in", optimize.ModelDir, j.request.Model) }
func (j *job) result() string   { return j.path("out", j.request.Result) }

// data is the folder of what was given to calibrate and measure with.
func (j *job) data() string { return j.path("in", optimize.DataDir) }

// given reports whether there is any.
func (j *job) given() bool {
	_, err := os.Stat(j.data())
	return !errors.Is(err, os.ErrNotExist)
}

// optimise makes the result and the report.
func (j *job) optimise(ctx context.Context, t tool) error {
	original, err := describe(j.original())
	if err != nil {
		return fmt.Errorf("read the model: %w", err)
	}
	original.Digest = j.request.Digest
	cpu := readCPU("/proc/cpuinfo")
	j.report = optimize.Report{
		Original: original, Method: j.request.Method,
		Target: optimize.Target{Arch: runtime.GOARCH, CPU: cpu.name, Features: cpu.deciding(), Threads: j.request.Threads},
	}
	if err := os.Mkdir(j.path("out"), 0o700); err != nil {
		return err
	}
	if err := t.optimise(ctx, j, cpu); err != nil {
		return err
	}
	j.say("judging the result")
	if j.report.Result, err = describe(j.result()); err != nil {
		return err
	}
	r := &j.report
	if r.MaxDrop = r.Accuracy.Measure.MaxDrop(r.Method); j.request.MaxDrop != nil {
		r.MaxDrop = *j.request.MaxDrop
	}
	r.Refused = r.Judge()
	return nil
}

// files are a model's: the file itself and those with its weights.
func files(model string) ([]bundle.File, error) {
	list, err := bundle.Find(model)
	if err != nil || len(list) > 0 {
		return list, err
	}
	info, err := os.Stat(model)
	if err != nil {
		return nil, err
	}
	return []bundle.File{{Name: filepath.Base(model), Path: model, Size: info.Size()}}, nil
}

// describe names a model, its size and its digest, which is that of the archive where
// it has several files.
func describe(model string) (optimize.File, error) {
	list, err := files(model)
	if err != nil {
		return optimize.File{}, err
	}
	f := optimize.File{Name: filepath.Base(model)}
	for _, one := range list {
		f.SizeBytes += one.Size
	}
	sum := sha256.New()
	if len(list) > 1 {
		err = bundle.Write(sum, list)
	} else {
		err = copyTo(sum, model)
	}
	f.Digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	return f, err
}

func copyTo(w io.Writer, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// answer writes the archive.
func (j *job) answer(out io.Writer) error {
	text, err := json.Marshal(j.report)
	if err != nil {
		return err
	}
	report := j.path(optimize.ReportFile)
	if err := os.WriteFile(report, text, 0o600); err != nil {
		return err
	}
	archive := []bundle.File{{Name: optimize.ReportFile, Path: report, Size: int64(len(text))}}
	if j.report.Refused == "" || j.request.Force {
		made, err := files(j.result())
		if err != nil {
			return err
		}
		for _, f := range made {
			f.Name = optimize.ModelDir + "/" + f.Name
			archive = append(archive, f)
		}
	}
	return bundle.Write(out, archive)
}
