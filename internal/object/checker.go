package object

import (
	"fmt"
	"strings"
	"time"

	"oscine.dev/oscine/internal/printable"
)

// FieldError is one mistake in a manifest.
type FieldError struct {
	Line   int    // 1-based line in the stream, 0 where unknown
	Path   string // such as "spec.resources.cpu"
	Reason string // what is wrong and what would be right
}

// Error prints "line 7: spec.resources.cpu: …".
func (e *FieldError) Error() string {
	var b strings.Builder
	if e.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", e.Line)
	}
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Reason)
	return b.String()
}

// Errors is every mistake found in one stream, in the order of the text.
type Errors []*FieldError

// InvalidParameter makes mistakes in manifests invalid arguments to
// github.com/containerd/errdefs.
func (e Errors) InvalidParameter() {}

// Error lists the mistakes, one a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, fe := range e {
		lines[i] = fe.Error()
	}
	return strings.Join(lines, "\n")
}

// Checker collects the mistakes of a stream.
type Checker struct {
	errs  Errors
	lines map[string]int  // path → line of the document at hand
	zeros map[string]bool // paths of the document at hand at which a zero is written
	kinds Table

	confidential bool // the document at hand may hold secrets
}

// Check returns the mistakes of an object that was not read from text, as an
// Errors without lines, nil for none.
func (t Table) Check(obj Object) error {
	c := &Checker{kinds: t}
	obj.Check(c)
	if len(c.errs) == 0 {
		return nil
	}
	return c.errs
}

func (c *Checker) add(line int, path, format string, args ...any) {
	if len(c.errs) < maxErrors {
		c.errs = append(c.errs, &FieldError{Line: line, Path: shown(path), Reason: shown(fmt.Sprintf(format, args...))})
	}
}

// Bad reports a mistake at a path of the document at hand.
func (c *Checker) Bad(path, format string, args ...any) {
	line, at := 0, path
	for line == 0 && at != "" {
		line = c.lines[at]
		cut := strings.LastIndexAny(at, ".[")
		at = at[:max(cut, 0)]
	}
	c.add(line, path, format, args...)
}

// Class checks spec.class.
func (c *Checker) Class(class Class) {
	c.OneOf("spec.class", string(class), string(Realtime), string(Interactive), string(Batch))
}

// OneOf checks that a value is one of those allowed, or absent.
func (c *Checker) OneOf(at, got string, allowed ...string) {
	if got == "" {
		return // absent: the default stands
	}
	for _, a := range allowed {
		if got == a {
			return
		}
	}
	c.Bad(at, "must be one of %s, got %q", strings.Join(allowed, ", "), got)
}

// Number checks that a number is within bounds, or absent.
func (c *Checker) Number(at string, n, least, most int64) {
	if (n != 0 || c.zeros[at]) && (n < least || n > most) {
		c.Bad(at, "must be from %d to %d, got %d", least, most, n)
	}
}

// Duration checks that a duration is within bounds, or absent.
func (c *Checker) Duration(at string, d Duration, least, most time.Duration) {
	if (d != 0 || c.zeros[at]) && (d.Std() < least || d.Std() > most) {
		c.Bad(at, "must be from %v to %v, got %v", least, most, d)
	}
}

// Port checks a port number.
func (c *Checker) Port(at string, port int) {
	if port < 1 || port > 65535 {
		c.Bad(at, "must be from 1 to 65535, got %d", port)
	}
}

// shown bounds what an error repeats of a stranger's text, and escapes what a
// terminal would obey.
func shown(s string) string {
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "") + "…"
	}
	return printable.Lines(s)
}

// quote repeats what a person wrote, as far as it helps to find it.
func quote(s string) string {
	if len(s) > maxQuoted {
		return fmt.Sprintf("%q… (%d bytes)", strings.ToValidUTF8(s[:maxQuoted], ""), len(s))
	}
	return fmt.Sprintf("%q", s)
}
