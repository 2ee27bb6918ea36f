package front

import (
	"bytes"
	"encoding/json"
)

// CheckObject returns nil where text is one JSON object. It keeps nothing of it,
// however many members it has.
func CheckObject(text []byte) error { return json.Unmarshal(text, &struct{}{}) }

// Members calls member for each member of a JSON object, which is valid already,
// in their order. The values are slices of text: a list of all would take many
// times the body's memory. What is no object has no members.
func Members(text []byte, member func(name string, value []byte) error) error {
	return each(text, '{', func(at int) (int, error) {
		end := stringEnd(text, at)
		var name string
		if err := json.Unmarshal(text[at:end], &name); err != nil {
			return 0, err
		}
		if end = space(text, end); end < len(text) && text[end] == ':' {
			end++
		}
		begin := space(text, end)
		end = valueEnd(text, begin)
		return end, member(name, text[begin:end])
	})
}

// Elements calls element for each element of a JSON array, as Members does.
func Elements(text []byte, element func(value []byte) error) error {
	return each(text, '[', func(at int) (int, error) {
		end := valueEnd(text, at)
		return end, element(text[at:end])
	})
}

// each calls next where each element of a list begins, which returns where it
// ends.
func each(text []byte, open byte, next func(at int) (int, error)) error {
	at := space(text, 0)
	if at == len(text) || text[at] != open {
		return nil
	}
	for at = space(text, at+1); at < len(text) && text[at] != ']' && text[at] != '}'; at = space(text, at) {
		end, err := next(at)
		if err != nil {
			return err
		}
		if end = space(text, end); end < len(text) && text[end] == ',' {
			end++
		}
		if end <= at {
			return nil // it is not valid
		}
		at = end
	}
	return nil
}

func space(text []byte, at int) int {
	for at < len(text) && bytes.IndexByte([]byte(" \t\r\n"), text[at]) >= 0 {
		at++
	}
	return at
}

// stringEnd is the index behind a string that begins at one.
func stringEnd(text []byte, at int) int {
	for at++; at < len(text); at++ {
		switch text[at] {
		case '\\':
			at++
		case '"':
			return at + 1
		}
	}
	return len(text)
}

// valueEnd is the index behind a value.
func valueEnd(text []byte, at int) int {
	depth := 0
	for at < len(text) {
		switch text[at] {
		case '"':
			if at = stringEnd(text, at); depth == 0 {
				return at
			}
			continue
		case '[', '{':
			depth++
		case ']', '}':
			if depth == 0 {
				return at
			}
			if depth--; depth == 0 {
				return at + 1
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return at
			}
		}
		at++
	}
	return len(text)
}
