package oip

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/front"
	"oscine.dev/oscine/internal/tensor"
)

// readHeader reads the request's JSON, and with it everything when no binary
// tensors follow.
func (c *call) readHeader(body *front.Body, r *http.Request) (err error) {
	length := front.Header(r.Header, headerLength)
	if length == "" {
		c.body, err = body.All(c.body[:0])
	} else {
		n, bad := strconv.ParseInt(length, 10, 64)
		if bad != nil || n < 0 {
			return fmt.Errorf("%w: header %s is %q", core.ErrInvalid, headerLength, length)
		}
		c.body, err = body.ReadExactly(c.body[:0], int(n))
	}
	if err != nil {
		return err
	}
	if err := c.parse(); err != nil {
		return err
	}
	if c.request.binary > 0 && length == "" {
		return fmt.Errorf("%w: binary_data_size needs the header %s", core.ErrInvalid, headerLength)
	}
	if all := body.Length(); all >= 0 && all != int64(len(c.body)+c.request.binary) {
		return fmt.Errorf("%w: the body has %d bytes; %d of JSON and %d of binary data are announced", core.ErrInvalid, all, len(c.body), c.request.binary)
	}
	return nil
}

// keepJSON bounds the JSON that is kept to know it again.
const keepJSON = 4 << 10

// parse reads the JSON, unless it is the last one again: where tensors are not in it,
// a client most often repeats it.
func (c *call) parse() error {
	if len(c.known) > 0 && bytes.Equal(c.body, c.known) {
		return nil
	}
	c.known = c.known[:0]
	if err := c.request.parse(c.body); err != nil {
		return err
	}
	if len(c.body) <= keepJSON && !slices.ContainsFunc(c.request.inputs, func(in inferInput) bool { return in.binary < 0 && in.place.region == "" }) {
		c.known = append(c.known, c.body...)
	}
	return nil
}

// checkBinary compares the announced binary sizes with the shapes.
func (r *inferRequest) checkBinary() error {
	for i := range r.inputs {
		in := &r.inputs[i]
		if in.binary < 0 || in.kind == tensor.Bytes {
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
func (c *call) readBinary(body *front.Body) (err error) {
	if c.request.binary == 0 {
		return nil
	}
	start := len(c.body)
	// The JSON may move with the buffer; its data are slices of the old memory,
	// which stays as it is.
	if c.body, err = body.ReadExactly(c.body, c.request.binary); err != nil {
		return err
	}
	rest := c.body[start:]
	for i := range c.request.inputs {
		if in := &c.request.inputs[i]; in.binary >= 0 {
			in.data, rest = rest[:in.binary], rest[in.binary:]
		}
	}
	return nil
}

// Size implements core.Sized.
func (in *inferInput) Size() int {
	if in.place.region != "" {
		return int(in.place.size)
	}
	return len(in.data)
}

// Put implements core.Source.
func (in *inferInput) Put(dst []byte) error {
	if in.place.region != "" {
		return in.place.regions.Read(in.place.region, in.place.offset, dst)
	}
	if in.binary >= 0 || in.kind == tensor.Bytes {
		return core.Bytes(in.data).Put(dst)
	}
	return tensor.ParseJSON(dst, in.kind, in.data)
}
