package kserve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"oscine.dev/oscine/internal/tensor"
)

// shaper finds the shape of nested arrays, which is the same in all their parts,
// and gathers the texts among their elements. The JSON is valid already.
type shaper struct {
	text    []byte
	at      int
	shape   tensor.Shape
	sized   [tensor.MaxRank]bool // of which dimensions the size is known
	leaf    bool                 // how deep elements lie is known
	depth   int                  // of elements
	texts   bool                 // elements must be texts
	strings []byte
}

var errRagged = errors.New("arrays of one level have different lengths")

func (s *shaper) space() {
	for s.at < len(s.text) && (s.text[s.at] == ' ' || s.text[s.at] == '\n' || s.text[s.at] == '\t' || s.text[s.at] == '\r') {
		s.at++
	}
}

// value walks one value at a depth of arrays.
func (s *shaper) value(depth int) error {
	if s.space(); s.at == len(s.text) {
		return errors.New("a value is missing")
	}
	if s.text[s.at] != '[' {
		return s.element(depth)
	}
	if depth == tensor.MaxRank {
		return fmt.Errorf("more than %d dimensions", tensor.MaxRank)
	}
	if s.leaf && depth >= s.depth {
		return errRagged
	}
	if len(s.shape) <= depth {
		s.shape = append(s.shape, 0)
	}
	s.at++
	n := int64(0)
	for s.space(); s.at < len(s.text) && s.text[s.at] != ']'; s.space() {
		if err := s.value(depth + 1); err != nil {
			return err
		}
		n++
		if s.space(); s.at < len(s.text) && s.text[s.at] == ',' {
			s.at++
		}
	}
	s.at++
	if s.sized[depth] && s.shape[depth] != n {
		return errRagged
	}
	s.shape[depth], s.sized[depth] = n, true
	return nil
}

func (s *shaper) element(depth int) error {
	if s.leaf && s.depth != depth || !s.leaf && len(s.shape) > depth {
		return errRagged
	}
	s.leaf, s.depth = true, depth
	start := s.at
	switch s.text[s.at] {
	case '"':
		for s.at++; s.at < len(s.text) && s.text[s.at] != '"'; s.at++ {
			if s.text[s.at] == '\\' {
				s.at++
			}
		}
		s.at++
		var text string
		if err := json.Unmarshal(s.text[start:min(s.at, len(s.text))], &text); err != nil {
			return err
		}
		s.strings = tensor.AppendString(s.strings, []byte(text))
	case '{':
		end := bytes.IndexByte(s.text[s.at:], '}')
		if end < 0 {
			return errors.New("an object does not end")
		}
		raw, ok := decoded(s.text[s.at : s.at+end+1])
		if !ok {
			return errors.New(`an element is an object that is not {"b64": TEXT}`)
		}
		s.at += end + 1
		s.strings = tensor.AppendString(s.strings, raw)
	default:
		if s.texts {
			return errors.New("an element is not a text")
		}
		for s.at < len(s.text) && !bytes.ContainsRune([]byte(",] \n\t\r"), rune(s.text[s.at])) {
			s.at++
		}
		if s.at == start {
			return errors.New("an element is missing")
		}
	}
	return nil
}
