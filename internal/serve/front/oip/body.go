package oip

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/tensor"
)

// readHeader reads the request's JSON, and with it everything when no binary
// tensors follow.
func (h *handler) readHeader(c *call, r *http.Request) error {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return fmt.Errorf("%w %q: send the request uncompressed", errEncoding, encoding)
	}
	if r.ContentLength > h.options.MaxBodyBytes {
		return h.tooLarge()
	}
	limit, exact := h.options.MaxBodyBytes, false
	if length := r.Header.Get(headerLength); length != "" {
		n, err := strconv.ParseInt(length, 10, 64)
		if err != nil || n < 0 || n > limit {
			return fmt.Errorf("%w: header %s is %q", core.ErrInvalid, headerLength, length)
		}
		limit, exact = n, true
	} else if r.ContentLength >= 0 {
		limit, exact = r.ContentLength, true
	}
	var err error
	if exact {
		c.body, err = readExactly(r.Body, c.body[:0], int(limit))
	} else if c.body, err = readUpTo(r.Body, c.body[:0], limit); int64(len(c.body)) > limit {
		return h.tooLarge()
	}
	if err != nil {
		return fmt.Errorf("%w: the request's body cannot be read: %w", core.ErrInvalid, err)
	}
	if err := c.request.parse(c.body); err != nil {
		return err
	}
	if c.request.binary > 0 && r.Header.Get(headerLength) == "" {
		return fmt.Errorf("%w: binary_data_size needs the header %s", core.ErrInvalid, headerLength)
	}
	if int64(len(c.body)+c.request.binary) > h.options.MaxBodyBytes {
		return h.tooLarge()
	}
	if r.ContentLength >= 0 && r.ContentLength != int64(len(c.body)+c.request.binary) {
		return fmt.Errorf("%w: the body has %d bytes; %d of JSON and %d of binary data are announced", core.ErrInvalid, r.ContentLength, len(c.body), c.request.binary)
	}
	return nil
}

func (h *handler) tooLarge() error {
	return fmt.Errorf("%w: at most %d bytes are accepted", errTooLarge, h.options.MaxBodyBytes)
}

// readExactly appends n bytes to b. Memory grows with what arrives, not with
// what is announced.
func readExactly(r io.Reader, b []byte, n int) ([]byte, error) {
	for n > 0 {
		step := min(n, max(64<<10, len(b)))
		from := len(b)
		if cap(b)-from < step {
			b = append(b, make([]byte, step)...)[:from]
		}
		got, err := io.ReadFull(r, b[from:from+step])
		if b = b[:from+got]; err != nil {
			return b, err
		}
		n -= step
	}
	return b, nil
}

// readUpTo appends all that r has, but stops behind limit.
func readUpTo(r io.Reader, b []byte, limit int64) ([]byte, error) {
	buf := bytes.NewBuffer(b)
	_, err := buf.ReadFrom(io.LimitReader(r, limit+1))
	return buf.Bytes(), err
}

// checkBinary compares the announced binary sizes with the shapes.
func (r *inferRequest) checkBinary() error {
	for i := range r.inputs {
		in := &r.inputs[i]
		if in.binary < 0 {
			continue
		}
		n, err := in.shape.Bytes(in.kind)
		if err != nil {
			return fmt.Errorf("%w: input %q: %w", core.ErrInvalid, in.name, err)
		}
		if in.binary != n {
			return fmt.Errorf("%w: input %q: binary_data_size is %d, shape %s of %s needs %d", core.ErrInvalid, in.name, in.binary, in.shape, in.kind, n)
		}
	}
	return nil
}

// readBinary reads the binary tensors behind the JSON.
func (c *call) readBinary(w http.ResponseWriter, r *http.Request) error {
	if c.request.binary == 0 {
		return nil
	}
	if c.request.binary > checkBytes {
		deadline := http.NewResponseController(w)
		_ = deadline.SetReadDeadline(time.Now().Add(slowClient))
		defer func() { _ = deadline.SetReadDeadline(time.Time{}) }()
	}
	start := len(c.body)
	// The JSON may move with the buffer; its data are slices of the old memory,
	// which stays as it is.
	body, err := readExactly(r.Body, c.body, c.request.binary)
	if c.body = body; err != nil {
		return fmt.Errorf("%w: the binary data end too early: %w", core.ErrInvalid, err)
	}
	rest := body[start:]
	for i := range c.request.inputs {
		if in := &c.request.inputs[i]; in.binary >= 0 {
			in.data, rest = rest[:in.binary], rest[in.binary:]
		}
	}
	return nil
}

// Put implements core.Source.
func (in *inferInput) Put(dst []byte) error {
	if in.binary >= 0 {
		return core.Bytes(in.data).Put(dst)
	}
	return tensor.ParseJSON(dst, in.kind, in.data)
}
