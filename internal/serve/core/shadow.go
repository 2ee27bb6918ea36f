package core

import (
	"context"
	"errors"
	"time"
)

// maxShadowed bounds the requests that a shadow computes at once; others it does
// not get.
const maxShadowed = 4

// cast has the shadows compute a copy of a request, behind its back.
func (r *Registry) cast(q *Request, shadows []*model) {
	if len(shadows) == 0 {
		return
	}
	inputs, err := copyInputs(q.Inputs)
	for _, m := range shadows {
		if err != nil { // what is wrong with it, the one that answers says
			m.shadowed.Release(1)
			m.users.Done()
			continue
		}
		copied := Request{Model: q.Model, Version: m.Version, Arrived: time.Now(), Priority: q.Priority, Timeout: q.Timeout, Inputs: inputs}
		go func() {
			defer m.users.Done()
			defer m.shadowed.Release(1)
			ctx, cancel := context.WithTimeout(m.ctx, m.Timeout)
			defer cancel()
			response, err := r.answer(ctx, m, copied)
			if err == nil {
				response.Free()
			}
		}()
	}
}

// copyInputs copies what a request holds only until it is answered.
func copyInputs(inputs []Input) ([]Input, error) {
	copied := make([]Input, len(inputs))
	for i := range inputs {
		in := &inputs[i]
		n, err := in.bytes()
		if err == nil && n > DefaultMaxRequest {
			err = errors.New("too large to be copied")
		}
		if err != nil {
			return nil, err
		}
		data := make(Bytes, n)
		if err := in.Data.Put(data); err != nil {
			return nil, err
		}
		copied[i] = Input{in.Name, in.Type, append(in.Shape[:0:0], in.Shape...), data}
	}
	return copied, nil
}
