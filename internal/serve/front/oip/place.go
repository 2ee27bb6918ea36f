package oip

import (
	"context"
	"fmt"
	"strconv"

	"oscine.dev/oscine/internal/serve/core"
	"oscine.dev/oscine/internal/serve/region"
	"oscine.dev/oscine/internal/tensor"
)

// place is where a tensor lies in a client's shared memory, as Triton's extension
// of system shared memory says it.
type place struct {
	region       string // "": it lies in none
	offset, size int64
	regions      *region.Regions // of the connection
}

// set takes a parameter of an input or output; others are passed over.
func (p *place) set(name string, v Value) (err error) {
	switch name {
	case "shared_memory_region":
		if v.kind != textValue || v.text == "" {
			return fmt.Errorf("%w: parameter %q needs a region's name", core.ErrInvalid, name)
		}
		p.region = v.text
	case "shared_memory_offset":
		p.offset, err = v.whole(name)
	case "shared_memory_byte_size":
		p.size, err = v.whole(name)
	}
	return err
}

// find checks a place against the connection's regions.
func (p *place) find(regions *region.Regions) error {
	p.regions = regions
	return regions.Check(p.region, p.offset, p.size)
}

// findPlaces finds the tensors that lie in shared memory.
func (r *inferRequest) findPlaces(ctx context.Context) error {
	if !r.places {
		return nil
	}
	regions := region.Of(ctx)
	if regions == nil {
		return fmt.Errorf("%w: clients' shared memory is not supported on this connection: send the tensors with the request", core.ErrInvalid)
	}
	for i := range r.inputs {
		in := &r.inputs[i]
		if in.place.region == "" {
			continue
		}
		if err := in.place.find(regions); err != nil {
			return fmt.Errorf("input %q: %w", in.name, err)
		}
		if in.kind == tensor.Bytes {
			continue
		}
		n, err := in.shape.Bytes(in.kind)
		if err == nil && int64(n) != in.place.size {
			err = fmt.Errorf("shared_memory_byte_size is %d, shape %s of %s needs %d", in.place.size, in.shape, in.kind, n)
		}
		if err != nil {
			return fmt.Errorf("%w: input %q: %w", core.ErrInvalid, in.name, err)
		}
	}
	for i := range r.outputs {
		out := &r.outputs[i]
		if out.place.region == "" {
			continue
		}
		if err := out.place.find(regions); err != nil {
			return fmt.Errorf("output %q: %w", out.Name, err)
		}
	}
	return nil
}

// write puts an output where the client wants it, and tells it in the answer.
func (p *place) write(b []byte, out *core.Output) ([]byte, error) {
	if int64(len(out.Data)) > p.size {
		return b, fmt.Errorf("%w: output %q has %d bytes, shared_memory_byte_size is %d", core.ErrInvalid, out.Name, len(out.Data), p.size)
	}
	if err := p.regions.Write(p.region, p.offset, out.Data); err != nil {
		return b, fmt.Errorf("output %q: %w", out.Name, err)
	}
	b = appendText(append(b, `],"parameters":{"shared_memory_region":`...), p.region)
	if p.offset > 0 {
		b = strconv.AppendInt(append(b, `,"shared_memory_offset":`...), p.offset, 10)
	}
	b = strconv.AppendInt(append(b, `,"shared_memory_byte_size":`...), int64(len(out.Data)), 10)
	return append(b, "}}"...), nil
}
