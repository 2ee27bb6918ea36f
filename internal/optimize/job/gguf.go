package job

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	header "oscine.dev/oscine/internal/gguf"
	"oscine.dev/oscine/internal/optimize"
)

// gguf is llama.cpp's own tools, which quantise a language model and measure it.
type gguf struct{}

// On how much of a text language models are measured: in chunks of so many tokens,
// of which the first half is what the second is judged after.
const (
	chunkTokens = 512
	mostChunks  = 8
	madeChunks  = 2 // of a text that the original writes itself, of half the tokens each
)

// How often and on how much the speed is measured.
const (
	benchPasses   = 3
	promptTokens  = 64
	writtenTokens = 32
)

func (gguf) optimise(ctx context.Context, j *job, _ cpu) error {
	h, err := header.Open(j.original())
	if err != nil {
		return fmt.Errorf("read the model: %w", err)
	}
	l := &llama{job: j, threads: strconv.Itoa(j.request.Threads), chunk: chunkTokens, chunks: mostChunks}
	if h.Context > 0 {
		l.chunk = min(l.chunk, h.Context)
	}
	text, calibration, err := l.texts(ctx)
	if err != nil {
		return err
	}
	original, err := l.expect(ctx, "the original", l.original(), text)
	if err != nil {
		return err
	}
	if err := l.quantize(ctx, calibration); err != nil {
		return err
	}
	result, err := l.expect(ctx, "the result", l.result(), text)
	if err != nil {
		return err
	}
	e, err := compareLogits(original, result)
	if err != nil {
		return err
	}
	l.accuracy(&e)
	if err := errors.Join(os.Remove(original), os.Remove(result)); err != nil { // they take much room
		return err
	}
	return l.bench(ctx)
}

// llama runs llama.cpp's programs.
type llama struct {
	*job
	threads       string
	chunk, chunks int // of the text, in tokens
}

// program runs one of them.
func (l *llama) program(ctx context.Context, name string, line func(string), args ...string) (*tail, error) {
	problem, err := l.run(ctx, line, "/usr/bin/"+name, args...)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%s failed: %w%s", name, err, problem.last())
	}
	return problem, err
}

func nothing(string) {}

// texts returns the file of the text that the models are measured on, and that of the
// one that the importance matrix is computed from, or "". Where there is none the
// original writes one.
func (l *llama) texts(ctx context.Context) (measure, calibrate string, err error) {
	if l.given() {
		given, err := filepath.Glob(filepath.Join(l.data(), "*"))
		if err != nil || len(given) != 1 {
			return "", "", errors.New("the data is no text")
		}
		l.report.Calibration = &optimize.Calibration{Files: 1}
		if l.request.Options[optimize.OptionImatrix] != "true" {
			return given[0], "", nil
		}
		return l.divide(given[0])
	}
	l.say("writing a text to measure on")
	l.chunk, l.chunks = l.chunk/2, madeChunks
	var text bytes.Buffer
	_, err = l.program(ctx, "llama-completion", func(line string) { text.WriteString(line + "\n") },
		"-m", l.original(), "-no-cnv", "--no-display-prompt", "-p", "The", "-n", strconv.Itoa((madeChunks+1)*l.chunk), "--ignore-eos", "-c", strconv.Itoa((madeChunks+2)*l.chunk), "--temp", "0.8", "--seed", "1", "-t", l.threads)
	if err != nil {
		return "", "", err
	}
	file := l.path("text")
	return file, "", os.WriteFile(file, text.Bytes(), 0o600)
}

// divide writes the two halves of a text, of which the second is held back.
func (l *llama) divide(file string) (held, calibrate string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", "", err
	}
	at := len(text) / 2
	if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
		at += i
	}
	held, calibrate = l.path("held"), l.path("calibrate")
	return held, calibrate, errors.Join(os.WriteFile(calibrate, text[:at], 0o600), os.WriteFile(held, text[at:], 0o600))
}

// expect runs a model on a text, and returns the file with what it expects after each
// token. llama-perplexity computes the same from it, but may lose the lines that say so
// when it ends.
func (l *llama) expect(ctx context.Context, what, model, text string) (string, error) {
	l.say("measuring %s", what)
	file := l.path(filepath.Base(model) + ".logits")
	problem, err := l.program(ctx, "llama-perplexity", nothing, "-m", model, "-f", text, "-c", strconv.Itoa(l.chunk), "--chunks", strconv.Itoa(l.chunks), "-t", l.threads, "--save-all-logits", file)
	if err != nil {
		return "", err
	}
	if info, err := os.Stat(file); err != nil || info.Size() <= int64(len(logitsMagic)+4) {
		return "", tooShort(problem)
	}
	return file, nil
}

// tooShort is the error of a text that is too short, after which llama.cpp's programs
// end as if nothing were wrong.
func tooShort(problem *tail) error {
	return fmt.Errorf("llama.cpp measured nothing: the text is too short: give some thousand tokens, at least %d, and twice as many for an importance matrix%s", 2*chunkTokens, problem.last())
}

var (
	tensorRE   = regexp.MustCompile(`^\[\s*(\d+)/\s*(\d+)\]`)
	fallbackRE = regexp.MustCompile(`(\d+ of \d+) tensor\(s\) required fallback`)
)

// quantize makes the result.
func (l *llama) quantize(ctx context.Context, calibration string) error {
	o := l.request.Options
	l.report.Options = map[string]string{optimize.OptionType: o[optimize.OptionType]}
	var args []string
	if o[optimize.OptionAllowRequantize] == "true" {
		args = append(args, "--allow-requantize")
		l.report.Options[optimize.OptionAllowRequantize] = "true"
	}
	if calibration != "" {
		matrix, err := l.imatrix(ctx, calibration)
		if err != nil {
			return err
		}
		args = append(args, "--imatrix", matrix)
		l.report.Options[optimize.OptionImatrix] = "true"
	}
	l.say("quantising the weights")
	problem, err := l.program(ctx, "llama-quantize", func(line string) {
		if at := tensorRE.FindStringSubmatch(line); at != nil {
			l.say("quantising the weights: %s of %s tensors", at[1], at[2])
		}
		if found := fallbackRE.FindStringSubmatch(line); found != nil {
			l.report.Options["fallback-tensors"] = found[1]
		}
	}, append(args, l.original(), l.result(), o[optimize.OptionType], l.threads)...)
	if err == nil {
		if _, err = os.Stat(l.result()); err != nil {
			err = fmt.Errorf("llama-quantize made no %s%s", filepath.Base(l.result()), problem.last())
		}
	}
	return err
}

func (l *llama) imatrix(ctx context.Context, text string) (string, error) {
	l.say("computing the importance matrix")
	matrix := l.path("imatrix.gguf")
	problem, err := l.program(ctx, "llama-imatrix", nothing, "-m", l.original(), "-f", text, "-o", matrix, "-c", strconv.Itoa(l.chunk), "--chunks", strconv.Itoa(l.chunks), "-t", l.threads, "--no-ppl")
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(matrix); err != nil {
		return "", tooShort(problem)
	}
	return matrix, nil
}

// accuracy is what is lost; where numbers are none, all.
func (l *llama) accuracy(e *expectations) {
	measure := l.request.Measure
	if measure == optimize.Auto {
		if measure = optimize.Perplexity; !l.given() {
			measure = optimize.Top1 // how well it reads what it wrote itself says little
		}
	}
	a := &l.report.Accuracy
	*a = optimize.Accuracy{Measure: measure, Inputs: e.tokens, MadeUp: !l.given(), Original: finite(e.original), Result: finite(e.result), SameTop: e.sameTop}
	if a.Drop = 1 - e.sameTop; measure == optimize.Perplexity {
		a.Drop = max(0, e.result/e.original-1)
	}
	if a.Original == 0 || a.Result == 0 {
		a.Drop = 1
	}
	if c := l.report.Calibration; c != nil {
		c.HeldOut = e.tokens
	}
}

// finite is a number that JSON can hold.
func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}

// timing is a line of llama-bench: how long it took to read or to write tokens.
type timing struct {
	File    string  `json:"model_filename"`
	Build   int     `json:"build_number"`
	Prompt  int64   `json:"n_prompt"`
	Written int64   `json:"n_gen"`
	Samples []int64 `json:"samples_ns"`
}

// bench measures the speed of both models in turn.
func (l *llama) bench(ctx context.Context) error {
	s := &l.report.Speed
	s.Inputs = writtenTokens
	for pass := range benchPasses {
		l.say("measuring the speed: %d of %d", pass+1, benchPasses)
		var text bytes.Buffer
		_, err := l.program(ctx, "llama-bench", func(line string) { text.WriteString(line + "\n") },
			"-m", l.original(), "-m", l.result(), "-p", strconv.Itoa(promptTokens), "-n", strconv.Itoa(writtenTokens), "-r", "2", "-t", l.threads, "-o", "json")
		if err != nil {
			return err
		}
		var timings []timing
		if err := json.Unmarshal(text.Bytes(), &timings); err != nil {
			return fmt.Errorf("llama-bench: %w", err)
		}
		for i := range timings {
			l.timed(&timings[i])
		}
	}
	return nil
}

// timed keeps the shortest times.
func (l *llama) timed(t *timing) {
	s := &l.report.Speed
	l.report.Tool = fmt.Sprintf("llama-quantize of llama.cpp, build %d", t.Build)
	run, prompt := &s.OriginalRun, &s.OriginalPrompt
	if t.File == l.result() {
		run, prompt = &s.ResultRun, &s.ResultPrompt
	}
	tokens := t.Written
	if t.Prompt > 0 {
		run, tokens = prompt, t.Prompt
	}
	for _, ns := range t.Samples {
		if each := time.Duration(ns / max(1, tokens)); each > 0 && (*run == 0 || each < *run) {
			*run = each
		}
	}
}
