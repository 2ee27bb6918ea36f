package trial

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/language"
	"oscine.dev/oscine/internal/tensor"
)

// adds is a model of one tensor of two numbers that adds to its input.
func adds(by byte) Serving {
	spec := func(name string) []tensor.Spec {
		return []tensor.Spec{{Name: name, Type: tensor.Uint8, Shape: tensor.Shape{-1, 2}}}
	}
	return Serving{channel.Metadata{Engine: "adds 1", Inputs: spec("x"), Outputs: spec("y")}, func(_ context.Context, in []Input) ([]Output, error) {
		data := bytes.Clone(in[0].Data)
		for i := range data {
			data[i] += by
		}
		return []Output{{"y", tensor.Uint8, in[0].Shape, data}}, nil
	}}
}

func (m Serving) failing() Serving {
	m.Ask = func(context.Context, []Input) ([]Output, error) { return nil, errors.New("not with these") }
	return m
}

// random answers differently each time.
func (m Serving) random() Serving {
	ask, n := m.Ask, byte(0)
	m.Ask = func(ctx context.Context, in []Input) ([]Output, error) {
		outputs, err := ask(ctx, in)
		n++
		outputs[0].Data[0] += n
		return outputs, err
	}
	return m
}

func (m Serving) other() Serving {
	m.Metadata.Inputs = []tensor.Spec{{Name: "z", Type: tensor.Uint8, Shape: tensor.Shape{-1, 2}}}
	return m
}

// speaks is a language model that answers what has a text.
func speaks(answers map[string]string) Serving {
	return Serving{channel.Metadata{Engine: "speaks 1", Inputs: language.Inputs(), Outputs: language.Outputs()}, func(_ context.Context, in []Input) ([]Output, error) {
		path, err := language.Text(in[0].Data)
		if err != nil {
			return nil, err
		}
		code, one := 200, tensor.Shape{1}
		body, ok := answers[string(path)]
		if !ok {
			code = 501
		}
		return []Output{{language.Status, tensor.Int32, one, language.AppendCode(nil, code)}, {language.Body, tensor.Bytes, one, language.AppendText(nil, []byte(body))}}, nil
	}}
}

func TestExamine(t *testing.T) {
	chat := map[string]string{language.Tokenize: "[1,2]", language.Completions: "four"}
	with := func(path, body string) map[string]string {
		changed := map[string]string{path: body}
		for p, b := range chat {
			if p != path {
				changed[p] = b
			}
		}
		if body == "" {
			delete(changed, path)
		}
		return changed
	}
	for name, test := range map[string]struct {
		old, next Serving
		want      string
	}{
		"the same":                 {adds(1), adds(1), ""},
		"another answer":           {adds(1), adds(2), "differ by"},
		"no answer":                {adds(1), adds(1).failing(), "does not answer made-up inputs, as adds 1 does: not with these"},
		"at random":                {adds(1).random(), adds(1).random(), ""},
		"at random, then none":     {adds(1).random(), adds(1).failing(), "does not answer"},
		"none to compare":          {adds(1).failing(), adds(2), ""},
		"other inputs":             {adds(1), adds(1).other(), "differently from adds 1"},
		"other inputs, no answers": {adds(1).failing(), adds(1).other(), "differently from adds 1"},
		"language":                 {speaks(chat), speaks(with(language.Completions, "five")), ""},
		"other tokens":             {speaks(chat), speaks(with(language.Tokenize, "[1,3]")), "makes other tokens of a text than speaks 1"},
		"no words":                 {speaks(chat), speaks(with(language.Completions, "")), `does not answer /v1/completions, as speaks 1 does: status 501: ""`},
		"more than before":         {speaks(chat), speaks(with(language.Embeddings, "[0.5]")), ""},
		"language no more":         {speaks(chat), adds(1), "not serve the model as a language model"},
	} {
		err := Examine(t.Context(), test.old)(t.Context(), test.next)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "%!")) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}
