package serve

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

// write sends the answer. Binary tensors go from the slot to the socket.
func (c *call) write(m *model, meta *channel.Metadata, slot []byte, w http.ResponseWriter) error {
	result, tail, err := &c.job.result, 0, error(nil)
	b := append(c.reply[:0], `{"model_name":`...)
	b = appendText(b, m.Name)
	b = append(b, `,"model_version":`...)
	b = appendText(b, m.Version)
	if c.request.id != "" {
		b = appendText(append(b, `,"id":`...), c.request.id)
	}
	b = append(b, `,"outputs":[`...)
	for i, shape := range result.Shapes {
		spec, binary := c.output(meta, i)
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(append(b, `{"name":`...), spec.Name)
		b = append(append(append(b, `,"datatype":"`...), spec.Type.String()...), `","shape":[`...)
		for j, d := range shape {
			if j > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, d, 10)
		}
		data, err := outputData(slot, shape, spec.Type, result.Offsets[i])
		if err != nil {
			return err
		}
		if binary {
			b = append(strconv.AppendInt(append(b, `],"parameters":{"binary_data_size":`...), int64(len(data)), 10), "}}"...)
			tail += len(data)
			continue
		}
		if b, err = tensor.AppendJSON(append(b, `],"data":`...), spec.Type, data); err != nil {
			return fmt.Errorf("%w: output %q: %w", ErrInvalid, spec.Name, err)
		}
		b = append(b, '}')
	}
	b = append(b, "]}"...)
	c.reply = b
	header := w.Header()
	header.Set("Content-Length", strconv.Itoa(len(b)+tail))
	if tail == 0 {
		header.Set("Content-Type", "application/json")
		_, err = w.Write(b)
	} else {
		header.Set("Content-Type", "application/octet-stream")
		header.Set(headerLength, strconv.Itoa(len(b)))
		_, err = w.Write(b)
		if tail > bufferedBytes {
			deadline := http.NewResponseController(w)
			_ = deadline.SetWriteDeadline(time.Now().Add(slowClient))
			defer func() { _ = deadline.SetWriteDeadline(time.Time{}) }()
		}
		for i, shape := range result.Shapes {
			if spec, binary := c.output(meta, i); binary && err == nil {
				var data []byte
				if data, err = outputData(slot, shape, spec.Type, result.Offsets[i]); err == nil {
					_, err = w.Write(data)
				}
			}
		}
	}
	_ = err // the client is gone; there is nobody to tell
	return nil
}

// outputIndex is the model's index of the i-th output of the answer.
func (c *call) outputIndex(i int) int {
	if wanted := c.job.request.Wanted; len(wanted) > 0 {
		return wanted[i]
	}
	return i
}

// output returns the i-th output of the answer and whether it goes as binary.
func (c *call) output(meta *channel.Metadata, i int) (*tensor.Spec, bool) {
	spec := &meta.Outputs[c.outputIndex(i)]
	if len(c.request.outputs) == 0 {
		return spec, c.request.allBinary
	}
	out := &c.request.outputs[i]
	return spec, out.binary || (!out.chosen && c.request.allBinary)
}

// outputData is the memory of an output, whose bounds the channel has checked.
func outputData(slot []byte, shape tensor.Shape, kind tensor.DataType, at int) ([]byte, error) {
	n, err := shape.Bytes(kind)
	if err != nil {
		return nil, err
	}
	return slot[at : at+n], nil
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
