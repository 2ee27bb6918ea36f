package oip

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
	"oscine.dev/oscine/internal/tensor"
)

// write sends the answer. After its first byte it returns nil.
func (c *call) write(response *core.Response, w http.ResponseWriter) error {
	b, tail, err := c.encode(response)
	if c.reply = b; err != nil {
		return err
	}
	header := w.Header()
	if tail == 0 {
		header["Content-Type"] = []string{"application/json"}
	} else {
		header["Content-Type"] = []string{"application/octet-stream"}
		header[headerLength] = []string{strconv.Itoa(len(b))}
	}
	joined := tail <= joinBytes
	parts := append(c.parts[:0], nil)
	for i := range response.Outputs {
		switch data := response.Outputs[i].Data; {
		case !c.binary(i):
		case joined:
			b = append(b, data...)
		default:
			parts = append(parts, data)
		}
	}
	c.reply, parts[0] = b, b
	front.Send(w, http.StatusOK, parts...)
	clear(parts)
	c.parts = parts
	return nil
}

// encode writes the JSON of the answer, and counts the bytes of binary tensors
// that follow it.
func (c *call) encode(response *core.Response) (b []byte, tail int, err error) {
	b = appendText(append(c.reply[:0], `{"model_name":`...), response.Model)
	b = appendText(append(b, `,"model_version":`...), response.Version)
	if c.request.id != "" {
		b = appendText(append(b, `,"id":`...), c.request.id)
	}
	b = append(b, `,"outputs":[`...)
	for i := range response.Outputs {
		out := &response.Outputs[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(append(b, `{"name":`...), out.Name)
		b = append(append(append(b, `,"datatype":"`...), out.Type.String()...), `","shape":[`...)
		for j, d := range out.Shape {
			if j > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, d, 10)
		}
		if p := c.place(i); p != nil {
			if b, err = p.write(b, out); err != nil {
				return b, 0, err
			}
			continue
		}
		if c.binary(i) {
			b = append(strconv.AppendInt(append(b, `],"parameters":{"binary_data_size":`...), int64(len(out.Data)), 10), "}}"...)
			tail += len(out.Data)
			continue
		}
		if b, err = tensor.AppendJSON(append(b, `],"data":`...), out.Type, out.Data); err != nil {
			return b, 0, fmt.Errorf("%w: output %q: %w", core.ErrInvalid, out.Name, err)
		}
		b = append(b, '}')
	}
	return append(b, "]}"...), tail, nil
}

// checkOutputs refuses, before anything is computed, an answer that cannot be
// written as it is asked for.
func (c *call) checkOutputs(specs []tensor.Spec) error {
	refuse := func(spec *tensor.Spec) error {
		return fmt.Errorf("%w: output %q: %s elements cannot be written as JSON: ask for it with the parameter binary_data", core.ErrInvalid, spec.Name, spec.Type)
	}
	for i := range c.request.outputs {
		out := &c.request.outputs[i]
		if err := CheckClasses(specs, out.Name, out.OutputParameters); err != nil {
			return err
		}
	}
	for i := range specs {
		spec := &specs[i]
		if spec.Type.HasJSON() {
			continue
		}
		if len(c.request.outputs) == 0 && !c.request.allBinary {
			return refuse(spec)
		}
		for j := range c.request.outputs {
			if out := &c.request.outputs[j]; out.Name == spec.Name && out.Classes == 0 && !c.binary(j) && out.place.region == "" {
				return refuse(spec)
			}
		}
	}
	return nil
}

// binary says whether the i-th output of the answer goes as binary.
func (c *call) binary(i int) bool {
	if len(c.request.outputs) == 0 {
		return c.request.allBinary
	}
	out := &c.request.outputs[i]
	return out.place.region == "" && (out.Binary || !out.BinarySaid && c.request.allBinary)
}

// place is where the i-th output of the answer goes in shared memory, or nil.
func (c *call) place(i int) *place {
	if len(c.request.outputs) == 0 || c.request.outputs[i].place.region == "" {
		return nil
	}
	return &c.request.outputs[i].place
}

// appendText appends a JSON string.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			quoted, err := json.Marshal(s)
			if err != nil {
				quoted = []byte(`""`)
			}
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
