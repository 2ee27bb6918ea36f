package oip

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"
	"unsafe"

	"oscine.dev/oscine/internal/serve/core"
)

// scanner walks JSON without building it: the numbers of a tensor are looked
// at once, when they go into their slot.
type scanner struct {
	b  []byte
	at int
}

// maxNesting bounds nested arrays and objects in a request.
const maxNesting = 64

func (s *scanner) fail(want string) error {
	if s.at >= len(s.b) {
		return fmt.Errorf("%w: the JSON ends where %s should be", core.ErrInvalid, want)
	}
	return fmt.Errorf("%w: byte %d of the JSON is %q where %s should be", core.ErrInvalid, s.at, s.b[s.at], want)
}

// peek skips white space and returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	for s.at < len(s.b) {
		switch c := s.b[s.at]; c {
		case ' ', '\n', '\t', '\r':
			s.at++
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) expect(c byte) error {
	if s.peek() != c {
		return s.fail(strconv.QuoteRune(rune(c)))
	}
	s.at++
	return nil
}

// raw takes a string token with its quotes. It is plain where what is between them
// is the text.
func (s *scanner) raw() (token []byte, plain bool, err error) {
	if s.peek() != '"' {
		return nil, false, s.fail("a string")
	}
	plain = true
	for i := s.at + 1; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c > '\\' && c < utf8.RuneSelf: // most letters
		case c == '"':
			token = s.b[s.at : i+1]
			s.at = i + 1
			return token, plain, nil
		case c == '\\':
			plain = false
			i++
		case c >= utf8.RuneSelf:
			plain = false
		case c < ' ':
			s.at = i
			return nil, false, s.fail("no control character")
		}
	}
	s.at = len(s.b)
	return nil, false, s.fail("the end of a string")
}

// text takes a string.
func (s *scanner) text() (string, error) { return s.textAs("") }

// textAs takes a string. Where it is the one that is given, as most often where
// requests are alike, it needs no memory.
func (s *scanner) textAs(last string) (string, error) {
	start := s.at
	token, plain, err := s.raw()
	switch {
	case err != nil:
		return "", err
	case !plain:
		var text string
		if json.Unmarshal(token, &text) != nil {
			s.at = start
			return "", s.fail("a valid string")
		}
		return text, nil
	}
	if text := token[1 : len(token)-1]; string(text) != last {
		return string(text), nil
	}
	return last, nil
}

// word takes a string that is not kept: it lies in the JSON itself.
func (s *scanner) word() (string, error) {
	s.peek()
	start := s.at
	token, plain, err := s.raw()
	if err != nil {
		return "", err
	}
	if !plain {
		s.at = start
		return s.text()
	}
	text := token[1 : len(token)-1]
	return unsafe.String(unsafe.SliceData(text), len(text)), nil
}

// integer takes a whole number.
func (s *scanner) integer() (int64, error) {
	s.peek()
	end := s.at
	for end < len(s.b) && (s.b[end] == '-' || s.b[end]-'0' <= 9) {
		end++
	}
	n, err := strconv.ParseInt(string(s.b[s.at:end]), 10, 64)
	if err != nil {
		return 0, s.fail("a whole number")
	}
	s.at = end
	return n, nil
}

func (s *scanner) boolean() (bool, error) {
	switch rest := s.b[min(s.at, len(s.b)):]; {
	case s.peek() == 't' && len(s.b)-s.at >= 4 && string(s.b[s.at:s.at+4]) == "true":
		s.at += 4
		return true, nil
	case len(rest) > 0 && len(s.b)-s.at >= 5 && string(s.b[s.at:s.at+5]) == "false":
		s.at += 5
		return false, nil
	}
	return false, s.fail("true or false")
}

// value takes the value of a parameter.
func (s *scanner) value() (v Value, err error) {
	switch c := s.peek(); {
	case c == '"':
		v.kind = textValue
		v.text, err = s.text()
		return v, err
	case c == 't' || c == 'f':
		b, err := s.boolean()
		return Bool(b), err
	case c == '-' || c-'0' <= 9:
		from := s.at
		if n, err := s.integer(); err == nil && (s.at == len(s.b) || s.b[s.at] != '.' && s.b[s.at]|0x20 != 'e') {
			return Int(n), nil
		}
		s.at = from
	}
	return v, s.skip(0)
}

// null takes a null if there is one.
func (s *scanner) null() bool {
	if s.peek() != 'n' || len(s.b)-s.at < 4 || string(s.b[s.at:s.at+4]) != "null" {
		return false
	}
	s.at += 4
	return true
}

// object walks an object; member is called with each key and takes its value. A
// member that is null is as one that is not there, as KServe's client and others
// write those that they leave out.
func (s *scanner) object(member func(key string) error) error {
	if err := s.expect('{'); err != nil {
		return err
	}
	if s.peek() == '}' {
		s.at++
		return nil
	}
	for {
		key, err := s.word()
		if err != nil {
			return err
		}
		if err := s.expect(':'); err != nil {
			return err
		}
		if !s.null() {
			if err := member(key); err != nil {
				return err
			}
		}
		if s.peek() != ',' {
			return s.expect('}')
		}
		s.at++
	}
}

// array walks an array; element takes each value.
func (s *scanner) array(element func() error) error {
	if err := s.expect('['); err != nil {
		return err
	}
	if s.peek() == ']' {
		s.at++
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		if s.peek() != ',' {
			return s.expect(']')
		}
		s.at++
	}
}

// skip takes any value. Of numbers it checks only where they end.
func (s *scanner) skip(depth int) error {
	if depth > maxNesting {
		return s.fail("less nesting")
	}
	switch c := s.peek(); c {
	case '{':
		return s.object(func(string) error { return s.skip(depth + 1) })
	case '[':
		return s.array(func() error { return s.skip(depth + 1) })
	case '"':
		_, _, err := s.raw()
		return err
	default:
		start := s.at
		for s.at < len(s.b) && (s.b[s.at]|0x20 >= 'a' && s.b[s.at]|0x20 <= 'z' || s.b[s.at]-'0' <= 9 || s.b[s.at] == '-' || s.b[s.at] == '+' || s.b[s.at] == '.') {
			s.at++
		}
		if s.at == start {
			return s.fail("a value")
		}
		return nil
	}
}

// elements takes an array of plain values, however nested, and returns its
// text; what is between the brackets is checked when it is parsed.
func (s *scanner) elements() ([]byte, error) {
	if s.peek() != '[' {
		return nil, s.fail("an array")
	}
	// Most often it is one of numbers, and not nested.
	text := s.b[s.at:]
	if end := bytes.IndexByte(text, ']'); end > 0 && bytes.IndexByte(text[1:end], '[') < 0 && bytes.IndexByte(text[:end], '"') < 0 && bytes.IndexByte(text[:end], '{') < 0 {
		s.at += end + 1
		return text[:end+1], nil
	}
	depth := 0
	for i := s.at; i < len(s.b); i++ {
		switch s.b[i] {
		case '[':
			depth++
		case ']':
			if depth--; depth == 0 {
				text := s.b[s.at : i+1]
				s.at = i + 1
				return text, nil
			}
		case '"':
			start := s.at
			s.at = i
			if _, _, err := s.raw(); err != nil {
				return nil, err
			}
			i, s.at = s.at-1, start
		case '{':
			s.at = i
			return nil, s.fail("a number or a text")
		}
	}
	s.at = len(s.b)
	return nil, s.fail("the end of an array")
}
