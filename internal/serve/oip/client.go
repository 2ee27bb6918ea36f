package oip

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/tensor"
)

// maxAnswer bounds an answer in bytes.
const maxAnswer = 1 << 30

const headerLength = "Inference-Header-Content-Length"

// Client speaks to one server.
type Client struct {
	HTTP *http.Client
	URL  string // such as https://127.0.0.1:7443, without /v2
	// Version is that of the models asked; empty for the one that the server chooses.
	Version string
	// Token is sent as Authorization: Bearer; empty for none.
	Token string
}

// Error is a server's refusal.
type Error struct {
	Status int    // of HTTP
	Code   string // of gRPC, empty over HTTP
	Text   string // the server's words
}

func (e *Error) Error() string { return e.Text }

// HTTPStatus returns the status of the refusal.
func (e *Error) HTTPStatus() int { return e.Status }

// Tensor is an input or output with its elements, little-endian, row-major.
type Tensor struct {
	tensor.Spec
	Data []byte
}

// Model is what a server says of a model.
type Model struct {
	Name     string
	Versions []string
	Platform string
	Inputs   []tensor.Spec
	Outputs  []tensor.Spec
}

// wireTensor is a tensor in the protocol's JSON.
type wireTensor struct {
	Name       string          `json:"name"`
	DataType   string          `json:"datatype"`
	Shape      []int64         `json:"shape"`
	Parameters map[string]any  `json:"parameters,omitempty"`
	Data       json.RawMessage `json:"data,omitempty"`
}

func (w *wireTensor) spec() (tensor.Spec, error) {
	kind, err := tensor.ParseDataType(w.DataType)
	if err != nil {
		return tensor.Spec{}, fmt.Errorf("tensor %q: %w", w.Name, err)
	}
	return tensor.Spec{Name: w.Name, Type: kind, Shape: w.Shape}, nil
}

func (c *Client) path(model, rest string) string {
	path := c.URL + "/v2/models/" + url.PathEscape(model)
	if c.Version != "" {
		path += "/versions/" + url.PathEscape(c.Version)
	}
	return path + rest
}

// Ready asks whether the model answers. An *Error says why not.
func (c *Client) Ready(ctx context.Context, model string) error {
	_, _, err := c.do(ctx, http.MethodGet, c.path(model, "/ready"), nil, nil)
	return err
}

// Model describes a model.
func (c *Client) Model(ctx context.Context, model string) (*Model, error) {
	_, body, err := c.do(ctx, http.MethodGet, c.path(model, ""), nil, nil)
	if err != nil {
		return nil, err
	}
	var wire struct {
		Name     string       `json:"name"`
		Versions []string     `json:"versions"`
		Platform string       `json:"platform"`
		Inputs   []wireTensor `json:"inputs"`
		Outputs  []wireTensor `json:"outputs"`
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return nil, fmt.Errorf("model %s: the server's description: %w", model, err)
	}
	m := &Model{Name: wire.Name, Versions: wire.Versions, Platform: wire.Platform}
	for _, list := range []struct {
		from []wireTensor
		to   *[]tensor.Spec
	}{{wire.Inputs, &m.Inputs}, {wire.Outputs, &m.Outputs}} {
		for _, w := range list.from {
			spec, err := w.spec()
			if err != nil {
				return nil, fmt.Errorf("model %s: %w", model, err)
			}
			*list.to = append(*list.to, spec)
		}
	}
	return m, nil
}

// Infer sends the inputs as binary tensors and returns all outputs.
func (c *Client) Infer(ctx context.Context, model string, inputs ...Tensor) ([]Tensor, error) {
	request, err := EncodeBinary(inputs)
	if err != nil {
		return nil, err
	}
	return c.Answer(ctx, model, request)
}

// InferJSON sends a request written by hand and returns the answer as it
// comes.
func (c *Client) InferJSON(ctx context.Context, model string, request []byte) ([]byte, error) {
	_, body, err := c.do(ctx, http.MethodPost, c.path(model, "/infer"), http.Header{"Content-Type": {"application/json"}}, request)
	return body, err
}

func refusal(resp *http.Response, body []byte) error {
	var wire struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &wire) != nil || wire.Error == "" {
		wire.Error = strings.TrimSpace(fmt.Sprintf("the server answers %s %.200s", resp.Status, body))
	}
	return &Error{Status: resp.StatusCode, Text: wire.Error}
}

// parseAnswer reads an inference answer; length is the header's value, empty
// when no binary tensors follow the JSON.
func parseAnswer(length string, body []byte) ([]Tensor, error) {
	head, tail := body, []byte(nil)
	if length != "" {
		n, err := strconv.Atoi(length)
		if err != nil || n < 0 || n > len(body) {
			return nil, fmt.Errorf("header %s is %q for %d bytes", headerLength, length, len(body))
		}
		head, tail = body[:n], body[n:]
	}
	var wire struct {
		Outputs []wireTensor `json:"outputs"`
	}
	if err := json.Unmarshal(head, &wire); err != nil {
		return nil, err
	}
	var outputs []Tensor
	for _, w := range wire.Outputs {
		spec, err := w.spec()
		if err != nil {
			return nil, err
		}
		out := Tensor{Spec: spec}
		if size, ok := w.Parameters["binary_data_size"].(float64); ok {
			if size < 0 || size > float64(len(tail)) {
				return nil, fmt.Errorf("output %q: %v bytes are announced, %d came", w.Name, size, len(tail))
			}
			out.Data, tail = tail[:int(size):int(size)], tail[int(size):]
			err = checkSize(out)
		} else {
			out.Data, err = parseData(spec, w.Data)
		}
		if err != nil {
			return nil, fmt.Errorf("output %q: %w", w.Name, err)
		}
		outputs = append(outputs, out)
	}
	if len(outputs) == 0 {
		return nil, errors.New("it has no outputs")
	}
	return outputs, nil
}

// checkSize compares the elements that came with the shape.
func checkSize(t Tensor) error {
	if t.Type == tensor.Bytes {
		n, err := t.Shape.Elements()
		if err != nil {
			return err
		}
		return tensor.Strings(t.Data, n, func([]byte) error { return nil })
	}
	n, err := t.Shape.Bytes(t.Type)
	if err == nil && n != len(t.Data) {
		err = fmt.Errorf("%d bytes for shape %s of %s", len(t.Data), t.Shape, t.Type)
	}
	return err
}

// parseData reads elements that came as JSON.
func parseData(spec tensor.Spec, text []byte) ([]byte, error) {
	if spec.Type == tensor.Bytes {
		data, _, err := tensor.ParseStrings(nil, text)
		if err != nil {
			return nil, err
		}
		return data, checkSize(Tensor{spec, data})
	}
	n, err := spec.Shape.Bytes(spec.Type)
	if err != nil {
		return nil, err
	}
	// Elements are at least one byte of JSON each, which bounds n.
	if n/spec.Type.Size() > len(text) {
		return nil, fmt.Errorf("too little data for shape %s", spec.Shape)
	}
	data := make([]byte, n)
	return data, tensor.ParseJSON(data, spec.Type, text)
}
