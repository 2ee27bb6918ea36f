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
	"slices"
	"time"

	"oscine.dev/oscine/internal/optimize"
	"oscine.dev/oscine/internal/serve/bundle"
	"oscine.dev/oscine/internal/tensor"
)

// maxArchive bounds what comes in, in bytes.
const maxArchive = 16 << 30

// Options say by what a model is optimised; all are needed.
type Options struct {
	Engine []string  // command of the engine worker, without its socket
	Python []string  // command that runs Python
	Work   string    // folder for what is made meanwhile
	Log    io.Writer // progress, and nothing else
}

// job is one model under way.
type job struct {
	o         *Options
	dir       string
	request   optimize.Request
	report    optimize.Report
	inputs    []tensor.Spec  // of the original, where there is data
	data      *optimize.Data // what the models are measured with; nil: none was given, or none was read yet
	calibrate [][]string     // files of arrays that the model is calibrated with, one for each input
	engineLog tail
	each      time.Duration // that a model is run for its speed in a pass
	compared  bool          // the answers to all samples are here
}

// Run reads an archive with a request, a model and its data, and writes one with the
// report and, where the gate lets it pass, the result. It leaves nothing else.
func Run(ctx context.Context, o Options, in io.Reader, out io.Writer) error {
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
	if err := j.optimise(ctx); err != nil {
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

// optimise makes the result and the report.
func (j *job) optimise(ctx context.Context) error {
	info, err := os.Stat(j.original())
	if err != nil {
		return fmt.Errorf("read the model: %w", err)
	}
	cpu := readCPU("/proc/cpuinfo")
	j.report = optimize.Report{
		Original: optimize.File{Name: j.request.Model, Digest: j.request.Digest, SizeBytes: info.Size()}, Method: j.request.Method, MaxDrop: j.request.MaxDrop,
		Target: optimize.Target{Arch: runtime.GOARCH, CPU: cpu.name, Features: cpu.deciding(), Threads: j.request.Threads},
	}
	var n int
	n, j.each = passes(j.request.Method)
	original, err := j.measure(ctx, "the original", j.original())
	if err != nil {
		return err
	}
	if err := os.Mkdir(j.path("out"), 0o700); err != nil {
		return err
	}
	if err := j.make(ctx, cpu); err != nil {
		return err
	}
	result, err := j.measure(ctx, "the result", j.result())
	if err != nil {
		return err
	}
	j.compared = true
	for range n - 1 {
		if err := j.again(ctx, original, "the original again", j.original()); err != nil {
			return err
		}
		if err := j.again(ctx, result, "the result again", j.result()); err != nil {
			return err
		}
	}
	return j.judge(original, result)
}

// given reports whether there is data: else inputs are made up.
func (j *job) given() bool {
	_, err := os.Stat(j.path("in", optimize.DataDir))
	return !errors.Is(err, os.ErrNotExist)
}

// samples are what a model with these inputs is measured with. The first call reads
// them, and writes those that the model is calibrated with.
func (j *job) samples(inputs []tensor.Spec) ([]optimize.Sample, error) {
	if j.data != nil {
		if !slices.EqualFunc(j.inputs, inputs, tensor.Spec.Equal) {
			return nil, errors.New("the result has other inputs than the original")
		}
		return j.data.Samples, nil
	}
	j.say("reading the data")
	data, err := optimize.ReadData(j.path("in", optimize.DataDir), inputs)
	if err != nil {
		return nil, err
	}
	j.inputs, j.data = inputs, data
	var with []optimize.Sample
	if j.request.Method == optimize.Static {
		if with, j.data, err = data.Divide(); err != nil {
			return nil, err
		}
	}
	j.report.Calibration = &optimize.Calibration{Files: data.Files, Calibrated: len(with), HeldOut: len(j.data.Samples)}
	return j.data.Samples, j.write(with)
}

func (j *job) judge(original, result *measured) error {
	r := &j.report
	r.Speed = optimize.Speed{Inputs: len(original.answers), OriginalRun: original.run, ResultRun: result.run, OriginalLoad: original.load, ResultLoad: result.load}
	var labels []int
	measure := j.request.Measure
	if j.data != nil {
		labels = j.data.Labels
	} else if measure == optimize.Auto {
		measure = optimize.Difference // the highest score of noise says nothing
	}
	var err error
	if r.Accuracy, err = optimize.Compare(original.answers, result.answers, labels, measure); err != nil {
		return err
	}
	r.Accuracy.MadeUp = j.data == nil
	info, err := os.Stat(j.result())
	if err != nil {
		return err
	}
	r.Result = optimize.File{Name: j.request.Result, SizeBytes: info.Size()}
	if r.Result.Digest, err = digest(j.result()); err != nil {
		return err
	}
	r.Refused = r.Judge()
	return nil
}

func digest(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
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
	files := []bundle.File{{Name: optimize.ReportFile, Path: report, Size: int64(len(text))}}
	if j.report.Refused == "" || j.request.Force {
		files = append(files, bundle.File{Name: optimize.ModelDir + "/" + j.request.Result, Path: j.result(), Size: j.report.Result.SizeBytes})
	}
	return bundle.Write(out, files)
}
