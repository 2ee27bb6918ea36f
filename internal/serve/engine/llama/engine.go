package llama

import (
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/gguf"
	"oscine.dev/oscine/internal/printable"
	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/language"
	"oscine.dev/oscine/internal/serve/worker"
)

// Engine implements worker.Engine.
type Engine struct {
	program, dir string
	gpu          bool
}

// Flags implements worker.Engine.
func (e *Engine) Flags(f *flag.FlagSet) {
	f.StringVar(&e.program, "server", "/usr/bin/llama-server", "`path` of llama-server")
	f.StringVar(&e.dir, "dir", "/tmp", "`folder` for the socket of llama-server")
	f.BoolVar(&e.gpu, "gpu", false, "compute on a GPU, and refuse a model where there is none")
}

// Options implements worker.Engine.
func (*Engine) Options() []string { return gguf.Options() }

// Open implements worker.Engine.
func (e *Engine) Open(path string, o worker.Options) (worker.Session, error) {
	path, err := worker.Entry(path, ".gguf")
	if err != nil {
		return nil, err
	}
	header, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	want, err := gguf.ParseWant(o.Values, o.Memory)
	if err != nil {
		return nil, err
	}
	plan, err := header.Plan(want)
	if err != nil {
		return nil, fmt.Errorf("the model (%s) cannot be served: %w", header, err)
	}
	args := arguments(path, o, header, &plan)
	gpu := ""
	if e.gpu {
		if gpu, err = e.findGPU(); err != nil {
			return nil, err
		}
		args = append(args, "--gpu-layers", "all", "--device", gpuDevice)
	}
	s, err := start(e, args, o.Lost)
	if err != nil {
		return nil, err
	}
	s.plan = plan
	if gpu != "" {
		s.version += " with Vulkan on " + gpu
	}
	fmt.Fprintf(s.log, "oscine-llama: %s: %d slots of %d tokens, cache %s, prompt cache %s\n", header, plan.Slots, plan.Context,
		printable.Bytes(plan.Cache), printable.Bytes(plan.PromptCache))
	return s, nil
}

// arguments are those of llama-server, without where it listens.
func arguments(path string, o worker.Options, header *gguf.Header, p *gguf.Plan) []string {
	threads := strconv.Itoa(o.Threads)
	args := []string{
		"--model", path, "--alias", o.Name, "--offline", "--no-ui", "--no-slots", "--metrics", "--log-verbosity", "2",
		// Waiting threads sleep: the processors are others' meanwhile.
		"--threads", threads, "--threads-batch", threads, "--poll", "0",
		// One for each slot, one for the metrics, one that is free for health.
		"--threads-http", strconv.Itoa(p.Slots + 2),
		"--parallel", strconv.Itoa(p.Slots), "--ctx-size", strconv.Itoa(p.Slots * p.Context), "--no-kv-unified", "--fit", "off",
		"--batch-size", strconv.Itoa(p.Batch), "--ubatch-size", strconv.Itoa(p.Batch),
		"--cache-ram", strconv.FormatInt(p.PromptCache>>20, 10),
	}
	if o.Name == "" {
		args = slices.Delete(args, 2, 4)
	}
	switch p.Task {
	case gguf.Embed:
		args = append(args, "--embeddings")
	case gguf.Rerank:
		args = append(args, "--reranking")
	}
	if p.Task == gguf.Embed && header.Task() == gguf.Generate {
		args = append(args, "--pooling", "mean")
	}
	return args
}

// served returns nil where a model with this task answers requests of a path.
func served(task gguf.Task, path string) error {
	can := map[gguf.Task][]string{
		gguf.Generate: {language.Chat, language.Completions, language.Responses},
		gguf.Embed:    {language.Embeddings},
		gguf.Rerank:   {language.Rerank},
	}
	switch {
	case path == language.Tokenize || path == language.Detokenize || slices.Contains(can[task], path):
		return nil
	case !slices.Contains(language.Paths(), path):
		return fmt.Errorf("there is no request %q; there are %s", printable.Text(path[:min(len(path), 100)]), strings.Join(language.Paths(), ", "))
	}
	for other, paths := range can {
		if slices.Contains(paths, path) {
			return fmt.Errorf("the model is served with the task %s and does not answer %s: that is the task %s (option task=%s)", task, path, other, other)
		}
	}
	return nil
}

// Elsewhere implements worker.Elsewhere: llama-server computes.
func (*session) Elsewhere() {}

// Metadata implements worker.Session.
func (s *session) Metadata() channel.Metadata {
	return channel.Metadata{
		Engine: s.version, Inputs: language.Inputs(), Outputs: language.Outputs(), Streams: true, Parallel: s.plan.Slots,
	}
}
