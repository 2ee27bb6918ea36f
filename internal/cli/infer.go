package cli

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/serve/oip"
	"oscine.dev/oscine/internal/serve/picture"
	"oscine.dev/oscine/internal/tensor"
)

// inferOptions are the flags of infer.
type inferOptions struct {
	endpoint
	version string
	request string
	output  *string
	top     int
	labels  []string
}

func newInferCommand(env *Env) *cobra.Command {
	var o inferOptions
	c := &cobra.Command{
		Use:               "infer MODEL [PICTURE...]",
		ValidArgsFunction: completeModelThenFiles(env),
		Short:             "Send pictures, or a request, to a served model and print its answers",
		Long: `Send pictures to a model that takes pictures and print the likeliest answers, or send a
request of the Open Inference Protocol as it is. Pictures are PNG, JPEG or GIF; they are
fitted to the model's input; for a model with one channel, made light on dark and centred.

-o name prints the likeliest answer alone, -o wide every answer, -o json a line for each
picture. With -f FILE, the model's answer is printed unchanged.`,
		Example: "  oscine infer digits photo.png\n  oscine infer digits *.png --output json\n  oscine infer digits -f request.json\n  oscine infer digits one.png --url http://192.0.2.7:8080",
		Args: func(c *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usageError{fmt.Errorf("needs a model and pictures: %s", c.UseLine())}
			case o.request == "" && len(args) == 1:
				return usageError{fmt.Errorf("needs pictures, or a request by -f FILE: %s", c.UseLine())}
			case o.request != "" && len(args) > 1:
				return usageError{errors.New("give either pictures or -f FILE")}
			case o.top < 1:
				return usageError{fmt.Errorf("--top %d: at least one answer is printed", o.top)}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			server, err := o.server(env)
			if err != nil {
				return err
			}
			server.Version = o.version
			err = o.infer(c.Context(), env, server, args[0], args[1:])
			return o.explain(c.Context(), env, server, args[0], err)
		},
	}
	f := c.Flags()
	f.StringVar(&o.version, "version", "", "version of the model (default the one that the server chooses)")
	f.StringVarP(&o.request, "file", "f", "", "send this JSON request, - for standard input")
	o.output = addOutput(c)
	f.IntVar(&o.top, "top", 3, "how many answers to print for each picture")
	f.StringSliceVar(&o.labels, "labels", nil, "names of the answers, in the model's order")
	o.addFlags(c)
	return c
}

func (o *inferOptions) infer(ctx context.Context, env *Env, server *oip.Client, name string, files []string) error {
	if o.request != "" {
		request, err := readRequest(env, o.request)
		if err != nil {
			return err
		}
		answer, err := server.InferJSON(ctx, name, request)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(env.Out, "%s\n", answer)
		return err
	}
	model, err := server.Model(ctx, name)
	if err != nil {
		return err
	}
	if len(model.Inputs) != 1 {
		return fmt.Errorf("model %s has %d inputs, not one picture: send a request by -f FILE", name, len(model.Inputs))
	}
	for _, file := range files {
		if err := o.inferPicture(ctx, env, server, model, file); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// maxRequest bounds a request's file in bytes, as a server does.
const maxRequest = 64 << 20

func readRequest(env *Env, file string) ([]byte, error) {
	request, err := readBounded(env, file, maxRequest, "the most that a node accepts: send fewer rows at once")
	if err != nil {
		return nil, err
	}
	if !json.Valid(request) {
		return nil, fmt.Errorf("%s is not JSON; see the Open Inference Protocol for what a request holds", file)
	}
	return request, nil
}

// pictureAnswer is one line of JSON output.
type pictureAnswer struct {
	File    string        `json:"file"`
	Answers []scored      `json:"answers"`
	Millis  float64       `json:"milliseconds"` // from sending to the answer
	Shape   tensor.Shape  `json:"shape"`        // of the model's output
	took    time.Duration // the same as Millis
}

type scored struct {
	Label       string  `json:"label"`
	Probability float64 `json:"probability"`
}

func (o *inferOptions) inferPicture(ctx context.Context, env *Env, server *oip.Client, model *oip.Model, file string) error {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return missing{errors.New("there is no such file")}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	img, err := picture.Decode(f)
	if err != nil {
		return err
	}
	input := oip.Tensor{Spec: model.Inputs[0]}
	if input.Data, input.Shape, err = picture.Tensor(img, model.Inputs[0]); err != nil {
		return err
	}
	begin := time.Now()
	outputs, err := server.Infer(ctx, model.Name, input)
	if err != nil {
		return err
	}
	took := time.Since(begin)
	scores, err := floats(outputs[0])
	if err != nil {
		return err
	}
	if len(o.labels) > 0 && len(o.labels) != len(scores) {
		return usageError{fmt.Errorf("--labels names %d answers, the model has %d: name each, in its order", len(o.labels), len(scores))}
	}
	answer := pictureAnswer{File: file, Answers: o.best(scores, o.top), took: took, Millis: float64(took.Microseconds()) / 1000, Shape: outputs[0].Shape}
	switch *o.output {
	case outputJSON: // a line each, as they come
		return json.NewEncoder(env.Out).Encode(answer)
	case outputYAML:
		fmt.Fprintln(env.Out, "---")
	case outputWide:
		answer.Answers = o.best(scores, len(scores))
	}
	return listing{answer, []string{answer.Answers[0].Label}, func(io.Writer, bool) error { return printAnswer(env, &answer) }}.print(env.Out, *o.output)
}

func printAnswer(env *Env, a *pictureAnswer) error {
	words := make([]string, len(a.Answers))
	for i, s := range a.Answers {
		words[i] = fmt.Sprintf("%s (%.1f %%)", s.Label, 100*s.Probability)
	}
	_, err := fmt.Fprintf(env.Out, "%s: %s, in %.1f ms\n", a.File, strings.Join(words, ", "), a.Millis)
	return err
}

// floats reads a tensor of scores.
func floats(t oip.Tensor) ([]float64, error) {
	size := t.Type.Size()
	if size == 0 {
		return nil, fmt.Errorf("output %q holds %s, not scores: send a request by -f FILE", t.Name, t.Type)
	}
	scores := make([]float64, 0, len(t.Data)/size)
	for at := 0; at+size <= len(t.Data); at += size {
		switch t.Type {
		case tensor.FP32:
			scores = append(scores, float64(math.Float32frombits(binary.LittleEndian.Uint32(t.Data[at:]))))
		case tensor.FP64:
			scores = append(scores, math.Float64frombits(binary.LittleEndian.Uint64(t.Data[at:])))
		default:
			return nil, fmt.Errorf("output %q holds %s, not scores: send a request by -f FILE", t.Name, t.Type)
		}
	}
	if len(scores) == 0 {
		return nil, fmt.Errorf("output %q is empty", t.Name)
	}
	return scores, nil
}

// best returns the likeliest answers, most of them and at least one. Scores that are no probabilities yet
// become such by softmax.
func (o *inferOptions) best(scores []float64, most int) []scored {
	probabilities := slices.Clone(scores)
	sum, least := 0.0, 0.0
	for _, s := range scores {
		sum, least = sum+s, min(least, s)
	}
	if least < 0 || math.Abs(sum-1) > 0.01 {
		top, total := slices.Max(scores), 0.0
		for i, s := range scores {
			probabilities[i] = math.Exp(s - top)
			total += probabilities[i]
		}
		for i := range probabilities {
			probabilities[i] /= total
		}
	}
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case probabilities[a] > probabilities[b]:
			return -1
		case probabilities[a] < probabilities[b]:
			return 1
		}
		return 0
	})
	var answers []scored
	for _, i := range order[:min(max(most, 1), len(order))] {
		label := fmt.Sprint(i)
		if i < len(o.labels) {
			label = o.labels[i]
		}
		answers = append(answers, scored{label, probabilities[i]})
	}
	return answers
}
