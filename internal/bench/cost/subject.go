package main

import (
	"fmt"
	"net/url"
	"strings"

	"oscine.dev/oscine/internal/serve/oip"
	"oscine.dev/oscine/internal/tensor"
)

// subject is a model, and the engine that runs it.
type subject struct {
	engine, library, file string
	options               map[string]string
}

// String is one word of a line that a child obeys.
func (s subject) String() string {
	v := url.Values{"engine": {s.engine}, "library": {s.library}, "file": {s.file}}
	for key, value := range s.options {
		v.Set(optionPrefix+key, value)
	}
	return v.Encode()
}

const optionPrefix = "option."

func parseSubject(word string) (subject, error) {
	v, err := url.ParseQuery(word)
	if err != nil {
		return subject{}, fmt.Errorf("what is %q: %w", word, err)
	}
	s := subject{engine: v.Get("engine"), library: v.Get("library"), file: v.Get("file")}
	for key := range v {
		if name, ok := strings.CutPrefix(key, optionPrefix); ok {
			if s.options == nil {
				s.options = map[string]string{}
			}
			s.options[name] = v.Get(key)
		}
	}
	return s, nil
}

// inputFor is what a model with one input is asked with.
func inputFor(specs []tensor.Spec) (oip.Tensor, error) {
	if len(specs) != 1 || specs[0].Type != tensor.FP32 {
		return oip.Tensor{}, fmt.Errorf("has inputs %v, not one of FP32", specs)
	}
	spec := specs[0]
	spec.Shape, spec.AnyRank = spec.Concrete(1, 1), false
	n, err := spec.Shape.Bytes(spec.Type)
	if err != nil {
		return oip.Tensor{}, err
	}
	return oip.Tensor{Spec: spec, Data: floats(n / spec.Type.Size())}, nil
}
