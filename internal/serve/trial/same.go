package trial

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/language"
	"oscine.dev/oscine/internal/tensor"
)

// Serving is a model that answers requests.
type Serving struct {
	Metadata channel.Metadata // as its clients see it
	Ask      func(ctx context.Context, inputs []Input) ([]Output, error)
}

// mostAsked bounds the bytes that a model is asked with while it serves.
const mostAsked = 64 << 20

// Examine asks a model that serves, by made-up inputs of one row. What it returns holds
// another one to the same answers, within Spread; of a language model, whose words may
// differ, to the same tokens, and to an answer wherever the first gave one. A model that
// answers at random holds another one to an answer, and one that does not answer such
// inputs to its inputs and outputs only.
func Examine(ctx context.Context, m Serving) (check func(ctx context.Context, other Serving) error) {
	if language.Is(m.Metadata.Inputs, m.Metadata.Outputs) {
		return examineLanguage(ctx, m)
	}
	inputs, outputs := m.firstAnswer(ctx)
	random := false // it answers the same inputs differently
	if outputs != nil {
		again, err := m.Ask(ctx, inputs)
		_, reason := compare(&Result{Metadata: m.Metadata, Outputs: outputs}, &Result{Metadata: m.Metadata, Outputs: again})
		random = err != nil || reason != ""
	}
	return func(ctx context.Context, other Serving) error {
		before, now := &Result{Metadata: m.Metadata, Outputs: outputs}, &Result{Metadata: other.Metadata}
		if _, reason := compare(before, now); reason != notCompared {
			return errors.New("it " + reason) // its inputs or outputs are others
		}
		if outputs == nil {
			return nil
		}
		var err error
		if now.Outputs, err = other.Ask(ctx, inputs); err != nil {
			return fmt.Errorf("it does not answer made-up inputs, as %s does: %w", m.Metadata.Engine, err)
		}
		if _, reason := compare(before, now); reason != "" && !random {
			return fmt.Errorf("on made-up inputs %s", reason)
		}
		return nil
	}
}

// firstAnswer finds inputs that a model answers, the smallest first: it has clients.
func (m *Serving) firstAnswer(ctx context.Context) ([]Input, []Output) {
	for _, open := range []int64{1, 64, 224, 512} {
		shapes, sizes := shapesFor(&m.Metadata, 1, open)
		inputs, total := make([]Input, len(shapes)), 0
		for i := range shapes {
			if total += sizes[i]; total > mostAsked {
				return nil, nil
			}
			inputs[i] = Input{shapes[i], make([]byte, sizes[i])}
			fill(&m.Metadata.Inputs[i], inputs[i].Data)
		}
		if outputs, err := m.Ask(ctx, inputs); err == nil && len(outputs) > 0 {
			return inputs, outputs
		}
	}
	return nil, nil
}

// probes are what a language model is asked; the first says how it cuts text.
func probes() [][2]string {
	return [][2]string{
		{language.Tokenize, `{"content":"One model, two engines: 3.14 and naïve."}`},
		{language.Completions, `{"prompt":"One, two, three,","max_tokens":4,"temperature":0}`},
		{language.Embeddings, `{"input":"One, two, three"}`},
	}
}

func examineLanguage(ctx context.Context, m Serving) func(context.Context, Serving) error {
	var answered [][2]string
	var tokens []byte
	for _, p := range probes() {
		if body, err := m.say(ctx, p[0], p[1]); err == nil {
			answered = append(answered, p)
			if p[0] == language.Tokenize {
				tokens = body
			}
		}
	}
	return func(ctx context.Context, other Serving) error {
		if !language.Is(other.Metadata.Inputs, other.Metadata.Outputs) {
			return errors.New("it does not serve the model as a language model")
		}
		for _, p := range answered {
			body, err := other.say(ctx, p[0], p[1])
			if err != nil {
				return fmt.Errorf("it does not answer %s, as %s does: %w", p[0], m.Metadata.Engine, err)
			}
			if p[0] == language.Tokenize && !bytes.Equal(body, tokens) {
				return fmt.Errorf("it makes other tokens of a text than %s", m.Metadata.Engine)
			}
		}
		return nil
	}
}

// say asks a language model.
func (m *Serving) say(ctx context.Context, path, body string) ([]byte, error) {
	one := tensor.Shape{1}
	outputs, err := m.Ask(ctx, []Input{{one, language.AppendText(nil, []byte(path))}, {one, language.AppendText(nil, []byte(body))}})
	if err != nil {
		return nil, err
	}
	if len(outputs) != 2 {
		return nil, fmt.Errorf("%d outputs", len(outputs))
	}
	text, err := language.Text(outputs[1].Data)
	if err != nil {
		return nil, err
	}
	code, err := language.Code(outputs[0].Data)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("status %d: %.200q", code, text)
	}
	return text, err
}
