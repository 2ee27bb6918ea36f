package pattern

import (
	"regexp"
	"sync"
)

// Pattern is a regular expression in the syntax of package regexp. It is safe for
// concurrent use.
type Pattern struct {
	text     string
	compiled func() *regexp.Regexp
}

// New returns the pattern of text. One that is no regular expression panics at its first
// use.
func New(text string) *Pattern {
	return &Pattern{text, sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })}
}

// String is the text that the pattern was made of.
func (p *Pattern) String() string { return p.text }

// MatchString reports whether s contains a match.
func (p *Pattern) MatchString(s string) bool { return p.compiled().MatchString(s) }

// Regexp is the compiled expression, for all else.
func (p *Pattern) Regexp() *regexp.Regexp { return p.compiled() }
