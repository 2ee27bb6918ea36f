package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/gguf"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/optimize"
	"oscine.dev/oscine/internal/printable"
	"oscine.dev/oscine/internal/serve/bundle"
)

// optimizeOptions are the flags of optimize.
type optimizeOptions struct {
	target, to, calibration, maxDrop, accuracy, output, cpu, memory string

	how              optimize.Flags
	given            []string // of the flags in how, by their names
	force, plainHTTP bool
}

func newOptimizeCommand(env *Env) *cobra.Command {
	var o optimizeOptions
	c := &cobra.Command{
		Use: "optimize MODEL", Short: "Make a faster model for a node's CPU, and measure that it is, and how accurate",
		Long: `Make a faster model of one in ONNX, OpenVINO's IR or GGUF, with the format's own tools, as a batch workload on the node for
which it is meant: its own CPU decides about the options, and measures original and result.

ONNX: without --int8 the graph is optimised, which changes no answer: what the engine otherwise does at each
load is stored. With --int8 the model is quantised: statically with --calibration, else only its weights.

OpenVINO: an IR, or with --to openvino a model in ONNX, is quantised by NNCF; without --calibration only its weights.

GGUF: a language model is quantised to --type, as llama-quantize names them.

The result is written where its accuracy drops by no more than --max-drop and it is faster by a tenth, or, of a
language model and of weights alone, smaller; else it is refused, with both figures. Where it comes from is in a file beside it. See
docs/optimize.md.`,
		Example: "  oscine optimize net.onnx --for edge1\n  oscine optimize net.onnx --for edge1 --int8 --calibration ./pictures --max-drop 1%\n  oscine optimize chat-f16.gguf --for edge1 --type Q4_K_M --calibration wiki.txt\n  oscine optimize net.onnx --int8 --output oci://ghcr.io/acme/net:int8",
		Args:    exactArgs(1, "a model's file, folder, URL or reference"),
		RunE: func(c *cobra.Command, args []string) error {
			for _, t := range optimize.Tools() {
				for _, flag := range t.Flags {
					if c.Flags().Changed(flag) && !slices.Contains(o.given, flag) {
						o.given = append(o.given, flag)
					}
				}
			}
			return o.run(c.Context(), env, args[0])
		},
	}
	f := c.Flags()
	f.StringVar(&o.target, "for", "", "the node for which it is meant, by the name of its context (default: the current one)")
	f.StringVar(&o.to, "to", "", "format of the result, where it is not that of the model: openvino, for ONNX")
	f.StringVar(&o.how.Int8, "int8", "", "quantise to eight bits: static, dynamic (ONNX) or weights (OpenVINO) (default: static where there is --calibration)")
	f.Lookup("int8").NoOptDefVal = optimize.Int8Auto
	f.StringVar(&o.how.Preset, "preset", "", "OpenVINO: NNCF's preset: mixed, performance or transformer (default: mixed)")
	f.StringVar(&o.how.Type, "type", "", "GGUF: type of the weights, such as Q8_0 or Q5_K_M (default: Q4_K_M)")
	f.BoolVar(&o.how.AllowRequantize, "allow-requantize", false, "GGUF: take a model that is quantised already, which loses more")
	f.BoolVar(&o.how.Imatrix, "imatrix", false, "GGUF: compute an importance matrix from half of the text")
	f.StringVar(&o.calibration, "calibration", "", "folder with data as the model gets it: .npy, .npz, pictures, labels.txt; GGUF: a text file")
	f.StringVar(&o.maxDrop, "max-drop", "", "the most that the accuracy may drop (default: 0.5%; GGUF: 5% of the perplexity, or 10% of next tokens)")
	f.StringVar(&o.accuracy, "accuracy", string(optimize.Auto), "how it is measured: auto, labels, top-1, difference or perplexity")
	f.StringVar(&o.output, "output", "", "file or reference to write (default: such as MODEL.int8.onnx or MODEL-Q4_K_M.gguf, here)")
	f.BoolVar(&o.force, "force", false, "keep the result although it is refused")
	f.StringVar(&o.cpu, "cpu", "1", "cores to work on, and threads to measure with")
	f.StringVar(&o.memory, "memory", "", "memory limit, such as 4Gi")
	f.BoolVar(&o.plainHTTP, "plain-http", false, "ask the registry of a reference without TLS, which those on the way can read and change")
	completeValues(c, "int8", "static", "dynamic", "weights")
	completeValues(c, "to", optimize.Targets()...)
	completeValues(c, "preset", optimize.Presets()...)
	completeValues(c, "type", optimize.Types()...)
	completeValues(c, "accuracy", optimize.Measures()...)
	_ = c.RegisterFlagCompletionFunc("for", completeContext(env)) // fails for an unknown flag only
	return c
}

// optimization is what is to be done, checked.
type optimization struct {
	*optimizeOptions
	env     *Env
	named   string // the model, as it was given
	tool    *optimize.Tool
	ending  string // of the result's name
	request optimize.Request
	model   *modelSource
	files   []bundle.File // of the archive for the tool, but the request
	data    string        // digest of the calibration data, "" for none
	output  string        // a file
	push    *artifact.Reference
}

func (o *optimizeOptions) run(ctx context.Context, env *Env, model string) error {
	z := &optimization{optimizeOptions: o, env: env}
	if err := z.check(); err != nil {
		return err
	}
	if err := z.aim(); err != nil {
		return err
	}
	path, remove, err := o.fetch(ctx, env, model)
	if err != nil {
		return err
	}
	defer remove()
	z.named = model
	if err := z.prepare(ctx, path); err != nil {
		return err
	}
	return z.optimise(ctx)
}

// check reads the flags.
func (z *optimization) check() (err error) {
	r := &z.request
	if z.maxDrop != "" {
		drop, err := optimize.ParsePercent(z.maxDrop)
		if err != nil {
			return usageError{fmt.Errorf("--max-drop: %w", err)}
		}
		r.MaxDrop = &drop
	}
	if r.Measure = optimize.Measure(z.accuracy); !slices.Contains(optimize.Measures(), r.Measure) {
		return usageError{fmt.Errorf("--accuracy %q: must be auto, labels, top-1, difference or perplexity", z.accuracy)}
	}
	z.how.Data = z.calibration != ""
	if artifact.Is(z.optimizeOptions.output) {
		ref, err := artifact.Parse(z.optimizeOptions.output)
		if err != nil {
			return usageError{fmt.Errorf("--output: %w", err)}
		}
		z.push = &ref
	}
	r.Force = z.force
	resources := object.Resources{}
	if err := resources.CPU.UnmarshalText([]byte(z.cpu)); err != nil {
		return usageError{fmt.Errorf("--cpu: %w", err)}
	}
	milli, _ := resources.CPU.MilliValue() // what is too much the manifest's check refuses
	r.Threads = max(1, int(milli+999)/1000)
	return nil
}

// aim chooses the node.
func (z *optimization) aim() error {
	switch {
	case z.target == "":
		return nil
	case z.env.knows(z.target):
		z.env.Context = z.target
		return nil
	}
	if _, err := os.Stat(z.target); err == nil {
		return usageError{fmt.Errorf("--for %s is a file: original and result are measured on the hardware itself, so name a node that has it (oscine config list)", z.target)}
	}
	return usageError{fmt.Errorf("--for %s: no context has this name: name the node whose CPU the model is for (oscine config list)", printable.Text(z.target))}
}

// fetch brings a model here that is elsewhere.
func (o *optimizeOptions) fetch(ctx context.Context, env *Env, model string) (path string, remove func(), err error) {
	switch {
	case artifact.Is(model):
		r, err := artifact.Parse(model)
		if err != nil {
			return "", nil, usageError{err}
		}
		access, err := registries(o.plainHTTP)
		if err != nil {
			return "", nil, err
		}
		return fetchModel(ctx, env, r, access)
	case isURL(model):
		file, err := download(ctx, env, model)
		return file, func() { _ = os.RemoveAll(filepath.Dir(file)) }, err
	}
	return model, func() {}, nil
}

// prepare finds the model's files, its tool and those of the data.
func (z *optimization) prepare(ctx context.Context, path string) (err error) {
	if z.model, err = findModel(path); err != nil {
		return err
	}
	files, err := z.model.list()
	if err != nil {
		return err
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	if z.tool, z.request.Model, err = optimize.For(path, names, z.to); err != nil {
		return err
	}
	z.how.Converts = !slices.Contains(z.tool.Suffixes, strings.ToLower(filepath.Ext(z.request.Model)))
	plan, err := z.tool.Plan(z.how, z.request.Measure, z.given)
	if err != nil {
		return usageError{err}
	}
	z.request.Method, z.request.Options, z.ending = plan.Method, plan.Options, plan.Ending
	if z.tool.Pack == optimize.PackGGUF {
		if err := z.readable(path, files[slices.Index(names, z.request.Model)].Path); err != nil {
			return err
		}
	}
	if z.request.Digest, _, err = z.model.sum(ctx); err != nil {
		return err
	}
	for _, f := range files {
		f.Name = optimize.ModelDir + "/" + f.Name
		z.files = append(z.files, f)
	}
	if err := z.findData(ctx); err != nil {
		return err
	}
	return z.findOutput()
}

// readable refuses a language model that would be sent in vain.
func (z *optimization) readable(named, file string) error {
	h, err := gguf.Open(file)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", named, err)
	case h.Task() != gguf.Generate:
		return fmt.Errorf("%s makes no text, by which it could be measured: only models that do are optimised", named)
	case h.Quantized && !z.how.AllowRequantize:
		return fmt.Errorf("%s is quantised already: give the one in F16, BF16 or F32 that it was made from, or --allow-requantize, with which more accuracy is lost", named)
	}
	return nil
}

func (z *optimization) findData(ctx context.Context) error {
	if z.calibration == "" {
		return nil
	}
	dir, names, err := z.tool.Data(z.calibration)
	if err != nil {
		return fmt.Errorf("--calibration: %w", unreadable(z.calibration, err))
	}
	var files []bundle.File
	for _, name := range names {
		file := filepath.Join(dir, name)
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		files = append(files, bundle.File{Name: name, Path: file, Size: info.Size()})
	}
	if z.data, _, err = (&modelSource{z.calibration, files}).sum(ctx); err != nil {
		return err
	}
	for _, f := range files {
		f.Name = optimize.DataDir + "/" + f.Name
		z.files = append(z.files, f)
	}
	return nil
}

// findOutput decides where the result goes, which must not be there.
func (z *optimization) findOutput() error {
	name := modelName(z.named)
	if r, err := artifact.Parse(z.named); artifact.Is(z.named) && err == nil {
		name = nameOf(r)
	}
	z.output = z.optimizeOptions.output
	if z.output == "" || z.push != nil {
		z.output = cmp.Or(name, "model") + z.ending
	}
	z.request.Result = filepath.Base(z.output)
	if !strings.EqualFold(filepath.Ext(z.output), z.tool.Result) {
		return usageError{fmt.Errorf("--output %s: the name of the result ends in %s", z.output, z.tool.Result)}
	}
	if z.push != nil {
		return nil
	}
	for _, file := range []string{z.output, z.weights(), provenance(z.output)} {
		if file == "" {
			continue
		}
		if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is there already: remove it, or choose another with --output", file)
		}
	}
	return checkOutput("output", z.output)
}

// weights is the file beside the result that holds its weights, or "".
func (z *optimization) weights() string {
	if z.tool.Result != ".xml" {
		return ""
	}
	return strings.TrimSuffix(z.output, filepath.Ext(z.output)) + ".bin"
}

// provenance is the name of the file that says where a result comes from.
func provenance(result string) string { return result + ".provenance.json" }

// manifest is the workload's.
func (z *optimization) manifest(name string) (string, error) {
	resources := map[string]any{"cpu": z.cpu}
	if z.memory != "" {
		resources["memory"] = z.memory
	}
	return objectFromFlags(object.KindWorkload, name, map[string]any{
		"class": string(object.Batch), "pack": z.tool.Pack, "restart": object.RestartNever, "startOnAttach": true,
		"resources": resources, "security": map[string]any{"writableRoot": true},
	})
}
