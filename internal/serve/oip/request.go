package oip

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"oscine.dev/oscine/internal/bounded"
	"oscine.dev/oscine/internal/tensor"
)

// Request is an inference as it is sent, which can be sent again.
type Request struct {
	Body   []byte
	Header int // bytes of JSON before the tensors; 0: all is JSON
}

// EncodeBinary encodes inputs as bytes behind their description, and asks for
// outputs in the same way.
func EncodeBinary(inputs []Tensor) (Request, error) {
	var head struct {
		Inputs     []wireTensor   `json:"inputs"`
		Parameters map[string]any `json:"parameters"`
	}
	head.Parameters = map[string]any{"binary_data_output": true}
	var data []byte
	for _, in := range inputs {
		head.Inputs = append(head.Inputs, wireTensor{Name: in.Name, DataType: in.Type.String(), Shape: append([]int64{}, in.Shape...),
			Parameters: map[string]any{"binary_data_size": len(in.Data)}})
		data = append(data, in.Data...)
	}
	text, err := json.Marshal(head)
	if err != nil {
		return Request{}, err
	}
	return Request{Body: append(text, data...), Header: len(text)}, nil
}

// EncodeJSON encodes inputs as the protocol's plain JSON. It fails for types that
// JSON has no form for.
func EncodeJSON(inputs []Tensor) (Request, error) {
	var body struct {
		Inputs []wireTensor `json:"inputs"`
	}
	for _, in := range inputs {
		data, err := tensor.AppendJSON(nil, in.Type, in.Data)
		if err != nil {
			return Request{}, fmt.Errorf("input %q: %w", in.Name, err)
		}
		body.Inputs = append(body.Inputs, wireTensor{Name: in.Name, DataType: in.Type.String(), Shape: append([]int64{}, in.Shape...), Data: data})
	}
	text, err := json.Marshal(body)
	return Request{Body: text}, err
}

// ParseRequest reads the inputs of a request in the protocol's plain JSON.
func ParseRequest(body []byte) ([]Tensor, error) {
	var wire struct {
		Inputs []wireTensor `json:"inputs"`
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return nil, fmt.Errorf("the request: %w", err)
	}
	var inputs []Tensor
	for _, w := range wire.Inputs {
		spec, err := w.spec()
		if err != nil {
			return nil, err
		}
		data, err := parseData(spec, w.Data)
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", w.Name, err)
		}
		inputs = append(inputs, Tensor{spec, data})
	}
	if len(inputs) == 0 {
		return nil, errors.New("the request has no inputs")
	}
	return inputs, nil
}

// Send sends a request and returns the answer's body, which the caller reads to
// its end and closes.
func (c *Client) Send(ctx context.Context, model string, r Request) (io.ReadCloser, error) {
	resp, err := c.send(ctx, http.MethodPost, c.path(model, "/infer"), r.HTTPHeader(), r.Body)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Answer sends a request and returns all outputs.
func (c *Client) Answer(ctx context.Context, model string, r Request) ([]Tensor, error) {
	answer, body, err := c.do(ctx, http.MethodPost, c.path(model, "/infer"), r.HTTPHeader(), r.Body)
	if err != nil {
		return nil, err
	}
	outputs, err := parseAnswer(answer.Get(headerLength), body)
	if err != nil {
		return nil, fmt.Errorf("model %s: the server's answer: %w", model, err)
	}
	return outputs, nil
}

// HTTPHeader returns the headers that it is sent with over HTTP.
func (r Request) HTTPHeader() http.Header {
	if r.Header == 0 {
		return http.Header{"Content-Type": {"application/json"}}
	}
	return http.Header{headerLength: {strconv.Itoa(r.Header)}, "Content-Type": {"application/octet-stream"}}
}

// Extensions asks which extensions of the protocol the server has.
func (c *Client) Extensions(ctx context.Context) ([]string, error) {
	_, body, err := c.do(ctx, http.MethodGet, c.URL+"/v2", nil, nil)
	if err != nil {
		return nil, err
	}
	var wire struct {
		Extensions []string `json:"extensions"`
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return nil, fmt.Errorf("the server's description: %w", err)
	}
	return wire.Extensions, nil
}

// send returns an answer whose status is OK.
func (c *Client) send(ctx context.Context, method, address string, header http.Header, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil || resp.StatusCode == http.StatusOK {
		return resp, err
	}
	defer resp.Body.Close()
	answer, err := bounded.ReadAll(resp.Body, maxAnswer)
	if err != nil {
		return nil, fmt.Errorf("read the server's answer: %w", err)
	}
	return nil, refusal(resp, answer)
}

func (c *Client) do(ctx context.Context, method, address string, header http.Header, body []byte) (http.Header, []byte, error) {
	resp, err := c.send(ctx, method, address, header, body)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	answer, err := bounded.ReadAll(resp.Body, maxAnswer)
	if err != nil {
		return nil, nil, fmt.Errorf("read the server's answer: %w", err)
	}
	return resp.Header, answer, nil
}
