package journal

import (
	"bytes"
	"errors"
	"strings"
	"time"
)

// Stream says where a line came from.
type Stream string

// The streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// MaxText is the longest text of one line on disk, in bytes. Longer lines are
// kept as several, all but the last Partial.
const MaxText = 16 << 10

// maxRecord bounds one record on disk: the text and the fields before it.
const maxRecord = MaxText + 64

// Line is one line of a log, or a part of a very long one.
type Line struct {
	Time    time.Time
	Stream  Stream
	Partial bool   // the text goes on in the next line of the same stream
	Begins  bool   // no line: the program starts here; see Writer.Begin
	Text    string // without its newline; bytes as the program wrote them
}

// errRecord says that a record on disk is torn or foreign.
var errRecord = errors.New("not a journal record")

// appendTo adds the line's record, with its newline, to b.
//
// Source: Kubernetes, "CRI: Log management for container stdout/stderr
// streams", time stream P|F text. B marks the start of a program; readers of
// the format pass over tags that they do not know.
func (l Line) appendTo(b []byte) []byte {
	b = l.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, ' ')
	b = append(b, l.Stream...)
	switch {
	case l.Begins:
		b = append(b, " B "...)
	case l.Partial:
		b = append(b, " P "...)
	default:
		b = append(b, " F "...)
	}
	b = append(b, l.Text...)
	return append(b, '\n')
}

// parseLine reads a record without its newline.
func parseLine(record []byte) (Line, error) {
	stamp, rest, ok1 := bytes.Cut(record, []byte{' '})
	stream, rest, ok2 := bytes.Cut(rest, []byte{' '})
	tag, text, ok3 := bytes.Cut(rest, []byte{' '})
	if !ok1 || !ok2 || !ok3 || len(record) > maxRecord {
		return Line{}, errRecord
	}
	when, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return Line{}, errRecord
	}
	line := Line{Time: when, Stream: Stream(stream), Text: string(text)}
	if line.Stream != Stdout && line.Stream != Stderr {
		return Line{}, errRecord
	}
	// The tag is a list joined by colons; the first says whether it is partial.
	switch first, _, _ := strings.Cut(string(tag), ":"); first {
	case "F":
	case "P":
		line.Partial = true
	case "B":
		line.Begins = true
	default:
		return Line{}, errRecord
	}
	return line, nil
}
