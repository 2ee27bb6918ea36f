package printable

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text returns s with everything that is not printable written as Go would in
// a string literal: a control byte as \x1b, a byte that is not UTF-8 as \xff, a
// mark that turns the direction of writing as \u202e. Tabs and newlines become
// blanks. Text that is printable comes back as it is, so Text of Text is the
// same.
func Text(s string) string { return escape(s, false) }

// Lines is Text for text of several lines: it leaves tabs and newlines alone.
func Lines(s string) string { return escape(s, true) }

func escape(s string, lines bool) string {
	if clean(s, lines) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			b.WriteString(`\x` + hex(s[0]))
		case printable(r) || lines && layout(r):
			b.WriteRune(r)
		case layout(r):
			b.WriteByte(' ')
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		s = s[size:]
	}
	return b.String()
}

func clean(s string, lines bool) bool {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return false
			}
		}
		if !printable(r) && !(lines && layout(r)) {
			return false
		}
	}
	return true
}

func printable(r rune) bool { return r == ' ' || unicode.IsPrint(r) }

func layout(r rune) bool { return r == '\t' || r == '\n' || r == '\r' }

func hex(b byte) string {
	text := strconv.FormatUint(uint64(b), 16)
	return strings.Repeat("0", 2-len(text)) + text
}
